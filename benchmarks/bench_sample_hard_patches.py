"""sample_hard_patches: plain PyTorch."""

from __future__ import annotations

import torch

import sure_fast
from benchmarks.common import row


def test_sample_hard_patches(benchmark):
    generator = torch.Generator().manual_seed(0)
    shape = (24, 128, 128)
    u, noisy = (torch.rand(shape, generator=generator) for _ in range(2))
    label = torch.randint(0, 4, shape, generator=generator)
    d = torch.rand(shape, generator=generator) * 8

    def draw():
        return sure_fast.sample_hard_patches(
            u, noisy, label, d, num_classes=4, generator=torch.Generator().manual_seed(1)
        )

    row(benchmark, f"sample_hard_patches {list(shape)}, 4 classes", "sure_fast", draw, draw(), rounds="slow")
