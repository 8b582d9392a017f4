"""dirichlet_uncertainty of softplus evidence, the costliest: fused, the eager reference, and torch.compile of it."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row


def reference(logits):
    return sure_fast.dirichlet_uncertainty(logits, evidence="softplus", backend="reference")


IMPLEMENTATIONS = {
    "sure_fast": lambda: lambda logits: sure_fast.dirichlet_uncertainty(logits, evidence="softplus"),
    "eager reference": lambda: reference,
    "torch.compile(reference)": lambda: torch.compile(reference),
}


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_dirichlet_uncertainty(benchmark, name):
    logits = torch.randn(2, 4, 96, 96, 96, generator=torch.Generator().manual_seed(0))
    run = IMPLEMENTATIONS[name]()
    expected = reference(logits.double()).float()
    row(benchmark, f"dirichlet_uncertainty {list(logits.shape)}", name, lambda: run(logits), expected, rounds="fast")
