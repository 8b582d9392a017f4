"""sample_hard_patches: fused, the eager reference, and a Python loop over the candidates."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks import published
from benchmarks.common import row


@pytest.mark.parametrize("name", ["sure_fast", "eager reference", "Python loop over candidates"])
def test_sample_hard_patches(benchmark, name):
    generator = torch.Generator().manual_seed(0)
    shape = (24, 128, 128)
    u, noisy = (torch.rand(shape, generator=generator) for _ in range(2))
    label = torch.randint(0, 4, shape, generator=generator)
    d = torch.rand(shape, generator=generator) * 8

    def draw(backend):
        generator = torch.Generator().manual_seed(1)
        return sure_fast.sample_hard_patches(u, noisy, label, d, num_classes=4, generator=generator, backend=backend)

    def loop():
        return published.hard_patches(u, noisy, label, d, classes=4, size=3, number=3)

    runs = {"sure_fast": lambda: draw("cpu"), "eager reference": lambda: draw("reference")}
    group = f"sample_hard_patches {list(shape)}, 4 classes"
    if name in runs:
        row(benchmark, group, name, runs[name], draw("reference"), rounds="slow")
    else:  # another draw
        assert all(len(centers) == 12 for centers in loop())
        row(benchmark, group, name, loop, rounds="slow")
