"""dense_noise_uncertainty_loss, forward + backward from three maps of u: the kernel, eager and compiled PyTorch.

The reference sorts every pair by torch's sort, in time n log² n.
"""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row


def loss(backend, with_distance):
    def run(maps, d, levels):
        out = sure_fast.dense_noise_uncertainty_loss(*maps, d, levels, with_distance=with_distance, backend=backend)
        return sum(out)

    return run


IMPLEMENTATIONS = {
    "sure_fast": lambda pairs: loss("cpu", pairs),
    "eager reference": lambda pairs: loss("reference", pairs),
    "torch.compile(reference)": lambda pairs: torch.compile(loss("reference", pairs)),
}


@pytest.mark.parametrize("with_distance", [False, True])
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_dense_noise_uncertainty_loss(benchmark, name, with_distance):
    generator = torch.Generator().manual_seed(0)
    size = (2, 64, 64, 64)
    u = torch.rand(size, generator=generator)
    maps = [(u + 0.1 * k * torch.rand(size, generator=generator)).requires_grad_() for k in range(3)]
    label = torch.zeros(size, dtype=torch.long)
    label[:, 12:40, 20:50, 16:48] = 1
    d, levels = sure_fast.boundary_distance(label, max_distance=4.0), torch.tensor([0.3, 0.8])
    run = IMPLEMENTATIONS[name](with_distance)

    def step():
        total = run(maps, d, levels)
        return (total.detach(), *torch.autograd.grad(total, maps))

    total = loss("reference", with_distance)([x.double() for x in maps], d.double(), levels.double())
    expected = (total.detach().float(), *torch.autograd.grad(total, maps))
    near = int((d <= 4).sum())
    which = "all terms" if with_distance else "without the distance term"
    group = f"dense_noise_uncertainty_loss forward + backward {list(size)}, {near} voxels near a boundary, {which}"
    row(benchmark, group, name, step, expected, rtol=1e-3, atol=1e-8)
