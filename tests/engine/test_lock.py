"""One writer a folder."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from sure_fast.engine import lock
from sure_fast.engine.config import ConfigError

HOLD = """
import sys, time
from pathlib import Path
from sure_fast.engine import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_until_the_first_has_died(holder, tmp_path):
    text = rf"output .*run: process {holder.pid} on .* is writing into it"
    with pytest.raises(ConfigError, match=text), lock.held(tmp_path / "run"):
        pass
    holder.kill()
    holder.wait()
    with lock.held(tmp_path / "run"):
        assert (tmp_path / "run" / lock.NAME).is_file()


def test_the_same_process_is_refused_too(tmp_path):
    text = "this process is writing into it already"
    with lock.held(tmp_path), pytest.raises(ConfigError, match=text), lock.held(tmp_path):
        pass


def test_a_fresh_folder_is_never_one_that_is_there(tmp_path):
    base = tmp_path / "runs" / "now"
    with lock.held(base, fresh=True) as first, lock.held(base, fresh=True) as second:
        assert (first, second) == (base, base.with_name("now-2"))
        (first / "file").touch()
    assert first.is_dir()
    assert not second.exists()


def test_what_stayed_empty_is_removed(tmp_path):
    with lock.held(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    with lock.held(tmp_path / "mine"):
        assert lock.is_empty(tmp_path / "mine")
    assert (tmp_path / "mine").is_dir()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "lockf", unsupported)
    with lock.held(tmp_path):
        assert "no locks here (No locks available); one job at a time may use it" in capsys.readouterr().err


def test_a_file_in_its_place_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="expected a folder, got a file"), lock.held(tmp_path / "file"):
        pass
