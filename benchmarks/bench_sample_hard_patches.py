"""sample_hard_patches: fused, the eager reference, and a Python loop over the candidates."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks import published
from benchmarks.common import row


def maps(shape):
    generator = torch.Generator().manual_seed(0)
    u, noisy = (torch.rand(shape, generator=generator) for _ in range(2))
    return u, noisy, torch.randint(0, 4, shape, generator=generator), torch.rand(shape, generator=generator) * 8


@pytest.mark.parametrize("name", ["sure_fast", "eager reference"])
@pytest.mark.parametrize("size", [1, 3])
def test_many_patches(benchmark, size, name):
    shape, backend = (1, 128, 128), "cpu" if name == "sure_fast" else "reference"
    inputs = maps(shape)

    def draw(backend):
        return sure_fast.sample_hard_patches(
            *inputs, num_classes=4, patch_size=size, num_patches=1000, backend=backend,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip

    group = f"sample_hard_patches {list(shape)}, 4 classes, 1000 patches of {size} x {size} a class"
    row(
        benchmark,
        group,
        name,
        lambda: draw(backend),
        draw("reference"),
    )


@pytest.mark.parametrize("name", ["sure_fast", "eager reference", "Python loop over candidates"])
def test_sample_hard_patches(benchmark, name):
    shape = (24, 128, 128)
    u, noisy, label, d = maps(shape)

    def draw(backend):
        generator = torch.Generator().manual_seed(1)
        return sure_fast.sample_hard_patches(u, noisy, label, d, num_classes=4, generator=generator, backend=backend)

    def loop():
        return published.hard_patches(u, noisy, label, d, classes=4, size=3, number=3)

    runs = {"sure_fast": lambda: draw("cpu"), "eager reference": lambda: draw("reference")}
    group = f"sample_hard_patches {list(shape)}, 4 classes"
    if name in runs:
        row(benchmark, group, name, runs[name], draw("reference"))
    else:  # another draw
        assert all(len(centers) == 12 for centers in loop())
        row(benchmark, group, name, loop, rounds="slow")
