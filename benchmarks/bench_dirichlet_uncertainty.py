"""dirichlet_uncertainty: plain PyTorch, and torch.compile of it."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row


@pytest.mark.parametrize("name", ["sure_fast", "torch.compile"])
def test_dirichlet_uncertainty(benchmark, name):
    logits = torch.randn(2, 4, 96, 96, 96, generator=torch.Generator().manual_seed(0))
    run = sure_fast.dirichlet_uncertainty if name == "sure_fast" else torch.compile(sure_fast.dirichlet_uncertainty)
    expected = sure_fast.dirichlet_uncertainty(logits)
    row(benchmark, f"dirichlet_uncertainty {list(logits.shape)}", name, lambda: run(logits), expected, rounds="slow")
