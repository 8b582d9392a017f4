"""Which backend a run names for its device."""

from __future__ import annotations

import torch

from sure_fast import use_backend
from sure_fast.engine import backends
from sure_fast.ops import _calls, _triton


def test_a_gpu_is_not_told_the_backends_of_the_cpu(monkeypatch):
    for module in (_calls, _triton):
        monkeypatch.setattr(module, "architecture", lambda index: None)
    monkeypatch.setattr(_calls, "missing", None)
    monkeypatch.setattr(_triton, "MISSING", None)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert backends.backend_on("evidential_loss", gpu) == "triton"
    assert backends.backend_on("spearman", gpu) == "cuda"
    assert {backends.backend_on(op, cpu) for op in ("evidential_loss", "spearman")} == {"cpu"}
    line = backends.describe(gpu)
    assert line.startswith("backends on cuda: ")
    assert "cpu for" not in line
    monkeypatch.setattr(_triton, "MISSING", "Triton is not installed")
    assert backends.backend_on("evidential_loss", gpu) == "reference"
    with use_backend("reference"):
        assert backends.describe(cpu).startswith("backends on cpu: reference for every op")
