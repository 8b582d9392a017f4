"""noise_uncertainty_loss, forward + backward: plain PyTorch, and torch.compile of its reference."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row
from sure_fast.reference.noise_uncertainty_loss import noise_uncertainty_loss as reference


@pytest.mark.parametrize("name", ["sure_fast", "torch.compile(reference)"])
def test_noise_uncertainty_loss(benchmark, name):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, 96, 96, 96, generator=generator, requires_grad=True) for _ in range(3)]
    d = torch.rand(2, 96, 96, 96, generator=generator) * 8
    centers = torch.randint(0, 96, (2, 9, 3), generator=generator)
    levels, valid = torch.tensor([0.3, 0.8]), torch.ones(2, 9, dtype=torch.bool)
    compiled = torch.compile(reference)

    def step():
        if name == "sure_fast":
            total = sure_fast.noise_uncertainty_loss(*maps, d, centers, levels).total
        else:
            total = sum(compiled(*maps, d, centers, levels, valid=valid))
        return (total.detach(), *torch.autograd.grad(total, maps))

    expected = sum(reference(*(m.double() for m in maps), d, centers, levels.double(), valid=valid)).float()
    gradients = torch.autograd.grad(expected, maps)
    row(
        benchmark,
        "noise_uncertainty_loss forward + backward [2, 96, 96, 96]",
        name,
        step,
        (expected.detach(), *gradients),
        rounds="slow",
    )
