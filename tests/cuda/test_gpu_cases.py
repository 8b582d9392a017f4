"""The cases that run on a GPU, in the emulator: that they can be trusted there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
def test_the_check_is_rehearsed(tmp_path):
    """Every part of it in its order, on CPU tensors; a part without time left, and one that fails, lose nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.check", "--rehearse", "--output", tmp_path / "out"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    content = json.loads((tmp_path / "out/gpu.json").read_text())
    assert done.returncode == 0, done.stdout
    parts = {part["part"]: part["status"] for part in content["parts"]}
    wanted = "build, smoke, step, step eager, ops, step compiled, step eager whole, tests, tests of ops"
    assert ", ".join(parts) == wanted
    assert set(parts.values()) == {"ok"}
    rows = content["rows"]
    assert not [row for row in rows if row.get("error") or row.get("refused") or row.get("problem")]
    assert [row["variant"] for row in rows if row["kind"] == "step"] == [
        "ours", "ours as a graph", "eager, distance up to 4", "torch.compile", "eager",
    ]  # fmt: skip
    totals = [row["total"] for row in rows if row["kind"] == "step" and "total" in row]
    assert max(totals) - min(totals) <= 2e-3 * max(totals)
    wanted = {(name, backend, dtype) for name, backend in available() for dtype in ("bfloat16", "float32")}
    assert wanted <= {(row["case"], row.get("backend"), row.get("dtype")) for row in rows if row["kind"] == "op"}
    assert {"date", "deadline_s", "device", "versions"} <= content.keys()
    command = [sys.executable, "-m", "benchmarks.gpu.check", "--rehearse", "--output", tmp_path / "short"]
    assert subprocess.run([*command, "--deadline", "6"], cwd=ROOT, capture_output=True, text=True).returncode == 1
    parts = json.loads((tmp_path / "short/gpu.json").read_text())["parts"]
    assert parts[1]["status"] in ("time ran out", "no time left")
