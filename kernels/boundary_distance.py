"""Distance of every voxel of label [N, D, H, W], any strides, to the nearest boundary voxel, one whose 3 x 3 x 3
neighbourhood (clipped at the border) holds more than one label: its minimum is not its maximum.

d^2 = min over j in B of sum_a (s_a (i_a - j_a))^2, one axis after the other: W, H, D.
Grid (blocks of a plane, D or pieces of 16 planes, N). Within a limit below 16 equal steps d^2 is a byte and each axis
looks that far; otherwise it is a float and a block looks outwards until nothing nearer is possible.
Bytes per voxel: the label, a byte (four as float) read and written per axis, four written. Bound by loads that hit the
cache: 9 of the label, then 2 per step and axis; without a limit at most 2 (D + H + W), on an image without boundary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import _cpu
from ._launch import needs_wide, on_device_of, stencil

LANES = 256
MANY_LANES = 1024  # of bytes: a thread loads 8 at once where they are in a row and as many are in a plane
FEW_LANES = 128  # of one warp, which finds its largest distance without a barrier
PLANES = 16
BEYOND, IGNORED = tl.constexpr(_cpu.BEYOND), tl.constexpr(_cpu.IGNORED)  # squared distances in a byte


@triton.jit
def _labels(label, above, here, below, left, middle, right, ignore, LONG: tl.constexpr):
    """Of the 3 x 3 neighbourhood in one plane the smallest and the largest label, those ignored left out; where none
    are, the one in the middle and the bits in which any other differs from it, which is less to compute."""
    work = tl.int64 if LONG else tl.int32
    least = -0x7FFFFFFFFFFFFFFF - 1 if LONG else -0x80000000
    most = 0x7FFFFFFFFFFFFFFF if LONG else 0x7FFFFFFF
    if ignore is None:
        a, b = tl.load(label + here + middle).to(work), tl.zeros(here.shape, work)
    else:
        a, b = tl.full(here.shape, most, work), tl.full(here.shape, least, work)
    for k in tl.static_range(9):
        row = above if k < 3 else (here if k < 6 else below)
        y = tl.load(label + row + (left if k % 3 == 0 else (middle if k % 3 == 1 else right))).to(work)
        if ignore is None:
            b = b | (y ^ a)
        else:
            a = tl.minimum(a, tl.where(y == ignore, most, y))
            b = tl.maximum(b, tl.where(y == ignore, least, y))
    return a, b


@triton.jit
def _are_mixed(a0, b0, a1, b1, a2, b2, ignore):
    """Whether three planes hold more than one label, from what `_labels` returned of each."""
    if ignore is None:
        return (b0 | b1 | b2 | (a0 ^ a1) | (a2 ^ a1)) != 0
    else:
        return tl.minimum(tl.minimum(a0, a1), a2) < tl.maximum(tl.maximum(b0, b1), b2)


@triton.jit
def _counts(label, at, ignore):
    return tl.load(label + at).to(tl.int64) != ignore


@triton.jit
def _boundary(
    label,  # [N, D, H, W] integers; D = 1 in 2D
    out,  # bytes [N, D, H, W] contiguous, written
    depth,  # D in voxels
    height,  # H in voxels
    width,  # W in voxels
    stride_n,  # of label, in elements: along N
    stride_d,  # along D
    stride_h,  # along H
    stride_w,  # along W
    ignore,  # label that is no neighbour, or None
    LONG: tl.constexpr,  # labels are int64
    VOLUME: tl.constexpr,  # D > 1
    WIDE: tl.constexpr,  # offsets in a plane take int64
    PLANES: tl.constexpr,  # of a program
    LANES: tl.constexpr,  # voxels of a plane that a program has
):
    """0 on boundary voxels, BEYOND elsewhere."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    _, _, above, here, below, left, middle, right = stencil(lane, height, width, stride_h, stride_w, WIDE)
    inside = lane < height * width
    image = tl.program_id(2).to(tl.int64)
    label += image * stride_n
    out += image * depth * height * width + lane
    first = tl.program_id(1) * PLANES
    at = label + first.to(tl.int64) * stride_d
    a1, b1 = _labels(at, above, here, below, left, middle, right, ignore, LONG)
    a0, b0 = a1, b1
    if VOLUME:
        at = label + tl.maximum(first - 1, 0).to(tl.int64) * stride_d
        a0, b0 = _labels(at, above, here, below, left, middle, right, ignore, LONG)
    for d in tl.range(first, tl.minimum(first + PLANES, depth)):
        a2, b2 = a1, b1
        if VOLUME:
            at = label + tl.minimum(d + 1, depth - 1).to(tl.int64) * stride_d
            a2, b2 = _labels(at, above, here, below, left, middle, right, ignore, LONG)
        mixed = _are_mixed(a0, b0, a1, b1, a2, b2, ignore)
        plane = tl.cast(d, tl.int64)
        if ignore is not None:
            mixed = mixed & _counts(label + plane * stride_d, here + middle, ignore)
        tl.store(out + plane * height * width, tl.where(mixed, 0, BEYOND).to(tl.uint8), mask=inside)
        a0, b0, a1, b1 = a1, b1, a2, b2


@triton.jit
def _line(depth, height, width, AXIS: tl.constexpr, LANES: tl.constexpr):
    """Of the voxels of this program: their index in the batch and in the plane, which of them exist; and their position
    along the axis, its length and stride."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    d = tl.program_id(1)
    at = (tl.program_id(2).to(tl.int64) * depth + d) * height * width + lane
    if AXIS == 2:
        position, size, stride = lane % width, width, tl.cast(1, tl.int64)
    elif AXIS == 1:
        position, size, stride = lane // width, height, tl.cast(width, tl.int64)
    else:
        position, size, stride = lane * 0 + d, depth, tl.cast(height, tl.int64) * width
    return at, lane, lane < height * width, position, size, stride


@triton.jit
def _distance_of(square, most, step):
    return tl.where(square > most, float("inf"), step * tl.sqrt_rn(square.to(tl.float32)))


@triton.jit
def _window(
    x,  # squared distances so far in voxels, bytes [N, D, H, W] contiguous
    out,  # the same with this axis, or float32 distances; written
    distances,  # beside "squares" the float32 distances, NaN of ignored voxels; written, or None
    label,  # [N, D, H, W] integers, read where OUTPUT is "squares"
    depth,  # D in voxels
    height,  # H in voxels
    width,  # W in voxels
    stride_n,  # of label, in elements: along N
    stride_d,  # along D
    stride_h,  # along H
    stride_w,  # along W
    ignore,  # label whose voxels are IGNORED, or None
    most,  # squared distance in voxels, from above which all is beyond
    step,  # of a voxel, in the unit of the distances
    AXIS: tl.constexpr,  # 0, 1, 2: D, H, W
    REACH: tl.constexpr,  # voxels to look, both ways, less than 16
    OUTPUT: tl.constexpr,  # "axis": squares for the next axis; of the last one "distances", or "squares" to keep
    LANES: tl.constexpr,  # voxels of a plane that a program has
):
    """Bytes: min over |k| <= REACH of x[i + k] + k^2."""
    at, lane, inside, position, size, stride = _line(depth, height, width, AXIS, LANES)
    best = tl.load(x + at, mask=inside, other=BEYOND).to(tl.int32)
    for k in tl.static_range(1, REACH + 1):
        before = tl.load(x + at - k * stride, mask=inside & (position >= k), other=BEYOND)
        after = tl.load(x + at + k * stride, mask=inside & (position + k < size), other=BEYOND)
        best = tl.minimum(best, tl.minimum(before, after).to(tl.int32) + k * k)
    if OUTPUT == "axis":
        tl.store(out + at, best.to(tl.uint8), mask=inside)
    elif OUTPUT == "distances":
        tl.store(out + at, _distance_of(best, most, step), mask=inside)
    else:
        tl.static_assert(OUTPUT == "squares")
        distance = _distance_of(best, most, step)
        best = tl.where(best > most, BEYOND, best)
        if ignore is not None:
            p = tl.minimum(lane, height * width - 1)
            voxel = (p // width).to(tl.int64) * stride_h + (p % width).to(tl.int64) * stride_w
            label += tl.program_id(2).to(tl.int64) * stride_n + tl.program_id(1).to(tl.int64) * stride_d
            counts = _counts(label, voxel, ignore)
            best, distance = tl.where(counts, best, IGNORED), tl.where(counts, distance, float("nan"))
        if distances is not None:
            tl.store(distances + at, distance, mask=inside)
        tl.store(out + at, best.to(tl.uint8), mask=inside)


@triton.jit
def _outward(
    x,  # squared distances so far [N, D, H, W] contiguous, float32; FIRST: the boundary in bytes
    out,  # the same with this axis, float32, written
    depth,  # D in voxels
    height,  # H in voxels
    width,  # W in voxels
    reach,  # voxels to look, both ways
    squared_step,  # (step of a voxel)^2, in the unit of the distances squared
    farthest,  # the square from above which all is infinite, in the same unit
    AXIS: tl.constexpr,  # 0, 1, 2: D, H, W
    FIRST: tl.constexpr,  # of the axes
    LAST: tl.constexpr,  # of the axes: the root is written
    LANES: tl.constexpr,  # voxels of a plane that a program has
):
    """Floats: min over |k| <= reach of x[i + k] + (k step)^2."""
    at, _, inside, position, size, stride = _line(depth, height, width, AXIS, LANES)
    best = tl.load(x + at, mask=inside, other=0).to(tl.float32)
    if FIRST:
        best = tl.where(best > 0.0, float("inf"), 0.0)
    k = 1
    cost = squared_step
    worst = tl.max(best)
    while (k <= reach) & (cost < worst):
        for more in tl.static_range(4):  # a step too many finds what is farther still
            away = k + more
            before = tl.load(x + at - away * stride, mask=inside & (position >= away), other=BEYOND).to(tl.float32)
            after = tl.load(x + at + away * stride, mask=inside & (position + away < size), other=BEYOND).to(tl.float32)
            if FIRST:
                near = tl.where(tl.minimum(before, after) > 0.0, float("inf"), 0.0)
            else:
                before = tl.where(position >= away, before, float("inf"))
                near = tl.minimum(before, tl.where(position + away < size, after, float("inf")))
            steps = away * 1.0
            best = tl.minimum(best, near + steps * steps * squared_step)
        k += 4
        cost = (k * 1.0) * (k * 1.0) * squared_step
        worst = tl.max(best)
    if LAST:
        best = tl.where(best > farthest, float("inf"), tl.sqrt_rn(best))
    tl.store(out + at, best, mask=inside)


def in_bytes(spacing: Sequence[float], limit: float | None) -> bool:
    """Whether the squared distances within the limit fit a byte."""
    equal = all(step == spacing[0] for step in spacing)
    return limit is not None and equal and _cpu.squares_fit_bytes(limit, spacing[0])


def forward(
    label: Tensor,
    spacing: Sequence[float],
    limit: float | None,
    ignore: int | None,
    out: Tensor,
    distances: Tensor | None = None,
) -> None:
    """Writes to contiguous `out` [N, *S] the distance, or in uint8 the squared distance in voxels where
    `in_bytes`: BEYOND of what is farther than the limit, IGNORED of ignored voxels; then the distance to `distances`
    too, where they are given, NaN of ignored voxels."""
    volume = label if label.dim() == 4 else label.unsqueeze(1)
    images, depth, height, width = volume.shape
    size, strides = (depth, height, width), volume.stride()
    step = (spacing[0], *spacing)[-3:]
    axes = (2, 1, 0) if depth > 1 else (2, 1)
    boundary = torch.empty(volume.shape, dtype=torch.uint8, device=label.device)

    def grid(lanes: int, planes: int = 1) -> tuple[int, int, int]:
        return triton.cdiv(height * width, lanes), triton.cdiv(depth, planes), images

    with on_device_of(label):
        wide = needs_wide(height, width, *strides[2:])
        _boundary[grid(LANES, PLANES)](
            volume, boundary, *size, *strides, ignore, label.dtype == torch.int64, depth > 1, wide,
            PLANES if depth > 1 else 1, LANES,
        )  # fmt: skip
        x = boundary
        if in_bytes(spacing, limit):
            assert limit is not None
            steps = limit / spacing[0]
            reach, most = _cpu.steps_within(steps, _cpu.BEYOND), _cpu.squared_steps_within(steps)
            last = "squares" if out.dtype == torch.uint8 else "distances"
            for axis in axes:
                final = axis == axes[-1]
                y = out if final else torch.empty_like(boundary)
                _window[grid(MANY_LANES)](
                    x, y, distances if final else None, volume, *size, *strides, ignore, most, spacing[0], axis, reach,
                    last if final else "axis", MANY_LANES,
                )  # fmt: skip
                x = y
            return
        farthest = math.inf if limit is None else limit * limit * _cpu.SQUARED_SLACK
        for axis in axes:
            final, length = axis == axes[-1], size[axis] - 1
            reach = length if limit is None else _cpu.steps_within(limit / step[axis], length)
            y = out if final else torch.empty(volume.shape, device=label.device)
            _outward[grid(FEW_LANES)](
                x, y, *size, reach, step[axis] ** 2, farthest, axis, axis == 2, final, FEW_LANES, num_warps=1
            )
            x = y
