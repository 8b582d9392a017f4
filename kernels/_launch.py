"""What every launcher and every kernel over voxels shares."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ops import _triton
from ..ops._calls import empty_gradient

INTERPRETED = tl.constexpr(_triton.INTERPRETED)
GROUP = tl.constexpr(4)  # voxels a thread loads at once, at the most
THREADS = tl.constexpr(128)  # of a program of four warps
BLOCK = 1024  # voxels of a program: with four warps 8 a thread, 16 bytes of half precision


def unrolled(classes: int) -> int:
    """How many classes have their loads in flight together; a loop of fewer is not unrolled at all."""
    return classes if classes <= 8 else 1


def on_device_of(t: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(t.device) if t.is_cuda else nullcontext()


def writable(like: Tensor) -> tuple[Tensor, Tensor]:
    """An uninitialised gradient of logits [N, C, *S] and its view [N, C, V]."""
    gradient = empty_gradient(like)
    return gradient, gradient.flatten(2)


@triton.jit
def own_voxels(voxels, BLOCK: tl.constexpr):
    """The voxels of this program, int64 [BLOCK], and which of them exist; axis 0 of the grid."""
    v = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return v, v < voxels


@triton.jit
def in_groups(mask, inside):
    """True in groups of GROUP voxels with a true one, of which those `inside` the image are loaded; voxels whose masks
    may differ would be loaded one by one, as they are where the number of voxels is no multiple of 16."""
    groups = tl.reshape(mask.to(tl.int32), [mask.shape[0] // GROUP, GROUP])
    some = tl.broadcast_to(tl.max(groups, 1)[:, None], groups.shape)
    return tl.max_constancy(tl.reshape(some, mask.shape) != 0, [GROUP]) & inside


@triton.jit
def of_threads(x):
    """The sum of each of THREADS threads, which have as many neighbours each."""
    return tl.sum(tl.reshape(x, [THREADS, x.shape[0] // THREADS]), 1)


@triton.jit
def _add_two(a, b, c, d):
    return a + c, b + d


@triton.jit
def _add_three(a, b, c, d, e, f):
    return a + d, b + e, c + f


@triton.jit
def two_sums(x, y):
    """Of two blocks at once: their warps wait for each other once."""
    if INTERPRETED:  # which has no other fast reduction than this
        return tl.sum(x), tl.sum(y)
    else:
        return tl.reduce((x, y), 0, _add_two)


@triton.jit
def three_sums(x, y, z):
    """As two_sums."""
    if INTERPRETED:
        return tl.sum(x), tl.sum(y), tl.sum(z)
    else:
        return tl.reduce((x, y, z), 0, _add_three)


@triton.jit
def stencil(lane, height, width, stride_h, stride_w, WIDE: tl.constexpr):
    """h and w of voxels of a plane of at most 2^30, and the offsets of the rows above, here, below and of
    the columns left, here, right; borders replicate, and lanes past the plane stay in it. WIDE: offsets in int64."""
    p = tl.minimum(lane, height * width - 1)
    h, w = p // width, p % width
    index = tl.int64 if WIDE else tl.int32
    above, below = tl.maximum(h - 1, 0).to(index) * stride_h, tl.minimum(h + 1, height - 1).to(index) * stride_h
    left, right = tl.maximum(w - 1, 0).to(index) * stride_w, tl.minimum(w + 1, width - 1).to(index) * stride_w
    return h, w, above, h.to(index) * stride_h, below, left, w.to(index) * stride_w, right


def needs_wide(height: int, width: int, stride_h: int, stride_w: int) -> bool:
    """Whether offsets in a plane, which are in elements, do not fit int32."""
    return (height - 1) * stride_h + (width - 1) * stride_w >= 2**31
