"""Where patch centers are, and how far from the boundary those that a map of squared distances in bytes does not reach:
the least (i - j)^2 over the boundary voxels j of the image.

Grid (centers, programs): the programs of a center take the tiles of its image in turn and lower one number; those of
a center that the map reaches end at once. Integers, of 32 bits where sizes allow it. Bytes per voxel and center: 1,
mostly from the cache. Bound by arithmetic: a dozen instructions a voxel.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import _cpu

BEYOND = tl.constexpr(_cpu.BEYOND)
NOWHERE = tl.constexpr(torch.iinfo(torch.int64).max)  # squared steps to the boundary of an image without one
ROWS, COLUMNS = 16, 64  # of a tile
PROGRAMS = 128  # of a center, at the most


@triton.jit
def voxel_of(centers, valid, i, count, depth, height, width, DIMS: tl.constexpr):
    """Voxel of center i in its image, -1 where there is none, and -2 of one outside the image."""
    exists = (i < count) & (tl.load(valid + i, mask=i < count, other=0) != 0)
    h = tl.load(centers + i * DIMS + (DIMS - 2), mask=exists, other=0)
    w = tl.load(centers + i * DIMS + (DIMS - 1), mask=exists, other=0)
    ok = (h >= 0) & (h < height) & (w >= 0) & (w < width)
    voxel = h * width + w
    if DIMS == 3:
        d = tl.load(centers + i * DIMS, mask=exists, other=0)
        ok = ok & (d >= 0) & (d < depth)
        voxel += d * height * width
    return tl.where(exists, tl.where(ok, voxel, -2), -1)


@triton.jit
def _search(
    squared,  # squared distance in voxels, bytes [N, V] contiguous
    centers,  # voxels [N, P, DIMS], int64
    valid,  # [N, P], bytes 0 or 1
    nearest,  # squared voxels to the boundary [N, P], int64, lowered
    patches,  # P
    count,  # N P
    depth,  # D in voxels; V = D H W
    height,  # H in voxels
    width,  # W in voxels
    DIMS: tl.constexpr,  # 2 or 3
    WIDE: tl.constexpr,  # voxels or squared steps take int64
    ROWS: tl.constexpr,  # of a tile, along H and D
    COLUMNS: tl.constexpr,  # of a tile, along W
):
    i = tl.program_id(0).to(tl.int64)
    center = voxel_of(centers, valid, i, count, depth, height, width, DIMS)
    image = squared + i // patches * depth * height * width
    if tl.load(image + center, mask=center >= 0, other=0).to(tl.int32) == BEYOND:
        number = tl.int64 if WIDE else tl.int32
        none = NOWHERE if WIDE else 0x7FFFFFFF
        at = center.to(number)
        at_w, at_h, at_d = at % width, at // width % height, at // width // height
        rows = tl.cast(depth, number) * height
        across = tl.cdiv(width, COLUMNS)
        best = tl.full((ROWS, COLUMNS), none, number)
        for tile in tl.range(tl.program_id(1).to(number), tl.cdiv(rows, ROWS) * across, tl.num_programs(1)):
            row = tile // across * ROWS + tl.arange(0, ROWS)
            w = (tile % across * COLUMNS).to(tl.int32) + tl.arange(0, COLUMNS)
            here = image + (row * width)[:, None] + w[None, :]
            inside = (row < rows)[:, None] & (w < width)[None, :]
            boundary = tl.load(here, mask=inside, other=BEYOND) == 0
            d, h, w = row // height - at_d, row % height - at_h, w - at_w
            steps = (d * d + h * h)[:, None] + (w * w)[None, :]
            best = tl.minimum(best, tl.where(boundary, steps, none))
        found = tl.min(best)
        if found != none:
            tl.atomic_min(nearest + i, found.to(tl.int64))


def nearest_boundary(squared: Tensor, centers: Tensor, valid: Tensor, size: tuple[int, ...]) -> Tensor:
    """Of the centers [N, P, dims] where `squared` [N, D, H, W] is BEYOND int64 [N P]; of all others NOWHERE."""
    patches, dims = centers.shape[1:]
    count, (depth, height, width) = valid.numel(), size
    nearest = torch.full((count,), NOWHERE.value, device=squared.device)
    tiles = triton.cdiv(depth * height, ROWS) * triton.cdiv(width, COLUMNS)
    wide = max(depth * height * width, sum(n * n for n in size)) >= 2**31
    _search[count, min(tiles, PROGRAMS)](
        squared, centers, valid, nearest, patches, count, *size, dims, wide, ROWS, COLUMNS
    )
    return nearest
