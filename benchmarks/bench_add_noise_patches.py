"""add_noise_patches: fused, the eager reference, and a Python loop over the patches."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row

SHAPE, SIZE = (24, 1, 128, 128), 7


def loop(image, centers, noise):
    copies = []
    for patch in noise:
        copy = image.clone()
        for n, places in enumerate(centers.tolist()):
            for y, x in places:
                copy[n, :, y - SIZE // 2 : y + SIZE // 2 + 1, x - SIZE // 2 : x + SIZE // 2 + 1] += patch
        copies.append(copy)
    return torch.cat(copies)


@pytest.mark.parametrize("name", ["sure_fast", "eager reference", "Python loop over patches"])
def test_add_noise_patches(benchmark, name):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(SHAPE, generator=generator)
    noise = torch.randn((2, SIZE, SIZE), generator=generator)
    grid = torch.cartesian_prod(torch.arange(8, 128, 32), torch.arange(8, 128, 40))
    centers = grid.expand(SHAPE[0], *grid.shape).contiguous()
    valid = torch.ones(centers.shape[:2], dtype=torch.bool)

    def add(backend):
        return sure_fast.add_noise_patches(image, centers, valid, noise, backend=backend)

    runs = {
        "sure_fast": lambda: add("cpu"),
        "eager reference": lambda: add("reference"),
        "Python loop over patches": lambda: loop(image, centers, noise),
    }
    group = f"add_noise_patches {list(SHAPE)}, {len(grid)} patches of {SIZE} x {SIZE}"
    row(benchmark, group, name, runs[name], add("reference"))
