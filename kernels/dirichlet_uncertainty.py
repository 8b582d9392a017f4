"""Uncertainty of a Dirichlet output from the logits z [N, C, V], any strides.

u = C / A, A = sum (e(z_c) + 1);  du/dz_c = -C / A^2 e'(z_c).
Grid (blocks of 1024 voxels, N); float32 arithmetic; no reduction over voxels.
Bytes per voxel: forward reads C logits and writes u; backward reads C logits (the second time from the cache) and
d loss / du and writes C gradients. Bound by memory in half precision and float32.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._launch import BLOCK, on_device_of, own_voxels, unrolled, writable
from ._math import LN2, alpha, binary_logarithm, evidence_slope, exponential, quotient, reciprocal

FACTORS = tl.constexpr(64)  # of a product between 1 and 2 each


@triton.jit
def logits_of(z, c, v, inside, channel_stride, voxel_stride):
    return tl.load(z + tl.cast(c, tl.int64) * channel_stride + v * voxel_stride, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def total_alpha(
    z, v, inside, channel_stride, voxel_stride, C: tl.constexpr, EVIDENCE: tl.constexpr, UNROLL: tl.constexpr
):
    """A of voxels v of the image at z."""
    total = tl.full(v.shape, C, tl.float32)
    if EVIDENCE == "softplus" and C <= FACTORS:
        # sum ln(1 + e^-|z|) is the logarithm of a product, needed as exactly as C is
        product = tl.full(v.shape, 1.0, tl.float32)
        poison = tl.zeros(v.shape, tl.float32)
        for c in tl.range(0, C, loop_unroll_factor=UNROLL):
            logit = logits_of(z, c, v, inside, channel_stride, voxel_stride)
            positive = tl.where(logit > 0.0, logit, 0.0)
            total += positive
            poison += positive * 0.0
            product += product * exponential(-tl.abs(logit))
        total += binary_logarithm(product) * LN2 + poison
    else:
        total = tl.zeros(v.shape, tl.float32)
        for c in tl.range(0, C, loop_unroll_factor=UNROLL):
            total += alpha(logits_of(z, c, v, inside, channel_stride, voxel_stride), EVIDENCE)[0]
    return total


@triton.jit
def _forward(
    z,  # logits [N, C, V]
    u,  # [N, V] contiguous, written
    voxels,  # V
    stride_n,  # of z, in elements: along N
    stride_c,  # along C
    stride_v,  # along V
    C: tl.constexpr,  # classes
    EVIDENCE: tl.constexpr,  # name of e(z)
    BLOCK: tl.constexpr,  # voxels of a program
    UNROLL: tl.constexpr,  # classes whose loads are in flight together
):
    image = tl.program_id(1).to(tl.int64)
    v, inside = own_voxels(voxels, BLOCK)
    total = total_alpha(z + image * stride_n, v, inside, stride_c, stride_v, C, EVIDENCE, UNROLL)
    value = quotient(C, total)
    tl.store(u + image * voxels + v, value.to(u.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    z,  # logits [N, C, V]
    slope,  # d loss / d u [N, V] contiguous
    gradient,  # d loss / d z [N, C, V], written
    voxels,  # V
    stride_n,  # of z, in elements: along N
    stride_c,  # along C
    stride_v,  # along V
    out_n,  # of gradient, in elements: along N
    out_c,  # along C
    out_v,  # along V
    C: tl.constexpr,  # classes
    EVIDENCE: tl.constexpr,  # name of e(z)
    BLOCK: tl.constexpr,  # voxels of a program
    UNROLL: tl.constexpr,  # classes whose loads are in flight together
):
    image = tl.program_id(1).to(tl.int64)
    v, inside = own_voxels(voxels, BLOCK)
    z += image * stride_n
    total = total_alpha(z, v, inside, stride_c, stride_v, C, EVIDENCE, UNROLL)
    inverse = reciprocal(total)
    g = tl.load(slope + image * voxels + v, mask=inside, other=0.0).to(tl.float32) * -C * (inverse * inverse)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        value = g * evidence_slope(logits_of(z, c, v, inside, stride_c, stride_v), EVIDENCE)
        at = gradient + image * out_n + tl.cast(c, tl.int64) * out_c + v * out_v
        tl.store(at, value.to(gradient.dtype.element_ty), mask=inside)


def forward(logits: Tensor, evidence: str, out: Tensor) -> None:
    """Writes u to contiguous `out` [N, 1, *S]."""
    z = logits.flatten(2)
    images, classes, voxels = z.shape
    if out.numel():
        grid = (triton.cdiv(voxels, BLOCK), images)
        with on_device_of(z):
            _forward[grid](z, out, voxels, *z.stride(), classes, evidence, BLOCK, unrolled(classes))


def backward(slope: Tensor, logits: Tensor, evidence: str) -> Tensor:
    """The gradient of the logits from the loss's derivative by u."""
    z, slope = logits.flatten(2), slope.contiguous()
    gradient, flat = writable(logits)
    images, classes, voxels = z.shape
    if flat.numel():
        grid = (triton.cdiv(voxels, BLOCK), images)
        with on_device_of(z):
            _backward[grid](
                z, slope, flat, voxels, *z.stride(), *flat.stride(), classes, evidence, BLOCK, unrolled(classes)
            )
    return gradient
