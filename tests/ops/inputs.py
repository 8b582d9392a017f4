"""Maps of the shapes and layouts that every op of voxels is tested on, and rankings."""

from __future__ import annotations

import math

import torch

SHAPES = {
    "2d": (2, 4, 17, 23),
    "3d": (2, 3, 5, 6, 7),
    "one voxel": (1, 2, 1, 1),
    "more than a block": (1, 2, 70, 61),
    "many classes": (1, 40, 3, 5),
    "empty batch": (0, 3, 4, 4),
    "empty axis": (2, 3, 0, 4),
}
LAYOUTS = ("channels_last", "channel slice", "every other voxel", "transposed", "expanded")


def random(shape, dtype=torch.float32, scale=1.0, seed=0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def strided(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values [N, C, *S] in another layout, with NaN between them; expanded, those of the first image."""
    if layout == "channels_last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "channel slice":
        wide = torch.full((x.shape[0], x.shape[1] + 2, *x.shape[2:]), math.nan, dtype=x.dtype)
        wide[:, 1:-1] = x
        return wide[:, 1:-1]
    if layout == "every other voxel":
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), math.nan, dtype=x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "transposed":
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "expanded":
        return x[:1].expand_as(x)
    return x


def rankings(rows, n, levels, dtype=torch.float32):
    """Two maps [rows, n], tied in about `levels` places, and a mask of most of them."""
    generator = torch.Generator().manual_seed(n)
    a, b = torch.randn((2, rows, n), generator=generator, dtype=dtype)
    if levels:
        a, b = (a * levels / 3).round(), (b * levels / 3).round()
    return a, b, torch.rand((rows, n), generator=generator) < 0.7


SPREADS = {
    "uniform": lambda x: x,
    "heavy tails": lambda x: torch.tan(3.14 * (x - 0.5)),
    "all magnitudes": lambda x: (torch.finfo(x.dtype).max ** (2 * x - 1)) * torch.where(x * 1e3 % 2 < 1, 1, -1),
    "subnormal": lambda x: x * torch.finfo(x.dtype).tiny,
    "the whole range": lambda x: (2 * x - 1) * torch.finfo(x.dtype).max,
    "one far away": lambda x: torch.where(torch.arange(x.shape[-1]) == 7, torch.finfo(x.dtype).max, x),
    "an infinity": lambda x: torch.where(torch.arange(x.shape[-1]) == 7, -torch.inf, x),
    "in clumps": lambda x: (x * 5).round() + x * 1e-4,
    "next to each other": lambda x: 1 + (x * 300).round() * torch.finfo(x.dtype).eps,
    "two numbers": lambda x: (x < 0.5).to(x.dtype),
    "in order": lambda x: x.sort().values,
    "in reverse": lambda x: -x.sort().values,
}
"""Numbers that a sort by cells may find hard, from uniform ones."""


def spread(name, n, dtype):
    """Two rows [2, n] of such numbers, that of the second in another order."""
    x = torch.rand((2, n), generator=torch.Generator().manual_seed(n), dtype=dtype)
    return SPREADS[name](x)
