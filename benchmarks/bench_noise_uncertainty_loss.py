"""noise_uncertainty_loss, forward + backward from the logits: fused, the eager reference, and torch.compile of it."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row


def loss(backend):
    def run(z, d, noise):
        return sure_fast.noise_uncertainty_loss(*z, d, noise[0], noise[1], evidence="softplus", backend=backend).total

    return run


IMPLEMENTATIONS = {
    "sure_fast": lambda: loss("cpu"),
    "eager reference": lambda: loss("reference"),
    "torch.compile(reference)": lambda: torch.compile(loss("reference")),
}


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_noise_uncertainty_loss(benchmark, name):
    generator = torch.Generator().manual_seed(0)
    z = [torch.randn(2, 3, 96, 96, 96, generator=generator, requires_grad=True) for _ in range(3)]
    d = torch.rand(2, 96, 96, 96, generator=generator) * 8
    noise = torch.randint(0, 96, (2, 9, 3), generator=generator), torch.tensor([0.3, 0.8])
    run = IMPLEMENTATIONS[name]()

    def step():
        total = run(z, d, noise)
        return (total.detach(), *torch.autograd.grad(total, z))

    total = loss("reference")([x.double() for x in z], d, noise)
    expected = (total.detach().float(), *torch.autograd.grad(total, z))
    row(
        benchmark,
        "noise_uncertainty_loss forward + backward [2, 3, 96, 96, 96]",
        name,
        step,
        expected,
        rtol=1e-3,
        atol=1e-9,
    )
