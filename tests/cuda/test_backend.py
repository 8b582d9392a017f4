"""Why the CUDA kernels would not run; needs no GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sure_fast import _backends
from sure_fast.ops import _calls

CUDA_OPS = [op for op, backends in _backends.registered().items() if "cuda" in backends]


def test_order_of_backends():
    for op in CUDA_OPS:
        names = [b for b in _backends.registered()[op] if b in ("cpu", "triton", "cuda", "reference")]
        assert names == sorted(names, key=_backends.BACKENDS.index)


def test_reasons(monkeypatch):
    u = torch.rand(1, 8, 8)
    meta = torch.zeros(1, 8, 8, device="meta")
    assert _calls.supports("uncertainty", u) == "the uncertainty is on cpu, not on a CUDA device"
    monkeypatch.setattr(_calls, "device_type", "meta")
    monkeypatch.setattr(_calls, "missing", None)
    assert _calls.supports("uncertainty", meta) is None
    assert _calls.supports("uncertainty", meta, most=63) == "the uncertainty has 64 elements, more than 63"
    monkeypatch.setattr(_calls, "missing", "the CUDA library is missing: …")
    assert _calls.supports("uncertainty", meta) == "the CUDA library is missing: …"


@pytest.mark.parametrize(("capability", "supported"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_architecture(capability, supported, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    reason = _calls._architecture_of.__wrapped__(0)
    assert (reason is None) == supported
    assert supported or reason == "the device has compute capability 7.5, and the kernels need 8.0"


def test_imports_without_the_library():
    code = (
        "import sys; sys.modules['sure_fast._cuda'] = None\n"
        "import torch, sure_fast; u = torch.rand(1, 4, 4); print(sure_fast.gradient_uncertainty_loss(u, u, u).item())\n"
        "from sure_fast.ops import _calls; print(_calls.missing)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the CUDA library is missing: sure_fast was built without nvcc (" in done.stdout
