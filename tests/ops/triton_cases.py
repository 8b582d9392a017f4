"""Inputs and comparisons for the tests of the Triton kernels."""

from __future__ import annotations

import pytest
import torch

from sure_fast.ops import _triton
from tests._tolerances import tolerance

if _triton.MISSING is not None:
    pytest.skip(_triton.MISSING, allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = ["contiguous", "channels_last", "channel slice", "every other voxel", "transposed"]
SHAPES = {
    "2d": (2, 4, 17, 23),
    "3d": (2, 3, 5, 6, 7),
    "one voxel": (1, 2, 1, 1),
    "more than a block": (1, 2, 40, 61),
    "many classes": (1, 40, 3, 5),
    "empty batch": (0, 3, 4, 4),
    "empty axis": (2, 3, 0, 4),
}
GRADIENT_SHAPES = [
    (2, 1, 13, 70), (1, 3, 4, 5, 17), (1, 1, 19, 3, 5), (1, 2, 1, 2, 30), (2, 1, 9, 1), (1, 1, 1, 1, 1),
    (1, 1, 2, 13, 22), (0, 1, 4, 4), (1, 1, 0, 4),
]  # fmt: skip


def random(shape, dtype=torch.float32, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale).to(DEVICE, dtype)


def agree(got, want, dtype, what="", *, scaled=False):
    """`scaled`: relative to the largest."""
    scale = want.abs().max().clamp(min=1e-30) if scaled and want.numel() else 1.0
    bounds = tolerance(dtype, what)
    if dtype == torch.bfloat16 and DEVICE == "cpu":  # the interpreter cuts the mantissa off instead of rounding it
        bounds["rtol"] = max(bounds["rtol"], 2**-7)
    torch.testing.assert_close(got.double() / scale, want / scale, **bounds)


def evidential_case(shape, dtype=torch.float32, scale=3.0, regions=False):
    z, generator = random(shape, dtype, scale), torch.Generator().manual_seed(2)
    size = shape if regions else (shape[0], *shape[2:])
    target = torch.randint(0, 2 if regions else shape[1], size, generator=generator)
    target[torch.rand(size, generator=generator) < 0.2] = -1
    return z, target.to(DEVICE)
