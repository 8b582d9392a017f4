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
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ops._sums import kernel_layout, sums_layout
from ._launch import on_device_of, own_voxels, three_sums, two_sums, unrolled, writable
from ._math import digamma_entropic, evidence, logarithm, quotient, reciprocal, trigamma_entropic

LANES = 512  # voxels of a program of four warps; twice as many need too many registers

DATA, KL = tl.constexpr(sums_layout(1).means.start), tl.constexpr(sums_layout(1).means.start + 1)  # in a row of sums
BY_CLASS = tl.constexpr(sums_layout(1).by_class.start)  # sum p_c, then sum p_c y_c, then sum y_c


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
def _totals(
    z, label, v, inside, stride_c, stride_v,
    C: tl.constexpr, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """A, B, and alpha of the voxel's class."""
    total = tl.zeros(v.shape, tl.float32)
    other = tl.zeros(v.shape, tl.float32)
    own = tl.zeros(v.shape, tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        a = _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)[0]
        mine = label == c
        total += a
        other += tl.where(mine, 1.0, a)
        own = tl.where(mine, a, own)
    return total + total * 0.0, other + other * 0.0, own  # a sum beyond what float32 holds is no number


@triton.jit
def _by_class(
    z, label, inverse, partials, v, inside, stride_c, stride_v,
    C: tl.constexpr, KIND: tl.constexpr, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Stores the block's sums by class; returns what the classes add to a voxel's data and KL terms."""
    counts = label >= 0
    kl = tl.zeros(v.shape, tl.float32)
    data = tl.zeros(v.shape, tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        a = _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)[0]
        mine = label == c
        psi, h = digamma_entropic(a)
        kl += tl.where(mine, 0.0, h)
        p = a * inverse
        if KIND == "digamma":
            data -= tl.where(mine, psi, 0.0)
        if KIND == "mse":
            data += p * p
        of_p, of_hit, of_y = three_sums(tl.where(counts, p, 0.0), tl.where(mine, p, 0.0), tl.where(mine, 1.0, 0.0))
        tl.store(partials + BY_CLASS + c, of_p)
        tl.store(partials + BY_CLASS + C + c, of_hit)
        tl.store(partials + BY_CLASS + 2 * C + c, of_y)
    return data, kl


@triton.jit
def _data_term(data, total, own, inverse, counts, KIND: tl.constexpr):
    """The data term from what the classes have added to it."""
    if KIND == "digamma":
        data += digamma_entropic(total)[0]
    elif KIND == "log":
        data = logarithm(total) - logarithm(tl.where(counts, own, 1.0)) + own * 0.0 + total * 0.0  # a NaN stays one
    else:
        tl.static_assert(KIND == "mse")
        data = 1.0 - 2.0 * (own * inverse) + data + (1.0 - data) * reciprocal(total + 1.0)
    return data


@triton.jit
def _forward(
    z,  # logits [N, C, V], or of regions [N, R, V]
    target,  # labels [N, V], of regions [N, R, V] of 0 and 1; contiguous integers
    weights,  # of a voxel's data and KL terms by its class [C], or None
    squared,  # squared distance to the boundary in voxels, bytes [N, V], or None: no voxel is far
    u,  # [maps, V], written in its dtype, or None
    data_of,  # data term of each voxel [maps, V], float32, written, or None
    kl_of,  # KL term of each voxel, as data_of
    partials,  # sums of each block [maps, blocks, WIDTH], float32, written
    voxels,  # V
    stride_n,  # of z, in elements: along N
    stride_c,  # along C
    stride_v,  # along V
    ignore,  # label that counts nowhere, or None
    far_above,  # a voxel that counts is far where squared > far_above
    constant,  # ln Gamma(C) + 1
    C: tl.constexpr,  # classes, of regions 2
    KIND: tl.constexpr,  # name of the data term
    EVIDENCE: tl.constexpr,  # name of e(z)
    REGIONS: tl.constexpr,  # R, or 0: the channels are classes
    FAR: tl.constexpr,  # where in a row the sum of u over the far voxels is, and behind it their number
    WIDTH: tl.constexpr,  # of a row of sums
    LANES: tl.constexpr,  # voxels of a program
    UNROLL: tl.constexpr,  # classes whose loads are in flight together
):
    z, number = _map(z, stride_n, stride_c, REGIONS)
    v, inside = own_voxels(voxels, LANES)
    at = number * voxels + v
    label, bad = _labels(target, at, inside, ignore, C)
    counts = label >= 0
    partials += (number * tl.num_programs(0) + tl.program_id(0)) * WIDTH
    total, other, own = _totals(z, label, v, inside, stride_c, stride_v, C, EVIDENCE, REGIONS, UNROLL)
    inverse = reciprocal(total)
    data, kl = _by_class(z, label, inverse, partials, v, inside, stride_c, stride_v, C, KIND, EVIDENCE, REGIONS, UNROLL)
    psi, h = digamma_entropic(other)
    kl += (C - 1) * psi - h - constant
    data = _data_term(data, total, own, inverse, counts, KIND)
    if weights is not None:
        weight = tl.load(weights + label, mask=counts, other=0.0).to(tl.float32)
        data, kl = data * weight, kl * weight
    data = tl.where(bad, float("nan"), tl.where(counts, data, 0.0))
    kl = tl.where(counts, kl, 0.0)
    of_data, of_kl = two_sums(data, kl)
    tl.store(partials + DATA, of_data)
    tl.store(partials + KL, of_kl)
    if data_of is not None:
        tl.store(data_of + at, data, mask=inside)
        tl.store(kl_of + at, kl, mask=inside)
    uncertainty = quotient(C, total)
    if u is not None:
        tl.store(u + at, uncertainty.to(u.dtype.element_ty), mask=inside)
    if squared is not None:
        far = _far(squared, at, label, inside, far_above)
        of_u, number_far = two_sums(tl.where(far, uncertainty, 0.0), tl.where(far, 1.0, 0.0))
        tl.store(partials + FAR, of_u)
        tl.store(partials + FAR + 1, number_far)


@triton.jit
def _slopes_of_terms(coefficients, slope_data, slope_kl, weights, label, at, inside):
    """The loss's derivatives by a voxel's data and KL terms."""
    g_data = tl.zeros(at.shape, tl.float32) + tl.load(coefficients + DATA).to(tl.float32)
    g_kl = tl.zeros(at.shape, tl.float32) + tl.load(coefficients + KL).to(tl.float32)
    if slope_data is not None:
        g_data += tl.load(slope_data + at, mask=inside, other=0.0).to(tl.float32)
        g_kl += tl.load(slope_kl + at, mask=inside, other=0.0).to(tl.float32)
    if weights is not None:
        weight = tl.load(weights + label, mask=label >= 0, other=0.0).to(tl.float32)
        g_data, g_kl = g_data * weight, g_kl * weight
    return g_data, g_kl


@triton.jit
def _slope_of_u(coefficients, slope_u, scale_u, squared, label, at, inside, far_above, FAR: tl.constexpr):
    """The loss's derivative by a voxel's u."""
    g_u = tl.zeros(at.shape, tl.float32)
    if slope_u is not None:
        g_u += tl.load(slope_u + at, mask=inside, other=0.0).to(tl.float32)
    if scale_u is not None:
        g_u *= tl.load(scale_u).to(tl.float32)
    if squared is not None:
        far = _far(squared, at, label, inside, far_above)
        g_u += tl.where(far, tl.load(coefficients + FAR).to(tl.float32), 0.0)
    return g_u


@triton.jit
def _slopes_of_sums(coefficients, c, C: tl.constexpr):
    """The loss's derivatives by sum p_c and sum p_c y_c."""
    g_p = tl.load(coefficients + BY_CLASS + c).to(tl.float32)
    g_py = tl.load(coefficients + BY_CLASS + C + c).to(tl.float32)
    return g_p, g_py


@triton.jit
def _moments(
    z, label, coefficients, v, inside, stride_c, stride_v,
    C: tl.constexpr, KIND: tl.constexpr, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """A, B, sum_c alpha_c dL/dp_c by the sums by class; and, of "mse" alone, alpha of the voxel's class and
    sum_c alpha_c^2."""
    total = tl.zeros(v.shape, tl.float32)
    other = tl.zeros(v.shape, tl.float32)
    own = tl.zeros(v.shape, tl.float32)
    weighted = tl.zeros(v.shape, tl.float32)
    moment = tl.zeros(v.shape, tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        a = _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)[0]
        mine = label == c
        g_p, g_py = _slopes_of_sums(coefficients, c, C)
        total += a
        other += tl.where(mine, 1.0, a)
        weighted += a * (g_p + tl.where(mine, g_py, 0.0))
        if KIND == "mse":
            own = tl.where(mine, a, own)
            moment += a * a
    return total, other, weighted, own, moment


@triton.jit
def _slope_of_all(total, inverse, weighted, own, moment, through_u, g_data, KIND: tl.constexpr):
    """What dL/dalpha_c has of every class: through A, and through p = alpha / A, of which
    dL/dalpha_c = (g_c - sum_k g_k p_k) / A, g = dL/dp."""
    mean_g = weighted * inverse
    if KIND == "digamma":
        common = g_data * trigamma_entropic(total)[0]
    elif KIND == "log":
        common = g_data * inverse
    else:
        tl.static_assert(KIND == "mse")
        moment *= inverse * inverse
        more = reciprocal(total + 1.0)
        mean_g += g_data * 2.0 * ((1.0 - more) * moment - own * inverse)
        common = -g_data * (1.0 - moment) * more * more
    return common + (through_u - mean_g * inverse)


@triton.jit
def _slope_of_class(a, total, inverse, mine, g_p, g_py, g_data, g_kl, common, slope_other, KIND: tl.constexpr):
    """dL/dalpha_c of a voxel that counts."""
    trigamma, slope_own = trigamma_entropic(a)
    p = a * inverse
    by_p = g_p + tl.where(mine, g_py, 0.0)
    if KIND == "mse":
        by_p += g_data * (2.0 * p * (1.0 - reciprocal(total + 1.0)) - tl.where(mine, 2.0, 0.0))
    derivative = common + by_p * inverse
    if KIND == "digamma":
        derivative -= tl.where(mine, g_data * trigamma, 0.0)
    if KIND == "log":
        derivative -= tl.where(mine, g_data * reciprocal(a), 0.0)
    return derivative + tl.where(mine, 0.0, g_kl * (slope_own + slope_other))


@triton.jit
def _backward(
    z,  # logits [N, C, V], or of regions [N, R, V]
    target,  # labels [N, V], of regions [N, R, V] of 0 and 1; contiguous integers
    weights,  # of a voxel's data and KL terms by its class [C], or None
    squared,  # squared distance to the boundary in voxels, bytes [N, V], or None: no voxel is far
    slope_u,  # d loss / d u [maps, V], or None: 0
    scale_u,  # of each image, which slope_u is multiplied by [N], or None
    slope_data,  # d loss / d data term of each voxel [maps, V], or None: 0
    slope_kl,  # the same of the KL term
    coefficients,  # d loss / d sums [WIDTH], of regions [R, WIDTH], float64
    gradient,  # d loss / d z, shaped as z, written
    voxels,  # V
    stride_n,  # of z, in elements: along N
    stride_c,  # along C
    stride_v,  # along V
    out_n,  # of gradient, in elements: along N
    out_c,  # along C
    out_v,  # along V
    scale_n,  # of scale_u, in elements: along N
    ignore,  # label that counts nowhere, or None
    far_above,  # a voxel that counts is far where squared > far_above
    C: tl.constexpr,  # classes, of regions 2
    KIND: tl.constexpr,  # name of the data term
    EVIDENCE: tl.constexpr,  # name of e(z)
    REGIONS: tl.constexpr,  # R, or 0: the channels are classes
    FAR: tl.constexpr,  # where in a row of sums that of u over the far voxels is
    WIDTH: tl.constexpr,  # of a row of sums
    LANES: tl.constexpr,  # voxels of a program
    UNROLL: tl.constexpr,  # classes whose loads are in flight together
):
    z, number = _map(z, stride_n, stride_c, REGIONS)
    gradient = _map(gradient, out_n, out_c, REGIONS)[0]
    v, inside = own_voxels(voxels, LANES)
    at = number * voxels + v
    label = _labels(target, at, inside, ignore, C)[0]
    counts = label >= 0
    if REGIONS > 0:
        coefficients += (number % REGIONS) * WIDTH
    g_data, g_kl = _slopes_of_terms(coefficients, slope_data, slope_kl, weights, label, at, inside)
    if scale_u is not None:
        scale_u += (number // tl.maximum(REGIONS, 1)) * scale_n
    g_u = _slope_of_u(coefficients, slope_u, scale_u, squared, label, at, inside, far_above, FAR)
    total, other, weighted, own, moment = _moments(
        z, label, coefficients, v, inside, stride_c, stride_v, C, KIND, EVIDENCE, REGIONS, UNROLL
    )
    inverse = reciprocal(total) + total * 0.0  # of a sum beyond what float32 holds NaN
    through_u = -C * g_u * inverse * inverse
    common = _slope_of_all(total, inverse, weighted, own, moment, through_u, g_data, KIND)
    trigamma, slope_other = trigamma_entropic(other)
    slope_other = (C - 1) * trigamma - slope_other
    presence = tl.zeros(v.shape, tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        a, slope = _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)
        mine = label == c
        g_p, g_py = _slopes_of_sums(coefficients, c, C)
        of_alpha = _slope_of_class(a, total, inverse, mine, g_p, g_py, g_data, g_kl, common, slope_other, KIND)
        of_logit = slope * tl.where(counts, of_alpha, through_u)
        if REGIONS > 0:
            presence += of_logit
        else:
            to = gradient + tl.cast(c, tl.int64) * out_c + v * out_v
            tl.store(to, of_logit.to(gradient.dtype.element_ty), mask=inside)
    if REGIONS > 0:
        tl.store(gradient + v * out_v, presence.to(gradient.dtype.element_ty), mask=inside)


def _settings(z: Tensor, kind: str, evidence: str, regions: bool, squared: Tensor | None) -> dict[str, Any]:
    """The constants that both kernels are compiled for."""
    classes = 2 if regions else z.shape[1]
    layout = kernel_layout(classes)
    return {
        "C": classes, "KIND": kind, "EVIDENCE": evidence, "REGIONS": z.shape[1] if regions else 0,
        "FAR": layout.clean_far, "WIDTH": layout.terms.stop if squared is None else layout.far_number + 1,
        "LANES": LANES, "UNROLL": unrolled(classes),
    }  # fmt: skip


def forward(
    logits: Tensor,
    target: Tensor,
    kind: str,
    evidence: str,
    ignore: int | None,
    weights: Tensor | None,
    regions: bool,
    sums: Tensor | None = None,
    *,
    uncertainty: Tensor | None = None,
    data: Tensor | None = None,
    kl: Tensor | None = None,
    squared: Tensor | None = None,
    far_above: int = 0,
) -> Tensor:
    """Sums float64 [groups, 2 + 3C]: data, KL, p, p y, y; and, where `squared` is given, of u over the voxels where it
    is greater than far_above, and their number; into `sums` where it is given. Writes u, data and KL of every voxel
    where they are given."""
    z, target = logits.flatten(2), target.contiguous()
    settings = _settings(z, kind, evidence, regions, squared)
    images, groups, voxels = len(z), z.shape[1] if regions else 1, z.shape[2]
    blocks, classes = triton.cdiv(voxels, LANES), settings["C"]
    partials = z.new_empty((images, groups, blocks, settings["WIDTH"]), dtype=torch.float32)
    if partials.numel():
        with on_device_of(z):
            _forward[blocks, images * groups](
                z, target, weights, squared, uncertainty, data, kl, partials, voxels, *z.stride(), ignore, far_above,
                math.lgamma(classes) + 1.0, **settings,
            )  # fmt: skip
    return torch.sum(partials, (0, 2), dtype=torch.float64, out=sums)


def backward(
    coefficients: Tensor,
    logits: Tensor,
    target: Tensor,
    kind: str,
    evidence: str,
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
    """The gradient of the logits from the loss's derivatives by the sums and by every voxel's u (times the `scale` of
    its image), data and KL."""
    z, target = logits.flatten(2), target.contiguous()
    gradient, flat = writable(logits)
    settings = _settings(z, kind, evidence, regions, squared)
    maps = len(z) * (z.shape[1] if regions else 1)
    uncertainty, data, kl = (t if t is None else t.contiguous() for t in (uncertainty, data, kl))
    if flat.numel():
        with on_device_of(z):
            _backward[triton.cdiv(z.shape[2], LANES), maps](
                z, target, weights, squared, uncertainty, scale, data, kl, coefficients.contiguous(), flat, z.shape[2],
                *z.stride(), *flat.stride(), 0 if scale is None else scale.stride(0), ignore, far_above, **settings,
            )  # fmt: skip
    return gradient
