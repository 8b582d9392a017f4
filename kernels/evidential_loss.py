"""Evidential (Dirichlet) segmentation loss and the uncertainty u, forward and backward from the logits z [N, C, V].

alpha = e(z) + 1, A = sum alpha, p = alpha / A, u = C / A, h(x) = (x-1) psi(x) - lnGamma(x) - x, B = A - alpha_y + 1;
data: psi(A) - psi(alpha_y), or ln A - ln alpha_y, or sum (y-p)^2 + sum p (1-p) / (A+1);
KL: sum_{c != y} h(alpha_c) - h(B) + (C-1) psi(B) - lnGamma(C) - 1; Dice from sum p_c, sum p_c y_c, sum y_c;
dKL/dalpha_c = h'(alpha_c) - h'(B) + (C-1) psi'(B) for c != y, else 0; du/dalpha_c = -C / A^2.
Regions: each channel on its own with alpha = (e(-z) + 1, e(z) + 1), two classes.
Grid (blocks of voxels, maps: images or regions of images). Sums: float32 over a block, float64 beyond, fixed order.
Bytes per voxel: forward reads C logits and a label; backward reads the same and writes C gradients (more than 8 logits
are read twice, from the cache). Bound by arithmetic: C + 1 entropic functions and 3 digamma, or their slopes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ops._sums import kernel_layout, sums_layout
from ._evidential import KEPT, add_alpha, alpha_of, alphas_of, far_of, labels_of, map_of
from ._launch import THREADS, of_threads, on_device_of, own_voxels, three_sums, two_sums, writable
from ._math import (
    LN2,
    PSI,
    digamma,
    entropic_and_half_log,
    entropic_slope,
    logarithm,
    multiplied,
    polynomial,
    quotient,
    reciprocal,
    trigamma,
)

FEW = 4  # classes at the most of which four voxels a thread fit
PROGRAM = 2048  # voxels of a program of the forward, whose sums are added up once; of more classes than are kept a tile

DATA, KL = tl.constexpr(sums_layout(1).means.start), tl.constexpr(sums_layout(1).means.start + 1)  # in a row of sums
BY_CLASS = tl.constexpr(sums_layout(1).by_class.start)  # sum p_c, then sum p_c y_c, then sum y_c


@triton.jit
def _totals(
    alphas, z, label, v, inside, stride_c, stride_v,
    C: tl.constexpr, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr,
):  # fmt: skip
    """A, B, and alpha of the voxel's class, 1 where there is none."""
    total, other = tl.zeros(v.shape, tl.float32), tl.zeros(v.shape, tl.float32)
    own = tl.full(v.shape, 1.0, tl.float32)
    if C <= KEPT:
        for c in tl.static_range(C):
            total, other, own = add_alpha(total, other, own, alphas[c], label == c)
    else:
        for c in tl.range(0, C):
            a = alpha_of(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)[0]
            total, other, own = add_alpha(total, other, own, a, label == c)
    return total + total * 0.0, other + other * 0.0, own  # a sum beyond what float32 holds is no number


@triton.jit
def _of_class(entropic, exponent, mantissa, squares, a, inverse, mine, counts, KIND: tl.constexpr):
    """Adds a class to the voxels' terms; and what it adds to the sums by class."""
    x = tl.where(mine, 1.0, a)
    p = a * inverse
    if KIND == "mse":
        squares += p * p
    exponent, mantissa = multiplied(exponent, mantissa, x)
    of_sums = tl.where(counts, p, 0.0), tl.where(mine, p, 0.0), tl.where(mine, 1.0, 0.0)
    return entropic + entropic_and_half_log(x), exponent, mantissa, squares, of_sums


@triton.jit
def _by_class(
    alphas, sums, z, label, inverse, partials, v, inside, stride_c, stride_v,
    C: tl.constexpr, KIND: tl.constexpr, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr,
):  # fmt: skip
    """sum h(alpha_c) over the other classes, less 1, and sum p_c^2 of each voxel. Of the sums by class those of the
    kept ones come back, added to `sums`; of more classes they are stored."""
    counts = label >= 0
    entropic, squares = tl.zeros(v.shape, tl.float32), tl.zeros(v.shape, tl.float32)
    exponent, mantissa = tl.zeros(v.shape, tl.int32), tl.full(v.shape, 1.0, tl.float32)
    added = sums[:0]
    if C <= KEPT:
        for c in tl.static_range(C):
            entropic, exponent, mantissa, squares, of_sums = _of_class(
                entropic, exponent, mantissa, squares, alphas[c], inverse, label == c, counts, KIND
            )
            for k in tl.static_range(3):
                added = added + (sums[3 * c + k] + of_threads(of_sums[k]),)
    else:
        for c in tl.range(0, C):
            a = alpha_of(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)[0]
            entropic, exponent, mantissa, squares, of_sums = _of_class(
                entropic, exponent, mantissa, squares, a, inverse, label == c, counts, KIND
            )
            _store_class(partials, c, of_sums, C)
    half_log = 0.5 * (exponent.to(tl.float32) * LN2 + logarithm(mantissa))
    return entropic - half_log, squares, added


@triton.jit
def _store_class(partials, c, sums, C: tl.constexpr):
    of_p, of_hit, of_y = three_sums(sums[0], sums[1], sums[2])
    tl.store(partials + BY_CLASS + c, of_p)
    tl.store(partials + BY_CLASS + C + c, of_hit)
    tl.store(partials + BY_CLASS + 2 * C + c, of_y)


@triton.jit
def _store_pair(to, x, y):
    first, second = two_sums(x, y)
    tl.store(to, first)
    tl.store(to + 1, second)


@triton.jit
def _terms(total, other, own, inverse, entropic, squares, log_gamma, C: tl.constexpr, KIND: tl.constexpr):
    """Data and KL term of each voxel."""
    if KIND == "digamma":
        data = digamma(total) - digamma(own)
    elif KIND == "log":
        data = logarithm(total) - logarithm(own) + own * 0.0 + total * 0.0  # a NaN stays one
    else:
        tl.static_assert(KIND == "mse")
        data = 1.0 - 2.0 * (own * inverse) + squares + (1.0 - squares) * reciprocal(total + 1.0)
    i = reciprocal(other)
    of_log = (C - 0.5) * logarithm(other)
    kl = entropic - entropic_and_half_log(other) + (of_log + (C - 1) * (polynomial(PSI, i) * i)) - log_gamma
    return data, kl


@triton.jit
def _counted(data, kl, weights, label, bad):
    """The terms with the weights of the voxels' classes, 0 where a voxel does not count."""
    counts = label >= 0
    if weights is not None:
        weight = tl.load(weights + label, mask=counts, other=0.0).to(tl.float32)
        data, kl = data * weight, kl * weight
    return tl.where(bad, float("nan"), tl.where(counts, data, 0.0)), tl.where(counts, kl, 0.0)


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
    log_gamma,  # ln Gamma(C)
    C: tl.constexpr,  # classes, of regions 2
    KIND: tl.constexpr,  # name of the data term
    EVIDENCE: tl.constexpr,  # name of e(z)
    REGIONS: tl.constexpr,  # R, or 0: the channels are classes
    FAR: tl.constexpr,  # where in a row the sum of u over the far voxels is, and behind it their number
    WIDTH: tl.constexpr,  # of a row of sums
    LANES: tl.constexpr,  # voxels of a tile
    TILES: tl.constexpr,  # of a program
):
    tl.static_assert(TILES == 1 or C <= KEPT)
    z, number = map_of(z, stride_n, stride_c, REGIONS)
    partials += (number * tl.num_programs(0) + tl.program_id(0)) * WIDTH
    none = tl.zeros((THREADS,), tl.float32)
    sum_data, sum_kl, sum_u, sum_far = none, none, none, none
    sums = (none,) * (3 * C if C <= KEPT else 0)
    for tile in tl.range(0, TILES):
        v = (tl.program_id(0).to(tl.int64) * TILES + tile) * LANES + tl.arange(0, LANES)
        inside = v < voxels
        at = number * voxels + v
        label, bad = labels_of(target, at, inside, ignore, C)
        alphas = alphas_of(z, v, inside, stride_c, stride_v, C, EVIDENCE, REGIONS)[0]
        total, other, own = _totals(alphas, z, label, v, inside, stride_c, stride_v, C, EVIDENCE, REGIONS)
        inverse = reciprocal(total)
        entropic, squares, sums = _by_class(
            alphas, sums, z, label, inverse, partials, v, inside, stride_c, stride_v, C, KIND, EVIDENCE, REGIONS
        )
        data, kl = _terms(total, other, own, inverse, entropic, squares, log_gamma, C, KIND)
        data, kl = _counted(data, kl, weights, label, bad)
        sum_data, sum_kl = sum_data + of_threads(data), sum_kl + of_threads(kl)
        if data_of is not None:
            tl.store(data_of + at, data, mask=inside)
            tl.store(kl_of + at, kl, mask=inside)
        uncertainty = quotient(C, total)
        if u is not None:
            tl.store(u + at, uncertainty.to(u.dtype.element_ty), mask=inside)
        if squared is not None:
            far = far_of(squared, at, label, inside, far_above)
            sum_u += of_threads(tl.where(far, uncertainty, 0.0))
            sum_far += of_threads(tl.where(far, 1.0, 0.0))
    _store_pair(partials + DATA, sum_data, sum_kl)
    if squared is not None:
        _store_pair(partials + FAR, sum_u, sum_far)
    if C <= KEPT:
        for c in tl.static_range(C):
            _store_class(partials, c, (sums[3 * c], sums[3 * c + 1], sums[3 * c + 2]), C)


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
        far = far_of(squared, at, label, inside, far_above)
        g_u += tl.where(far, tl.load(coefficients + FAR).to(tl.float32), 0.0)
    return g_u


@triton.jit
def _slopes_of_sums(coefficients, c, C: tl.constexpr):
    """The loss's derivatives by sum p_c and sum p_c y_c."""
    g_p = tl.load(coefficients + BY_CLASS + c).to(tl.float32)
    g_py = tl.load(coefficients + BY_CLASS + C + c).to(tl.float32)
    return g_p, g_py


@triton.jit
def _add_moments(total, other, own, weighted, moment, coefficients, c, a, mine, C: tl.constexpr, KIND: tl.constexpr):
    total, other, own = add_alpha(total, other, own, a, mine)
    g_p, g_py = _slopes_of_sums(coefficients, c, C)
    weighted += a * tl.where(mine, g_p + g_py, g_p)
    if KIND == "mse":
        moment += a * a
    return total, other, own, weighted, moment


@triton.jit
def _moments(
    alphas, z, label, coefficients, v, inside, stride_c, stride_v,
    C: tl.constexpr, KIND: tl.constexpr, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr,
):  # fmt: skip
    """A, B, alpha of the voxel's class, sum_c alpha_c dL/dp_c by the sums by class; and, of "mse" alone,
    sum_c alpha_c^2."""
    zero = tl.zeros(v.shape, tl.float32)
    total, other, own, weighted, moment = zero, zero, zero + 1.0, zero, zero
    if C <= KEPT:
        for c in tl.static_range(C):
            total, other, own, weighted, moment = _add_moments(
                total, other, own, weighted, moment, coefficients, c, alphas[c], label == c, C, KIND
            )
    else:
        for c in tl.range(0, C):
            a = alpha_of(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)[0]
            total, other, own, weighted, moment = _add_moments(
                total, other, own, weighted, moment, coefficients, c, a, label == c, C, KIND
            )
    return total, other, own, weighted, moment


@triton.jit
def _slopes_of_classes(
    total, other, own, inverse, weighted, moment, through_u, g_data, g_kl, counts, C: tl.constexpr, KIND: tl.constexpr
):
    """dL/dalpha_c of the voxel's class and of every other one, less g_c / A + alpha_c squares, and less the KL term's
    own slope; and squares. Through p = alpha / A it is (g_c - sum_k g_k p_k) / A, g = dL/dp by the sums by class."""
    mean_g = weighted * inverse
    squares = tl.zeros(total.shape, tl.float32)
    if KIND == "digamma":
        common = g_data * trigamma(total)
        of_own = -g_data * trigamma(own)
    elif KIND == "log":
        common = g_data * inverse
        of_own = -g_data * reciprocal(own)
    else:
        tl.static_assert(KIND == "mse")
        moment *= inverse * inverse
        more = reciprocal(total + 1.0)
        mean_g += g_data * 2.0 * ((1.0 - more) * moment - own * inverse)
        common = -g_data * (1.0 - moment) * more * more
        of_own = g_data * -2.0 * inverse
        squares = tl.where(counts, 2.0 * g_data * (1.0 - more) * (inverse * inverse), 0.0)
    common += through_u - mean_g * inverse
    of_others = common + g_kl * ((C - 1) * trigamma(other) - entropic_slope(other))
    return common + of_own, tl.where(counts, of_others, through_u), squares


@triton.jit
def _slope_of_class(
    coefficients, c, a, mine, of_own, of_others, inverse, g_kl, squares, C: tl.constexpr, KIND: tl.constexpr
):
    """dL/dalpha_c; of a voxel that does not count inverse, g_kl and squares are 0."""
    g_p, g_py = _slopes_of_sums(coefficients, c, C)
    slope = tl.where(mine, of_own + (g_p + g_py) * inverse, of_others + g_p * inverse + g_kl * entropic_slope(a))
    if KIND == "mse":
        slope += a * squares
    return slope


@triton.jit
def _store_gradients(
    gradient, alphas, slopes, z, coefficients, label, of_own, of_others, inverse, g_kl, squares, v, inside,
    stride_c, stride_v, out_c, out_v,
    C: tl.constexpr, KIND: tl.constexpr, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr,
):  # fmt: skip
    presence = tl.zeros(v.shape, tl.float32)
    if C <= KEPT:
        for c in tl.static_range(C):
            of_alpha = _slope_of_class(
                coefficients, c, alphas[c], label == c, of_own, of_others, inverse, g_kl, squares, C, KIND
            )
            if REGIONS > 0:
                presence += slopes[c] * of_alpha
            else:
                to = gradient + tl.cast(c, tl.int64) * out_c + v * out_v
                tl.store(to, (slopes[c] * of_alpha).to(gradient.dtype.element_ty), mask=inside)
    else:
        for c in tl.range(0, C):
            a, slope = alpha_of(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)
            of_alpha = _slope_of_class(
                coefficients, c, a, label == c, of_own, of_others, inverse, g_kl, squares, C, KIND
            )
            to = gradient + tl.cast(c, tl.int64) * out_c + v * out_v
            tl.store(to, (slope * of_alpha).to(gradient.dtype.element_ty), mask=inside)
    if REGIONS > 0:
        tl.store(gradient + v * out_v, presence.to(gradient.dtype.element_ty), mask=inside)


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
):
    z, number = map_of(z, stride_n, stride_c, REGIONS)
    gradient = map_of(gradient, out_n, out_c, REGIONS)[0]
    v, inside = own_voxels(voxels, LANES)
    at = number * voxels + v
    label = labels_of(target, at, inside, ignore, C)[0]
    counts = label >= 0
    if REGIONS > 0:
        coefficients += (number % REGIONS) * WIDTH
    g_data, g_kl = _slopes_of_terms(coefficients, slope_data, slope_kl, weights, label, at, inside)
    if scale_u is not None:
        scale_u += (number // tl.maximum(REGIONS, 1)) * scale_n
    g_u = _slope_of_u(coefficients, slope_u, scale_u, squared, label, at, inside, far_above, FAR)
    alphas, slopes = alphas_of(z, v, inside, stride_c, stride_v, C, EVIDENCE, REGIONS)
    total, other, own, weighted, moment = _moments(
        alphas, z, label, coefficients, v, inside, stride_c, stride_v, C, KIND, EVIDENCE, REGIONS
    )
    inverse = reciprocal(total) + total * 0.0  # of a sum beyond what float32 holds NaN
    of_own, of_others, squares = _slopes_of_classes(
        total, other, own, inverse, weighted, moment, -C * g_u * inverse * inverse, g_data, g_kl, counts, C, KIND
    )
    inverse, g_kl = tl.where(counts, inverse, 0.0), tl.where(counts, g_kl, 0.0)
    _store_gradients(
        gradient, alphas, slopes, z, coefficients, label, of_own, of_others, inverse, g_kl, squares, v, inside,
        stride_c, stride_v, out_c, out_v, C, KIND, EVIDENCE, REGIONS,
    )  # fmt: skip


def _lanes(classes: int) -> int:
    """Voxels of a tile, of four warps."""
    return 256 if FEW < classes <= KEPT.value else 512


def _settings(z: Tensor, kind: str, evidence: str, regions: bool, squared: Tensor | None) -> dict[str, Any]:
    """The constants that both kernels are compiled for."""
    classes = 2 if regions else z.shape[1]
    layout = kernel_layout(classes)
    return {
        "C": classes, "KIND": kind, "EVIDENCE": evidence, "REGIONS": z.shape[1] if regions else 0,
        "FAR": layout.clean_far, "WIDTH": layout.terms.stop if squared is None else layout.far_number + 1,
        "LANES": _lanes(classes),
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
    classes, lanes = settings["C"], settings["LANES"]
    tiles = PROGRAM // lanes if classes <= KEPT.value else 1
    blocks = triton.cdiv(voxels, lanes * tiles)
    partials = z.new_empty((images, groups, blocks, settings["WIDTH"]), dtype=torch.float32)
    if partials.numel():
        with on_device_of(z):
            _forward[blocks, images * groups](
                z, target, weights, squared, uncertainty, data, kl, partials, voxels, *z.stride(), ignore, far_above,
                math.lgamma(classes), **settings, TILES=tiles,
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
            _backward[triton.cdiv(z.shape[2], settings["LANES"]), maps](
                z, target, weights, squared, uncertainty, scale, data, kl, coefficients.contiguous(), flat, z.shape[2],
                *z.stride(), *flat.stride(), 0 if scale is None else scale.stride(0), ignore, far_above, **settings,
            )  # fmt: skip
    return gradient
