"""Gradient magnitude of an image [N, K, D, H, W], any strides: sqrt(sum_axes (D_axis S_others image / spacing)^2), with
  Sobel: D = [-1 0 1]/2, S = [1 2 1]/4, borders replicate;  central: S = identity, one-sided at the borders.
Grid (blocks of 256 voxels of a plane, pieces of 16 planes, images). A program walks along D and keeps, of three planes,
the image smoothed in the plane and its two derivatives there: 9 loads a voxel, of which one misses the cache.
Channels are summed as they are read; "max" takes each for an image and the largest of K magnitudes afterwards.
float32 arithmetic, no reduction. Bytes per voxel: the image once (1.1 times with the planes around a piece), the output
once. Bound by memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ._launch import needs_wide, on_device_of, stencil

LANES = 256
PLANES = 16


@triton.jit
def _value(x, at):
    return tl.load(x + at).to(tl.float32)


@triton.jit
def _plane(
    x, above, here, below, left, middle, right, stride_k, weight0, weight1, weight2,
    K: tl.constexpr, SOBEL: tl.constexpr,
):  # fmt: skip
    """Of one plane, with the channels summed: the image smoothed, its derivative along H and the one along W."""
    smooth = tl.zeros(here.shape, tl.float32)
    along_h = tl.zeros(here.shape, tl.float32)
    along_w = tl.zeros(here.shape, tl.float32)
    for k in tl.range(0, K):
        image = x + tl.cast(k, tl.int64) * stride_k
        weight = tl.where(k == 0, weight0, tl.where(k == 1, weight1, weight2))
        a1, h0, h1 = _value(image, above + middle), _value(image, here + left), _value(image, here + middle)
        h2, b1 = _value(image, here + right), _value(image, below + middle)
        if SOBEL:
            a0, a2 = _value(image, above + left), _value(image, above + right)
            b0, b2 = _value(image, below + left), _value(image, below + right)
            row_a, row_b = a0 + 2.0 * a1 + a2, b0 + 2.0 * b1 + b2
            smooth += weight * (row_a + 2.0 * (h0 + 2.0 * h1 + h2) + row_b)
            along_h += weight * (row_b - row_a)
            along_w += weight * ((a2 - a0) + 2.0 * (h2 - h0) + (b2 - b0))
        else:
            smooth += weight * h1
            along_h += weight * (b1 - a1)
            along_w += weight * (h2 - h0)
    return smooth, along_h, along_w


@triton.jit
def _forward(
    x,  # images [N, channels, D, H, W]; D = 1 in 2D
    out,  # magnitudes [N, GROUPS, D, H, W] contiguous, written
    depth,  # D in voxels
    height,  # H in voxels
    width,  # W in voxels
    stride_n,  # of x, in elements: of an image
    stride_g,  # of a group
    stride_k,  # of a channel that is summed
    stride_d,  # along D
    stride_h,  # along H
    stride_w,  # along W
    scale_d,  # of differences along D: 1 / spacing in mm or voxels, times the operator's unit
    scale_h,  # along H
    scale_w,  # along W
    weight0,  # of the first channel
    weight1,  # of the second channel
    weight2,  # of all others
    GROUPS: tl.constexpr,  # maps of an image that are each measured: 1, or of "max" all channels
    K: tl.constexpr,  # channels of a group, which are summed
    SOBEL: tl.constexpr,  # else central differences
    VOLUME: tl.constexpr,  # D > 1
    WIDE: tl.constexpr,  # offsets in a plane take int64
    PLANES: tl.constexpr,  # of a program
    LANES: tl.constexpr,  # voxels of a plane that a program has
):
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    h, w, above, here, below, left, middle, right = stencil(lane, height, width, stride_h, stride_w, WIDE)
    group = tl.program_id(2)
    x += (group // GROUPS).to(tl.int64) * stride_n + (group % GROUPS).to(tl.int64) * stride_g
    out += group.to(tl.int64) * depth * height * width + lane
    if not SOBEL:
        scale_h = scale_h * tl.where((h == 0) | (h == height - 1), 2.0, 1.0)
        scale_w = scale_w * tl.where((w == 0) | (w == width - 1), 2.0, 1.0)
    if not VOLUME:
        _, gh, gw = _plane(x, above, here, below, left, middle, right, stride_k, weight0, weight1, weight2, K, SOBEL)
        gh, gw = gh * scale_h, gw * scale_w
        tl.store(out, tl.sqrt_rn(gh * gh + gw * gw).to(out.dtype.element_ty), mask=lane < height * width)
    else:
        first = tl.program_id(1) * PLANES
        at = x + tl.maximum(first - 1, 0).to(tl.int64) * stride_d
        s0, h0, w0 = _plane(at, above, here, below, left, middle, right, stride_k, weight0, weight1, weight2, K, SOBEL)
        at = x + first.to(tl.int64) * stride_d
        s1, h1, w1 = _plane(at, above, here, below, left, middle, right, stride_k, weight0, weight1, weight2, K, SOBEL)
        for d in tl.range(first, tl.minimum(first + PLANES, depth)):
            at = x + tl.minimum(d + 1, depth - 1).to(tl.int64) * stride_d
            s2, h2, w2 = _plane(
                at, above, here, below, left, middle, right, stride_k, weight0, weight1, weight2, K, SOBEL
            )
            gd = (s2 - s0) * scale_d
            if SOBEL:
                gh, gw = (h0 + 2.0 * h1 + h2) * scale_h, (w0 + 2.0 * w1 + w2) * scale_w
            else:
                gd *= tl.where((d == 0) | (d == depth - 1), 2.0, 1.0)
                gh, gw = h1 * scale_h, w1 * scale_w
            magnitude = tl.sqrt_rn(gd * gd + gh * gh + gw * gw).to(out.dtype.element_ty)
            tl.store(out + tl.cast(d, tl.int64) * height * width, magnitude, mask=lane < height * width)
            s0, h0, w0, s1, h1, w1 = s1, h1, w1, s2, h2, w2


def forward(image: Tensor, sobel: bool, scale: Sequence[float], weights: Sequence[float] | None, out: Tensor) -> None:
    """Writes to contiguous `out` [N, 1, *S]. scale: 1 / spacing; weights of the channels, None: the largest of them."""
    volume = image if image.dim() == 5 else image.unsqueeze(2)
    images, channels, depth, height, width = volume.shape
    groups, summed = (channels, 1) if weights is None else (1, channels)
    stride_n, stride_k, stride_d, stride_h, stride_w = volume.stride()
    unit = (1 / 32 if depth > 1 else 1 / 8) if sobel else 1 / 2
    scales = [unit * s for s in (1.0, *scale)[-3:]]
    w = tuple(weights or (1.0,))
    three = (*w, 0.0, 0.0)[:3]  # of more than three channels all weights are equal
    each = out if groups == 1 else out.new_empty(images, channels, *out.shape[2:])
    wide = needs_wide(height, width, stride_h, stride_w)
    grid = (triton.cdiv(height * width, LANES), triton.cdiv(depth, PLANES), images * groups)
    with on_device_of(image):
        _forward[grid](
            volume, each, depth, height, width, stride_n, stride_k, stride_k, stride_d, stride_h, stride_w,
            *scales, *three, groups, summed, sobel, depth > 1, wide, PLANES, LANES,
        )  # fmt: skip
    if groups > 1:
        out.copy_(each.amax(1, keepdim=True))
