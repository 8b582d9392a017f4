"""What is printed: lines in a file, any encoding, and a reader that leaves."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from sure_fast.engine import console


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, **options)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_takes_every_text(encoding):
    code = (
        "from sure_fast.engine import console; console.make_lasting(); import sys; "
        "print('0.1 … 0.2 – UCC ± ×', chr(26085)); print('Größe …', file=sys.stderr)"
    )
    done = python(code, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    wanted = {
        "utf-8": "0.1 … 0.2 – UCC ± × 日",
        "latin-1": "0.1 ... 0.2 - UCC ± × ?",
        "ascii": "0.1 ... 0.2 - UCC +- x ?",
    }
    assert done.stdout.decode(encoding).strip() == wanted[encoding]


def test_a_reader_that_leaves_ends_nothing():
    code = (
        "from sure_fast.engine import console; console.make_lasting(); import sys\n"
        "for k in range(100_000): print(k)\n"
        "print('still here', file=sys.stderr)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == "still here\n"
    assert process.wait() == 0


def test_a_line_every_half_minute(capsys, monkeypatch):
    now = iter(range(0, 1000, 10))
    progress = console.Progress(range(10), "read", "case", clock=lambda: next(now))
    progress.set_postfix({"loss": 0.5})
    assert list(progress) == list(range(10))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "read: 3 of 10 cases, 1 min 10 s left, loss=0.5",
        "read: 6 of 10 cases, 40 s left, loss=0.5",
        "read: 9 of 10 cases, 10 s left, loss=0.5",
    ]


def test_a_short_loop_prints_nothing_outside_a_terminal(capsys):
    with console.bar(range(1000), "read", "case") as bar:
        assert sum(bar) == 499500
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    list(console.bar(range(3), "read", "case"))
    assert "3/3" in sys.stderr.getvalue()


def test_what_fails_on_the_side_is_told():
    lines = []
    console.attempt("picture.png", lambda: 1 / 0, lines.append)
    assert lines == ["note: picture.png could not be made: ZeroDivisionError: division by zero"]
