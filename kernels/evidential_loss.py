"""Evidential (Dirichlet) segmentation loss and the uncertainty u, forward and backward from the logits z [N, C, V].

alpha = e(z) + 1, A = sum alpha, p = alpha / A, u = C / A, h(x) = (x-1) psi(x) - lnGamma(x) - x, B = A - alpha_y + 1;
data: psi(A) - psi(alpha_y), or ln A - ln alpha_y, or sum (y-p)^2 + sum p (1-p) / (A+1);
KL: sum_{c != y} h(alpha_c) - h(B) + (C-1) psi(B) - lnGamma(C) - 1; Dice from sum p_c, sum p_c y_c, sum y_c;
dKL/dalpha_c = h'(alpha_c) - h'(B) + (C-1) psi'(B) for c != y, else 0; du/dalpha_c = -C / A^2.
Regions: each channel on its own with alpha = (e(-z) + 1, e(z) + 1), two classes.
Grid (blocks of voxels, maps: images or regions of images). Sums: float32 over a block, float64 beyond, fixed order.
Bytes per voxel: forward reads C logits and a label; backward reads the same and writes C gradients (what is read twice
comes from the cache). Bound by arithmetic: C + 2 digamma and entropic forward, C + 2 trigamma backward.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ops._sums import kernel_layout
from ._launch import on_device_of, place, unrolled, writable
from ._math import digamma_entropic, evidence, logarithm, trigamma_entropic

LANES = 512  # voxels of a program of four warps; twice as many need too many registers

DIGAMMA, LOG, MSE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # the order of KINDS


@triton.jit
def _map(z, stride_n, stride_c, REGIONS: tl.constexpr):
    """Where the logits of this program's map begin, and the number of the map; axis 1 of the grid."""
    number = tl.program_id(1)
    if REGIONS > 0:
        z += (number // REGIONS).to(tl.int64) * stride_n + (number % REGIONS).to(tl.int64) * stride_c
    else:
        z += number.to(tl.int64) * stride_n
    return z, number.to(tl.int64)


@triton.jit
def _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr):
    """alpha_c and d alpha_c / d z of a map's voxels."""
    if REGIONS > 0:  # absence, presence
        sign = tl.where(c == 0, -1.0, 1.0)
        logit = tl.load(z + v * stride_v, mask=inside, other=0.0).to(tl.float32) * sign
        e, slope = evidence(logit, EVIDENCE)
        return 1.0 + e, slope * sign
    else:
        at = z + tl.cast(c, tl.int64) * stride_c + v * stride_v
        e, slope = evidence(tl.load(at, mask=inside, other=0.0).to(tl.float32), EVIDENCE)
        return 1.0 + e, slope


@triton.jit
def _labels(target, at, inside, ignore, C: tl.constexpr):
    """The class of each voxel, int32, -1 where it counts nowhere; and which are neither a class nor ignored."""
    y = tl.load(target + at, mask=inside, other=0).to(tl.int64)
    known = (y >= 0) & (y < C)
    if ignore is None:
        counts = inside & known
        bad = inside & (known == 0)
    else:
        counts = inside & known & (y != ignore)
        bad = inside & (known == 0) & (y != ignore)
    return tl.where(counts, y, -1).to(tl.int32), bad


@triton.jit
def _far(squared, at, label, inside, far_above):
    counts = label >= 0
    return counts & (tl.load(squared + at, mask=inside, other=0).to(tl.int32) > far_above)


@triton.jit
def _forward(
    z, target, weights, squared, u, data_of, kl_of, partials, voxels, stride_n, stride_c, stride_v, ignore, far_above,
    constant,
    C: tl.constexpr, KIND: tl.constexpr, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr, WIDTH: tl.constexpr,
    LANES: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    z, number = _map(z, stride_n, stride_c, REGIONS)
    v, inside = place(voxels, LANES)
    at = number * voxels + v
    label, bad = _labels(target, at, inside, ignore, C)
    counts = label >= 0
    partials += (number * tl.num_programs(0) + tl.program_id(0)) * WIDTH
    total = tl.zeros(v.shape, tl.float32)
    other = tl.zeros(v.shape, tl.float32)
    own = tl.zeros(v.shape, tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        a = _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)[0]
        mine = label == c
        total += a
        other += tl.where(mine, 1.0, a)
        own = tl.where(mine, a, own)
    inverse = 1.0 / total
    kl = tl.zeros(v.shape, tl.float32)
    data = tl.zeros(v.shape, tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        a = _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)[0]
        mine = label == c
        psi, h = digamma_entropic(a)
        kl += tl.where(mine, 0.0, h)
        p = a * inverse
        if KIND == DIGAMMA:
            data -= tl.where(mine, psi, 0.0)
        if KIND == MSE:
            data += p * p
        tl.store(partials + 2 + c, tl.sum(tl.where(counts, p, 0.0)))
        tl.store(partials + 2 + C + c, tl.sum(tl.where(mine, p, 0.0)))
        tl.store(partials + 2 + 2 * C + c, tl.sum(tl.where(mine, 1.0, 0.0)))
    psi, h = digamma_entropic(other)
    kl += (C - 1) * psi - h - constant
    if KIND == DIGAMMA:
        data += digamma_entropic(total)[0]
    elif KIND == LOG:
        data = logarithm(total) - logarithm(tl.where(counts, own, 1.0)) + (own + total) * 0.0  # a NaN stays one
    else:
        data = 1.0 - 2.0 * own * inverse + data + (1.0 - data) / (total + 1.0)
    if weights is not None:
        weight = tl.load(weights + label, mask=counts, other=0.0).to(tl.float32)
        data, kl = data * weight, kl * weight
    data = tl.where(bad, float("nan"), tl.where(counts, data, 0.0))
    kl = tl.where(counts, kl, 0.0)
    tl.store(partials, tl.sum(data))
    tl.store(partials + 1, tl.sum(kl))
    if data_of is not None:
        tl.store(data_of + at, data, mask=inside)
        tl.store(kl_of + at, kl, mask=inside)
    uncertainty = tl.div_rn(tl.full(v.shape, C, tl.float32), total)  # at most 1
    if u is not None:
        tl.store(u + at, uncertainty.to(u.dtype.element_ty), mask=inside)
    if squared is not None:
        far = _far(squared, at, label, inside, far_above)
        tl.store(partials + 2 + 3 * C, tl.sum(tl.where(far, uncertainty, 0.0)))
        tl.store(partials + 3 + 3 * C, tl.sum(tl.where(far, 1.0, 0.0)))


@triton.jit
def _slope_of_p(p, total, mine, g_p, g_py, g_data, KIND: tl.constexpr):
    """dL/dp_c."""
    g = g_p + tl.where(mine, g_py, 0.0)
    if KIND == MSE:
        g += g_data * (2.0 * p * (1.0 - 1.0 / (total + 1.0)) - tl.where(mine, 2.0, 0.0))
    return g


@triton.jit
def _backward(
    z, target, weights, squared, slope_u, scale_u, slope_data, slope_kl, coefficients, gradient,
    voxels, stride_n, stride_c, stride_v, out_n, out_c, out_v, ignore, far_above,
    C: tl.constexpr, KIND: tl.constexpr, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr, WIDTH: tl.constexpr,
    LANES: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    z, number = _map(z, stride_n, stride_c, REGIONS)
    gradient = _map(gradient, out_n, out_c, REGIONS)[0]
    v, inside = place(voxels, LANES)
    at = number * voxels + v
    label = _labels(target, at, inside, ignore, C)[0]
    counts = label >= 0
    if REGIONS > 0:
        coefficients += (number % REGIONS) * WIDTH
    g_data = tl.zeros(v.shape, tl.float32) + tl.load(coefficients).to(tl.float32)
    g_kl = tl.zeros(v.shape, tl.float32) + tl.load(coefficients + 1).to(tl.float32)
    if slope_data is not None:
        g_data += tl.load(slope_data + at, mask=inside, other=0.0).to(tl.float32)
        g_kl += tl.load(slope_kl + at, mask=inside, other=0.0).to(tl.float32)
    if weights is not None:
        weight = tl.load(weights + label, mask=counts, other=0.0).to(tl.float32)
        g_data, g_kl = g_data * weight, g_kl * weight
    g_u = tl.zeros(v.shape, tl.float32)
    if slope_u is not None:
        g_u += tl.load(slope_u + at, mask=inside, other=0.0).to(tl.float32)
    if scale_u is not None:
        g_u *= tl.load(scale_u).to(tl.float32)
    if squared is not None:
        far = _far(squared, at, label, inside, far_above)
        g_u += tl.where(far, tl.load(coefficients + 2 + 3 * C).to(tl.float32), 0.0)
    total = tl.zeros(v.shape, tl.float32)
    other = tl.zeros(v.shape, tl.float32)
    own = tl.zeros(v.shape, tl.float32)
    mean_g = tl.zeros(v.shape, tl.float32)  # sum_c alpha_c dL/dp_c, less what MSE adds
    moment = tl.zeros(v.shape, tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        a = _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)[0]
        mine = label == c
        g_p = tl.load(coefficients + 2 + c).to(tl.float32)
        g_py = tl.load(coefficients + 2 + C + c).to(tl.float32)
        total += a
        other += tl.where(mine, 1.0, a)
        mean_g += a * (g_p + tl.where(mine, g_py, 0.0))
        if KIND == MSE:
            own = tl.where(mine, a, own)
            moment += a * a
    # through p = alpha / A: dL/dalpha_c = (g_c - sum_k g_k p_k) / A
    inverse = 1.0 / total
    mean_g *= inverse
    through_u = -C * g_u * inverse * inverse
    if KIND == DIGAMMA:
        common = g_data * trigamma_entropic(total)[0]
    elif KIND == LOG:
        common = g_data * inverse
    else:
        moment *= inverse * inverse
        more = 1.0 / (total + 1.0)
        mean_g += g_data * 2.0 * ((1.0 - more) * moment - own * inverse)
        common = -g_data * (1.0 - moment) * more * more
    common += through_u - mean_g * inverse
    psi1, slope_other = trigamma_entropic(other)
    slope_other = (C - 1) * psi1 - slope_other
    presence = tl.zeros(v.shape, tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        a, slope = _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)
        mine = label == c
        g_p = tl.load(coefficients + 2 + c).to(tl.float32)
        g_py = tl.load(coefficients + 2 + C + c).to(tl.float32)
        psi1, slope_own = trigamma_entropic(a)
        d = common + _slope_of_p(a * inverse, total, mine, g_p, g_py, g_data, KIND) * inverse
        if KIND == DIGAMMA:
            d -= tl.where(mine, g_data * psi1, 0.0)
        if KIND == LOG:
            d -= tl.where(mine, g_data / a, 0.0)
        d += tl.where(mine, 0.0, g_kl * (slope_own + slope_other))
        d = slope * tl.where(counts, d, through_u)
        if REGIONS > 0:
            presence += d
        else:
            to = gradient + tl.cast(c, tl.int64) * out_c + v * out_v
            tl.store(to, d.to(gradient.dtype.element_ty), mask=inside)
    if REGIONS > 0:
        tl.store(gradient + v * out_v, presence.to(gradient.dtype.element_ty), mask=inside)


def _settings(z: Tensor, kind: int, evidence: int, regions: bool, squared: Tensor | None) -> dict[str, int]:
    classes = 2 if regions else z.shape[1]
    layout = kernel_layout(classes)
    return {
        "C": classes, "KIND": kind, "EVIDENCE": evidence, "REGIONS": z.shape[1] if regions else 0,
        "WIDTH": layout.terms.stop if squared is None else layout.far_number + 1, "LANES": LANES,
        "UNROLL": unrolled(classes),
    }  # fmt: skip


def forward(
    logits: Tensor,
    target: Tensor,
    kind: int,
    evidence: int,
    ignore: int | None,
    weights: Tensor | None,
    regions: bool,
    *,
    uncertainty: Tensor | None = None,
    data: Tensor | None = None,
    kl: Tensor | None = None,
    squared: Tensor | None = None,
    far_above: int = 0,
) -> Tensor:
    """Sums float64 [groups, 2 + 3C]: data, KL, p, p y, y; and, where `squared` is given, of u over the voxels where it
    is greater than far_above, and their number. Writes u, data and KL of every voxel where they are given."""
    z, target = logits.flatten(2), target.contiguous()
    settings = _settings(z, kind, evidence, regions, squared)
    images, groups, voxels = len(z), max(settings["REGIONS"], 1), z.shape[2]
    blocks = triton.cdiv(voxels, LANES)
    partials = z.new_empty((images, groups, blocks, settings["WIDTH"]), dtype=torch.float32)
    if partials.numel():
        with on_device_of(z):
            _forward[blocks, images * groups](
                z, target, weights, squared, uncertainty, data, kl, partials, voxels, *z.stride(), ignore, far_above,
                math.lgamma(settings["C"]) + 1.0, **settings,
            )  # fmt: skip
    return partials.sum((0, 2), dtype=torch.float64)


def backward(
    coefficients: Tensor,
    logits: Tensor,
    target: Tensor,
    kind: int,
    evidence: int,
    ignore: int | None,
    weights: Tensor | None,
    regions: bool,
    *,
    uncertainty: Tensor | None = None,
    scale: Tensor | None = None,
    data: Tensor | None = None,
    kl: Tensor | None = None,
    squared: Tensor | None = None,
    far_above: int = 0,
) -> Tensor:
    """The gradient of the logits from the loss's derivatives by the sums and by every voxel's u (times `scale`), data
    and KL."""
    z, target = logits.flatten(2), target.contiguous()
    gradient, flat = writable(logits)
    settings = _settings(z, kind, evidence, regions, squared)
    maps = len(z) * max(settings["REGIONS"], 1)
    uncertainty, data, kl = (t if t is None else t.contiguous() for t in (uncertainty, data, kl))
    if flat.numel():
        with on_device_of(z):
            _backward[triton.cdiv(z.shape[2], LANES), maps](
                z, target, weights, squared, uncertainty, scale, data, kl, coefficients.contiguous(), flat, z.shape[2],
                *z.stride(), *flat.stride(), ignore, far_above, **settings,
            )  # fmt: skip
    return gradient
