"""gradient_uncertainty_loss, forward + backward: every pair by sorting, sampled pairs, and the n × n matrix."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row

VOXELS = 4000


def case():
    generator = torch.Generator().manual_seed(0)
    u, g = (torch.rand(1, 1, VOXELS, generator=generator, dtype=torch.float64) for _ in range(2))
    return u.requires_grad_(), g, torch.zeros(1, 1, VOXELS)


def matrix(u, g, d):
    v = (g[0, 0, :, None] - g[0, 0]) * (u[0, 0, :, None] - u[0, 0])
    return v.clamp(min=0).sum() / (v > 0).sum()


IMPLEMENTATIONS = {
    "sure_fast": sure_fast.gradient_uncertainty_loss,
    "n × n matrix": matrix,
    "10⁶ sampled pairs": lambda u, g, d: sure_fast.gradient_uncertainty_loss(u, g, d, pairs="sampled", num_pairs=10**6),
}


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_gradient_uncertainty_loss(benchmark, name):
    u, g, d = case()

    def step():
        loss = IMPLEMENTATIONS[name](u, g, d)
        return loss.detach(), torch.autograd.grad(loss, u)[0]

    loss = matrix(u, g, d)
    expected = loss.detach(), torch.autograd.grad(loss, u)[0]
    if "sampled" in name:  # an estimate: its value within the sampling error, its gradient too noisy to compare
        row(benchmark, group(), name, lambda: step()[0], expected[0], rtol=0.02, rounds="slow")
    else:
        row(benchmark, group(), name, step, expected, rtol=1e-9, rounds="slow")


def group() -> str:
    return f"gradient_uncertainty_loss forward + backward, {VOXELS} boundary voxels"
