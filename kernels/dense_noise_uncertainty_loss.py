"""Order and far terms of dense_noise_uncertainty_loss from maps u_0, u_1, u_2 and d [voxels]; of one noisy copy those
of u_0 and u_1 alone, the sums of the others being 0.

order_ij = sum over d <= threshold of [s (u_i - u_j) + margin |l_j - l_i|]+, s = sign(l_j - l_i);
far_k, near_k = sum over d > threshold, d <= threshold of u_k. Backward: +s and -s where order_ij is above 0 (at u_j
alone with `detach`), 1 at far and near voxels, each times its coefficient; the four maps are read again.
Grid (blocks of voxels); float32 over a block, float64 beyond.
Bytes per voxel: four values read; the backward writes three more; of one copy three and two. Bound by memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._cpu import DENSE_NOISE_SUMS
from ._launch import BLOCK, THREADS, of_threads, on_device_of, own_voxels

LANES, TILES = 512, 4  # voxels of a tile of the forward, 16 bytes a load; tiles whose sums are added up once


@triton.jit
def _missing(low, high, rise, margin, near):
    """How much u misses of the wanted rise, 0 where it does not, and where it does; a NaN is kept."""
    s = tl.where(rise > 0, 1.0, tl.where(rise < 0, -1.0, 0.0))
    x = s * (low - high) + margin * tl.abs(rise)
    counts = near & ((x > 0) | (x != x))
    return tl.where(counts, x, 0.0), counts, s


@triton.jit
def _load(u, u1, distance, v, inside, threshold):
    d = tl.load(distance + v, mask=inside, other=float("nan"))
    return (
        tl.load(u + v, mask=inside, other=0.0),
        tl.load(u1 + v, mask=inside, other=0.0),
        inside & (d <= threshold),
        inside & (d > threshold),
    )


@triton.jit
def _by_place(coefficients, k, near, far):
    """What every near and every far voxel of image k gets."""
    at_far = tl.where(far, tl.load(coefficients + 4 + k).to(tl.float32), 0.0)
    return tl.where(near, tl.load(coefficients + 8 + k).to(tl.float32), at_far)


@triton.jit
def _added(sums, values):
    added = sums[:0]
    for k in tl.static_range(len(values)):
        added = added + (sums[k] + of_threads(values[k]),)
    return added


@triton.jit
def _forward(
    u,  # of the clean image [V] contiguous float32, as the three others
    u1,  # of the first noisy image [V]
    u2,  # of the second [V]; of one copy not read
    distance,  # to the boundary [V], in the unit of the threshold
    levels,  # of the noise [2]
    partials,  # [blocks, SUMS], float32, written
    voxels,  # V
    threshold,  # near is where distance <= threshold
    margin,  # what u has to rise by, times the rise of the noise
    TWO: tl.constexpr,  # whether there are two noisy images
    SUMS: tl.constexpr,  # numbers a block
    LANES: tl.constexpr,  # voxels of a tile
    TILES: tl.constexpr,  # of a program
):
    l1 = tl.load(levels).to(tl.float32)
    sums = (tl.zeros((THREADS,), tl.float32),) * SUMS
    for tile in tl.range(0, TILES):
        v = (tl.program_id(0).to(tl.int64) * TILES + tile) * LANES + tl.arange(0, LANES)
        inside = v < voxels
        x0, x1, near, far = _load(u, u1, distance, v, inside, threshold)
        x2, none = x0, tl.zeros(v.shape, tl.float32)
        missing02, missing12, far2, near2 = none, none, none, none
        if TWO:
            x2, l2 = tl.load(u2 + v, mask=inside, other=0.0), tl.load(levels + 1).to(tl.float32)
            missing02 = _missing(x0, x2, l2, margin, near)[0]
            missing12 = _missing(x1, x2, l2 - l1, margin, near)[0]
            far2, near2 = tl.where(far, x2, 0.0), tl.where(near, x2, 0.0)
        of_tile = (
            _missing(x0, x1, l1, margin, near)[0], missing02, missing12, tl.where(near, 1.0, 0.0),
            tl.where(far, x0, 0.0), tl.where(far, x1, 0.0), far2, tl.where(far, 1.0, 0.0),
            tl.where(near, x0, 0.0), tl.where(near, x1, 0.0), near2,
        )  # fmt: skip
        sums = _added(sums, of_tile)
    partials += tl.program_id(0).to(tl.int64) * SUMS
    for k in tl.static_range(SUMS):
        tl.store(partials + k, tl.sum(sums[k]))


@triton.jit
def _backward(
    coefficients,  # d loss / d sums [SUMS], float64
    u,  # of the clean image [V] contiguous float32, as the three others
    u1,  # of the first noisy image [V]
    u2,  # of the second [V]; of one copy not read
    distance,  # to the boundary [V], in the unit of the threshold
    levels,  # of the noise [2]
    gradient,  # d loss / d u [V] contiguous float32, written, as the two others
    gradient1,  # d loss / d u1 [V]
    gradient2,  # d loss / d u2 [V]; of one copy not written
    voxels,  # V
    threshold,  # near is where distance <= threshold
    margin,  # what u has to rise by, times the rise of the noise
    TWO: tl.constexpr,  # whether there are two noisy images
    DETACH: tl.constexpr,  # whether the image of less noise is a constant
    BLOCK: tl.constexpr,  # voxels of a program
):
    v, inside = own_voxels(voxels, BLOCK)
    x0, x1, near, far = _load(u, u1, distance, v, inside, threshold)
    l1 = tl.load(levels).to(tl.float32)
    _, missing01, s01 = _missing(x0, x1, l1, margin, near)
    c01 = tl.where(missing01, s01 * tl.load(coefficients).to(tl.float32), 0.0)
    g0 = _by_place(coefficients, 0, near, far)
    g1 = _by_place(coefficients, 1, near, far) - c01
    if not DETACH:
        g0 += c01
    if TWO:
        x2, l2 = tl.load(u2 + v, mask=inside, other=0.0), tl.load(levels + 1).to(tl.float32)
        _, missing02, s02 = _missing(x0, x2, l2, margin, near)
        _, missing12, s12 = _missing(x1, x2, l2 - l1, margin, near)
        c02 = tl.where(missing02, s02 * tl.load(coefficients + 1).to(tl.float32), 0.0)
        c12 = tl.where(missing12, s12 * tl.load(coefficients + 2).to(tl.float32), 0.0)
        if not DETACH:
            g0 += c02
            g1 += c12
        tl.store(gradient2 + v, _by_place(coefficients, 2, near, far) - c02 - c12, mask=inside)
    tl.store(gradient + v, g0, mask=inside)
    tl.store(gradient1 + v, g1, mask=inside)


def forward(
    u: Tensor,
    u1: Tensor,
    u2: Tensor | None,
    distance: Tensor,
    levels: Tensor,
    threshold: float,
    margin: float,
    sums: Tensor,
) -> None:
    """Writes `sums`, float64 [11], of maps of one shape; u2 None: of one noisy copy."""
    u, u1, distance = (x.contiguous() for x in (u, u1, distance))
    second = u1 if u2 is None else u2.contiguous()
    blocks = triton.cdiv(u.numel(), LANES * TILES)
    partials = u.new_empty((blocks, DENSE_NOISE_SUMS), dtype=torch.float32)
    with on_device_of(u):
        _forward[(blocks,)](
            u, u1, second, distance, levels.contiguous(), partials, u.numel(), threshold, margin, u2 is not None,
            DENSE_NOISE_SUMS, LANES, TILES,
        )  # fmt: skip
    torch.sum(partials, 0, dtype=torch.float64, out=sums)


def backward(
    coefficients: Tensor,
    u: Tensor,
    u1: Tensor,
    u2: Tensor | None,
    distance: Tensor,
    levels: Tensor,
    threshold: float,
    margin: float,
    detach: bool,
    gradient: Tensor,
    gradient1: Tensor,
    gradient2: Tensor,
) -> None:
    """Writes the gradients, each like `u`; of one noisy copy not the last."""
    u, u1, distance = (x.contiguous() for x in (u, u1, distance))
    second = u1 if u2 is None else u2.contiguous()
    with on_device_of(u):
        _backward[(triton.cdiv(u.numel(), BLOCK),)](
            coefficients, u, u1, second, distance, levels.contiguous(), gradient, gradient1, gradient2, u.numel(),
            threshold, margin, u2 is not None, detach, BLOCK,
        )  # fmt: skip
