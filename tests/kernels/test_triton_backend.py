"""Why the Triton kernels would not run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import sure_fast
from sure_fast.ops import _triton

if _triton.MISSING is not None:
    pytest.skip(_triton.MISSING, allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_reasons(monkeypatch):
    z = torch.zeros(1, 2, 4, 4)
    assert _triton.why_not("logits", z.to(DEVICE)) is None
    assert _triton.why_not("logits", z.to("meta")) == "logits is on meta, not on a CUDA device"
    assert "float64" in _triton.why_not("logits", z.to(DEVICE).double())
    many = torch.zeros(1, 2, 1, 1, device=DEVICE).expand(65536, 2, 1, 1)
    assert _triton.why_not("logits", many) == "logits has 65536 images, more than 65535"
    large = torch.zeros(1, 2, 1, 1, device=DEVICE).expand(1, 2, 2**20, 2**20)
    assert _triton.why_not("logits", large) == "logits has 2199023255552 elements, more than 2^40"
    monkeypatch.setattr(_triton, "MISSING", "Triton is not installed")
    with pytest.raises(ValueError, match="backend 'triton' was requested, but Triton is not installed"):
        sure_fast.dirichlet_uncertainty(z.to(DEVICE), backend="triton")
    monkeypatch.setattr(_triton.importlib.metadata, "version", lambda _: "3.5.1")
    assert _triton._missing() == "Triton 3.5.1 is installed, 3.6 or later is needed"


def test_cpu_tensors_keep_their_kernels():
    found = sure_fast.explain("dirichlet_uncertainty", torch.zeros(1, 2, 4, 4))
    assert [c.backend for c in found if c.chosen] == ["cpu"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    code = "import sure_fast, torch; print(sure_fast.explain('dirichlet_uncertainty', torch.zeros(1, 2, 4, 4)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "triton     logits is on cpu, not on a CUDA device" in done.stdout
