"""dense_noise_uncertainty_loss, forward + backward from three maps of u: the kernel, eager and compiled PyTorch.

The reference sorts every pair by torch's sort, in time n log² n.
"""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row


def loss(backend):
    def run(maps, d, levels):
        return sum(sure_fast.dense_noise_uncertainty_loss(*maps, d, levels, backend=backend))

    return run


IMPLEMENTATIONS = {
    "sure_fast": lambda: loss("cpu"),
    "eager reference": lambda: loss("reference"),
    "torch.compile(reference)": lambda: torch.compile(loss("reference")),
}


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_dense_noise_uncertainty_loss(benchmark, name):
    generator = torch.Generator().manual_seed(0)
    size = (2, 64, 64, 64)
    u = torch.rand(size, generator=generator)
    maps = [(u + 0.1 * k * torch.rand(size, generator=generator)).requires_grad_() for k in range(3)]
    label = torch.zeros(size, dtype=torch.long)
    label[:, 12:40, 20:50, 16:48] = 1
    d, levels = sure_fast.boundary_distance(label, max_distance=4.0), torch.tensor([0.3, 0.8])
    run = IMPLEMENTATIONS[name]()

    def step():
        total = run(maps, d, levels)
        return (total.detach(), *torch.autograd.grad(total, maps))

    total = loss("reference")([x.double() for x in maps], d.double(), levels.double())
    expected = (total.detach().float(), *torch.autograd.grad(total, maps))
    near = int((d <= 4).sum())
    group = f"dense_noise_uncertainty_loss forward + backward {list(size)}, {near} voxels near a boundary"
    row(benchmark, group, name, step, expected, rtol=1e-3, atol=1e-8, rounds="fast" if name == "sure_fast" else "slow")
