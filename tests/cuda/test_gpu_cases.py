"""The cases that run on a GPU, in the emulator: that they can be trusted there."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.check import AGAIN, PARTS, Check, rows_of
from benchmarks.gpu.ops import difference
from sure_fast import _backends
from sure_fast.ops import _triton
from tests.cuda.gpu_cases import CASES, SYNCHRONISES, assert_near, available, inputs_of, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("name", "backend"), available())
@pytest.mark.parametrize("shape", [(2, 33, 34), (1, 11, 23, 17)], ids=str)
@pytest.mark.usefixtures("emulation")
def test_agrees_with_the_reference(name, backend, shape):
    if backend == "triton" and not _triton.INTERPRETED:
        pytest.skip("Triton runs on the CPU in its interpreter alone")
    got, want = (run(CASES[name], inputs_of(CASES[name], shape, "cpu"), chosen) for chosen in (backend, "reference"))
    assert_near(name, got, want)
    assert all(x.numel() == 0 or not x.is_floating_point() or bool(x.isfinite().any()) for x in got)


@pytest.mark.skipif(not hasattr(torch.Tag, "cudagraph_unsafe"), reason="this torch has no such tag")
def test_what_waits_for_the_device_is_left_out_of_cuda_graphs():
    tagged = {
        op for op in _backends.registered()
        if torch.Tag.cudagraph_unsafe in getattr(torch.ops.sure_fast, op).default.tags
    }  # fmt: skip
    assert tagged == set(SYNCHRONISES)


@pytest.mark.slow
@pytest.mark.usefixtures("library")  # which is compiled before the time runs
def test_the_check_is_rehearsed(tmp_path):
    """Every part of it in its order, on CPU tensors; a part without time left, and one that fails, lose nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.check", "--rehearse", "--output", tmp_path / "out",
         "--deadline", "1500"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    content = json.loads((tmp_path / "out/gpu.json").read_text())
    assert done.returncode == 0, done.stdout
    parts = {part["part"]: part["status"] for part in content["parts"]}
    assert list(parts) == ["build", *PARTS]
    assert parts.pop("compute-sanitizer") == "not here"
    assert set(parts.values()) == {"ok"}
    rows = content["rows"]
    assert not [row for row in rows if row.get("error") or row.get("refused") or row.get("problem")]
    assert [row["variant"] for row in rows if row["kind"] == "step"] == [
        "ours", "ours as a graph", "eager, distance up to 4", "torch.compile", "eager",
    ]  # fmt: skip
    assert {"step in detail", "step counted"} <= {row["kind"] for row in rows} - {"step failed"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"gpu.json", "gpu.jsonl", "gpu.log"}
    wanted = {(name, backend, dtype) for name, backend in available() for dtype in ("bfloat16", "float32")}
    assert wanted <= {(row["case"], row.get("backend"), row.get("dtype")) for row in rows if row["kind"] == "op"}
    assert {"date", "deadline_s", "device", "versions"} <= content.keys()
    command = [sys.executable, "-m", "benchmarks.gpu.check", "--rehearse", "--output", tmp_path / "short"]
    assert subprocess.run([*command, "--deadline", "6"], cwd=ROOT, capture_output=True, text=True).returncode == 1
    parts = json.loads((tmp_path / "short/gpu.json").read_text())["parts"]
    assert parts[1]["status"] in ("time ran out", "no time left")


@pytest.mark.parametrize(
    ("got", "want", "told"),
    [
        ([1.0, 2.0], [1.0, 2.0], None),
        ([1.0, 2.1], [1.0, 2.0], "relative difference 5.0e-02"),
        ([math.nan, 2.0], [1.0, 2.0], "numbers that are not finite differ"),
        ([1.0, 2.0], [math.nan, 2.0], "numbers that are not finite differ"),
        ([math.inf, 2.0], [-math.inf, 2.0], "numbers that are not finite differ"),
        ([math.inf, 2.0], [1.0, 2.0], "numbers that are not finite differ"),
        ([math.inf, math.nan, 2.0], [math.inf, math.nan, 2.0], None),
        ([math.nan] * 2, [math.nan] * 2, None),
        ([3], [4], "integers differ by 1"),
    ],
)
def test_a_wrong_result_is_told(got, want, told):
    assert difference([torch.tensor(got)], [torch.tensor(want)], 1e-3) == told


def test_a_line_that_is_cut_off_is_no_row(tmp_path):
    (tmp_path / "rows").write_text('{"kind": "copy"}\n{"kind": "st')
    assert rows_of(tmp_path / "rows") == [{"kind": "copy"}]


def test_a_lost_device_is_left_behind_and_time_ends_what_was_started(tmp_path, monkeypatch):
    check = Check(tmp_path, 60, False)
    codes, begun = [AGAIN + 3, AGAIN + 7, 1], []
    monkeypatch.setattr(
        check, "python", lambda name, _, *arguments: begun.append((name, *arguments[2:])) or codes.pop(0)
    )
    check.every("ops", 10, "module")
    assert begun == [("ops",), ("ops, from row 3", 3), ("ops, from row 7", 7)]
    # what handles Ctrl-C tells what it was at; what it started is ended too, though that ignores Ctrl-C
    inner = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    outer = f"p = subprocess.Popen([sys.executable, '-c', {inner!r}]); print(p.pid); time.sleep(60)"
    assert check.part("sleep", 6, sys.executable, "-u", "-c", f"import subprocess, sys, time; {outer}") is None
    printed = (tmp_path / "gpu.log").read_text()
    assert "KeyboardInterrupt" in printed
    assert [part["status"] for part in check.parts] == ["time ran out"]
    status, deadline = Path(f"/proc/{printed.split()[2]}/status"), time.monotonic() + 10
    while status.exists() and "\tZ" not in status.read_text():  # nobody may wait for what it left
        assert time.monotonic() < deadline, f"{status} is left"
        time.sleep(0.1)
