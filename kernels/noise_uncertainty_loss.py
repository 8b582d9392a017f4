"""Noise-uncertainty loss from the logits of a clean image and two noisy ones, [N, C, V]: u = C / A of each.

far = mean over d > threshold of u + u1 + u2: du/dz_c = -C / A^2 e'(z_c);
order, at all patch centers of d <= threshold: w = (u2-u1)(m2-m1), (u1-u) m1, (u2-u) m2; of each the mean of -w over
w < 0. distance, per image over pairs of centers: v = (d_i-d_j)(D_i-D_j), D = u^k - u where near, else 0; the mean of
v over v > 0, for k = 1, 2. A value that is NaN counts as a violation, so that it shows.
Grid (blocks of voxels, N) for the far term: float32 over a block, float64 beyond; float64 at the centers.
Bytes per voxel: the distance, and of far voxels C logits of each image; backward writes C gradients of each.
Bound by memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import _cpu
from ..ops.noise_uncertainty_loss import NOISY_FAR_SUMS
from ._centers import NOWHERE, nearest_boundary, voxel_of
from ._launch import BLOCK, THREADS, in_groups, of_threads, on_device_of, own_voxels, unrolled
from ._math import alpha, evidence_slope, reciprocal
from ._terms import pair_means
from .dirichlet_uncertainty import logits_of, total_alpha

BEYOND, IGNORED = tl.constexpr(_cpu.BEYOND), tl.constexpr(_cpu.IGNORED)  # squared distances in a byte
LANES = 128  # centers of a program
TILE, TILES = 512, 4  # voxels that the far sums take at once; how often, before they are added up
WARPS = 8  # of a block of the backward: with three logits at hand, four would spill a register


@triton.jit
def _is_far(distance, squared, at, inside, threshold, most):
    if squared is None:
        return inside & (tl.load(distance + at, mask=inside, other=0.0) > threshold)
    else:
        s = tl.load(squared + at, mask=inside, other=0).to(tl.int32)
        return inside & (s > most) & (s != IGNORED)


@triton.jit
def _far_u(
    z, stride_n, stride_c, stride_v, v, far, some_far, C: tl.constexpr, EVIDENCE: tl.constexpr, UNROLL: tl.constexpr
):
    """u of far voxels, 0 elsewhere; loaded in groups with a far one."""
    z += tl.program_id(1).to(tl.int64) * stride_n
    total = total_alpha(z, v, some_far, stride_c, stride_v, C, EVIDENCE, UNROLL)
    return tl.where(far, C * reciprocal(total), 0.0)


@triton.jit
def _far_sums(
    z,  # clean logits [N, C, V]
    z1,  # first noisy logits [N, C, V]
    z2,  # second noisy logits [N, C, V]
    distance,  # to the boundary [N, V] contiguous float32, in the unit of the threshold; or None:
    squared,  # squared distance in voxels, bytes [N, V] contiguous
    partials,  # of each block the sums of u, u1, u2 and the number of far voxels [N, blocks, 4], float32, written
    voxels,  # V
    stride_n,  # of z, in elements: along N
    stride_c,  # along C
    stride_v,  # along V
    n1,  # of z1, in elements: along N
    c1,  # along C
    v1,  # along V
    n2,  # of z2, in elements: along N
    c2,  # along C
    v2,  # along V
    threshold,  # far is where distance > threshold,
    most,  # or squared > most
    CLEAN: tl.constexpr,  # whether u is summed; else its sum is 0
    C: tl.constexpr,  # classes
    EVIDENCE: tl.constexpr,  # name of e(z)
    LANES: tl.constexpr,  # voxels of a tile
    TILES: tl.constexpr,  # of a program
    UNROLL: tl.constexpr,  # classes whose loads are in flight together
):
    image = tl.program_id(1).to(tl.int64)
    none = tl.zeros((THREADS,), tl.float32)
    clean, first, second, number = none, none, none, none
    for tile in tl.range(0, TILES):
        v = (tl.program_id(0).to(tl.int64) * TILES + tile) * LANES + tl.arange(0, LANES)
        far = _is_far(distance, squared, image * voxels + v, v < voxels, threshold, most)
        some_far = in_groups(far, v < voxels)
        if CLEAN:
            clean += of_threads(_far_u(z, stride_n, stride_c, stride_v, v, far, some_far, C, EVIDENCE, UNROLL))
        first += of_threads(_far_u(z1, n1, c1, v1, v, far, some_far, C, EVIDENCE, UNROLL))
        second += of_threads(_far_u(z2, n2, c2, v2, v, far, some_far, C, EVIDENCE, UNROLL))
        number += of_threads(tl.where(far, 1.0, 0.0))
    partials += (image * tl.num_programs(0) + tl.program_id(0)) * 4
    tl.store(partials, tl.sum(clean) if CLEAN else 0.0)
    tl.store(partials + 1, tl.sum(first))
    tl.store(partials + 2, tl.sum(second))
    tl.store(partials + 3, tl.sum(number))


@triton.jit
def _u_at(
    z, image, voxel, real, stride_n, stride_c, stride_v, C: tl.constexpr, EVIDENCE: tl.constexpr, UNROLL: tl.constexpr
):  # fmt: skip
    """u in float64; NaN of a center outside the image."""
    total = total_alpha(z + image * stride_n, voxel, real, stride_c, stride_v, C, EVIDENCE, UNROLL)
    return tl.where(real, C / total.to(tl.float64), float("nan"))


@triton.jit
def _centers(
    z,  # clean logits [N, C, V]
    z1,  # first noisy logits [N, C, V]
    z2,  # second noisy logits [N, C, V]
    distance,  # to the boundary [N, V] contiguous float32, or None:
    squared,  # squared distance in voxels, bytes [N, V] contiguous
    nearest,  # squared voxels to the boundary of centers where squared is BEYOND [N, P], int64; None with distance
    centers,  # voxels [N, P, DIMS], int64
    valid,  # [N, P], bytes 0 or 1
    values,  # [4, N P] float64, written
    patches,  # P
    count,  # N P
    depth,  # D in voxels; V = D H W
    height,  # H in voxels
    width,  # W in voxels
    stride_n,  # of z, in elements: along N
    stride_c,  # along C
    stride_v,  # along V
    n1,  # of z1, in elements: along N
    c1,  # along C
    v1,  # along V
    n2,  # of z2, in elements: along N
    c2,  # along C
    v2,  # along V
    DIMS: tl.constexpr,  # 2 or 3
    C: tl.constexpr,  # classes
    EVIDENCE: tl.constexpr,  # name of e(z)
    LANES: tl.constexpr,  # centers of a program
    UNROLL: tl.constexpr,  # classes whose loads are in flight together
):
    """values [4, count] float64: u, u1, u2 and d of each center; d is NaN where there is none."""
    i = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    inside = i < count
    voxel = voxel_of(centers, valid, i, count, depth, height, width, DIMS)
    real = voxel >= 0
    image = i // patches
    tl.store(values + i, _u_at(z, image, voxel, real, stride_n, stride_c, stride_v, C, EVIDENCE, UNROLL), mask=inside)
    tl.store(values + count + i, _u_at(z1, image, voxel, real, n1, c1, v1, C, EVIDENCE, UNROLL), mask=inside)
    tl.store(values + 2 * count + i, _u_at(z2, image, voxel, real, n2, c2, v2, C, EVIDENCE, UNROLL), mask=inside)
    at = image * depth * height * width + voxel
    if squared is None:
        d = tl.load(distance + at, mask=real, other=0.0).to(tl.float64)
    else:
        s = tl.load(squared + at, mask=real, other=0).to(tl.int64)
        searched = tl.load(nearest + i, mask=real & (s == BEYOND), other=0)
        s = tl.where(s == BEYOND, searched, s)
        d = tl.where(s == NOWHERE, float("inf"), tl.sqrt(s.to(tl.float64)))
        d = tl.where(s == IGNORED, float("nan"), d)
    tl.store(values + 3 * count + i, tl.where(voxel == -1, float("nan"), d), mask=inside)


@triton.jit
def _wrong(values, i, count, m1, m2, threshold):
    """w of the three sets of the order term, and where they are violated."""
    u = tl.load(values + i, mask=i < count, other=0.0)
    u1 = tl.load(values + count + i, mask=i < count, other=0.0)
    u2 = tl.load(values + 2 * count + i, mask=i < count, other=0.0)
    d = tl.load(values + 3 * count + i, mask=i < count, other=float("nan"))
    near = d <= threshold
    w12, w1, w2 = (u2 - u1) * (m2 - m1), (u1 - u) * m1, (u2 - u) * m2
    return w12, w1, w2, near & ((w12 >= 0.0) == 0), near & ((w1 >= 0.0) == 0), near & ((w2 >= 0.0) == 0)


@triton.jit
def _order(
    values,  # u, u1, u2, d of the centers [4, count], float64
    levels,  # of the noise, its standard deviation or mean [2]
    term,  # [1], float64, written
    slopes,  # [2, count], float64, written
    count,  # N P
    threshold,  # centers of d <= threshold count, in the unit of d
    LANES: tl.constexpr,  # centers at a time
):
    """One program. slopes [2, count]: d term / d u1 and u2."""
    m1, m2 = tl.load(levels).to(tl.float64), tl.load(levels + 1).to(tl.float64)
    lane = tl.arange(0, LANES).to(tl.int64)
    zero = tl.zeros(lane.shape, tl.float64)
    s12, s1, s2, k12, k1, k2 = zero, zero, zero, zero, zero, zero
    for first in tl.range(0, count, LANES):
        w12, w1, w2, b12, b1, b2 = _wrong(values, first + lane, count, m1, m2, threshold)
        s12, k12 = s12 - tl.where(b12, w12, 0.0), k12 + tl.where(b12, 1.0, 0.0)
        s1, k1 = s1 - tl.where(b1, w1, 0.0), k1 + tl.where(b1, 1.0, 0.0)
        s2, k2 = s2 - tl.where(b2, w2, 0.0), k2 + tl.where(b2, 1.0, 0.0)
    each12 = 1.0 / tl.maximum(tl.sum(k12), 1.0)
    each1 = 1.0 / tl.maximum(tl.sum(k1), 1.0)
    each2 = 1.0 / tl.maximum(tl.sum(k2), 1.0)
    tl.store(term, tl.sum(s12) * each12 + tl.sum(s1) * each1 + tl.sum(s2) * each2)
    for first in tl.range(0, count, LANES):
        i = first + lane
        _, _, _, b12, b1, b2 = _wrong(values, i, count, m1, m2, threshold)
        of_both = tl.where(b12, (m2 - m1) * each12, 0.0)
        tl.store(slopes + i, of_both - tl.where(b1, m1 * each1, 0.0), mask=i < count)
        tl.store(slopes + count + i, -of_both - tl.where(b2, m2 * each2, 0.0), mask=i < count)


@triton.jit
def _is_finite(d):
    return (d > float("-inf")) & (d < float("inf"))


@triton.jit
def _distance(
    values,  # u, u1, u2, d of the centers [4, count], float64
    sums,  # [2, N, blocks, 2], float64, written
    slopes,  # [2, count], float64, written
    patches,  # P
    count,  # N P
    threshold,  # centers of d <= threshold are near, in the unit of d
    LANES: tl.constexpr,  # centers of a program
):
    """Grid (N, 2 noisy images, blocks of centers): each center i against all j, so that every pair is met twice.
    sums [2, N, blocks, 2]: v and the number of the violations; slopes [2, count]: their sum of d v / d u_i."""
    image, k, block = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    lane = block * LANES + tl.arange(0, LANES)
    exists = lane < patches
    at = image * patches
    noisy = values + (k + 1) * count
    d_i = tl.load(values + 3 * count + at + lane, mask=exists, other=float("nan"))
    change_i = tl.load(noisy + at + lane, mask=exists, other=0.0) - tl.load(values + at + lane, mask=exists, other=0.0)
    known_i, near_i = _is_finite(d_i), d_i <= threshold
    change_i = tl.where(near_i, change_i, 0.0)
    total = tl.zeros(lane.shape, tl.float64)
    number = tl.zeros(lane.shape, tl.float64)
    slope = tl.zeros(lane.shape, tl.float64)
    for j in tl.range(0, patches):
        d_j = tl.load(values + 3 * count + at + j) + tl.zeros(lane.shape, tl.float64)
        change_j = tl.where(d_j <= threshold, tl.load(noisy + at + j) - tl.load(values + at + j), 0.0)
        v = (d_i - d_j) * (change_i - change_j)
        wrong = known_i & _is_finite(d_j) & (lane != j) & ((v <= 0.0) == 0)
        total += tl.where(wrong, v, 0.0)
        number += tl.where(wrong, 1.0, 0.0)
        slope += tl.where(wrong & near_i, d_i - d_j, 0.0)
    tl.store(slopes + k * count + at + lane, slope, mask=exists)
    sums += ((k * tl.num_programs(0) + image) * tl.num_programs(2) + block) * 2
    tl.store(sums, 0.5 * tl.sum(total))
    tl.store(sums + 1, 0.5 * tl.sum(number))


@triton.jit
def _far_gradient(
    z, gradient, coefficient, stride_n, stride_c, stride_v, out_n, out_c, out_v, v, inside, far,
    C: tl.constexpr, EVIDENCE: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    z += image * stride_n
    gradient += image * out_n
    some_far = in_groups(far, inside)
    total = total_alpha(z, v, some_far, stride_c, stride_v, C, EVIDENCE, UNROLL)
    inverse = reciprocal(total)
    g = tl.load(coefficient).to(tl.float32) * -C * (inverse * inverse)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        slope = evidence_slope(logits_of(z, c, v, some_far, stride_c, stride_v), EVIDENCE)
        value = tl.where(far, g * slope, 0.0)
        to = gradient + tl.cast(c, tl.int64) * out_c + v * out_v
        tl.store(to, value.to(gradient.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    z,  # clean logits [N, C, V]
    z1,  # first noisy logits [N, C, V]
    z2,  # second noisy logits [N, C, V]
    g,  # gradient of z, shaped as it is, written where CLEAN
    g1,  # that of z1
    g2,  # that of z2
    distance,  # to the boundary [N, V] contiguous float32, in the unit of the threshold; or None:
    squared,  # squared distance in voxels, bytes [N, V] contiguous
    coefficients,  # d loss / d sums of u, u1, u2 over the far voxels [3], float64
    voxels,  # V
    stride_n,  # of z, in elements: along N
    stride_c,  # along C
    stride_v,  # along V
    n1,  # of z1, in elements: along N
    c1,  # along C
    v1,  # along V
    n2,  # of z2, in elements: along N
    c2,  # along C
    v2,  # along V
    out_n,  # of g, in elements: along N
    out_c,  # along C
    out_v,  # along V
    out_n1,  # of g1, in elements: along N
    out_c1,  # along C
    out_v1,  # along V
    out_n2,  # of g2, in elements: along N
    out_c2,  # along C
    out_v2,  # along V
    threshold,  # far is where distance > threshold,
    most,  # or squared > most
    CLEAN: tl.constexpr,  # whether the clean logits are in the far term
    C: tl.constexpr,  # classes
    EVIDENCE: tl.constexpr,  # name of e(z)
    BLOCK: tl.constexpr,  # voxels of a program
    UNROLL: tl.constexpr,  # classes whose loads are in flight together
):
    v, inside = own_voxels(voxels, BLOCK)
    far = _is_far(distance, squared, tl.program_id(1).to(tl.int64) * voxels + v, inside, threshold, most)
    if CLEAN:
        _far_gradient(
            z, g, coefficients, stride_n, stride_c, stride_v, out_n, out_c, out_v, v, inside, far, C, EVIDENCE, UNROLL
        )
    _far_gradient(z1, g1, coefficients + 1, n1, c1, v1, out_n1, out_c1, out_v1, v, inside, far, C, EVIDENCE, UNROLL)
    _far_gradient(z2, g2, coefficients + 2, n2, c2, v2, out_n2, out_c2, out_v2, v, inside, far, C, EVIDENCE, UNROLL)


@triton.jit
def _add_centers(
    z,  # noisy logits [N, C, V]
    gradient,  # shaped as z, added to
    by_terms,  # d loss / d (order, distance) [2], float64
    slopes,  # d order / d u of the centers [N, P], float64
    slopes_distance,  # d distance / d u of the centers, as slopes
    centers,  # voxels [N, P, DIMS], int64
    valid,  # [N, P], bytes 0 or 1
    patches,  # P
    count,  # N P
    depth,  # D in voxels; V = D H W
    height,  # H in voxels
    width,  # W in voxels
    stride_n,  # of z, in elements: along N
    stride_c,  # along C
    stride_v,  # along V
    out_n,  # of gradient, in elements: along N
    out_c,  # along C
    out_v,  # along V
    DIMS: tl.constexpr,  # 2 or 3
    C: tl.constexpr,  # classes
    EVIDENCE: tl.constexpr,  # name of e(z)
    LANES: tl.constexpr,  # centers at a time
    CHANNELS: tl.constexpr,  # the power of two from C on
):
    """Axis 0: centers. The first of those that share a voxel adds the slopes of all."""
    i = tl.program_id(0).to(tl.int64)
    voxel = voxel_of(centers, valid, i, count, depth, height, width, DIMS)
    image = i // patches
    lane = tl.arange(0, LANES)
    by_order, by_distance = tl.load(by_terms), tl.load(by_terms + 1)
    slope = tl.zeros(lane.shape, tl.float64)
    before = tl.zeros(lane.shape, tl.int32)
    for first in tl.range(0, patches, LANES):
        j = tl.where(first + lane < patches, image * patches + first + lane, count)
        same = (j < count) & (voxel_of(centers, valid, j, count, depth, height, width, DIMS) == voxel)
        of_both = by_order * tl.load(slopes + j, mask=same, other=0.0)
        of_both += by_distance * tl.load(slopes_distance + j, mask=same, other=0.0)
        slope += tl.where(same, of_both, 0.0)
        before += (same & (j < i)).to(tl.int32)
    change = tl.sum(slope)
    if (voxel >= 0) & (tl.sum(before) == 0) & (change != 0.0):
        c = tl.arange(0, CHANNELS).to(tl.int64)
        logit = tl.load(z + image * stride_n + c * stride_c + voxel * stride_v, mask=c < C, other=0.0).to(tl.float32)
        a, d = alpha(logit, EVIDENCE)
        total = tl.sum(tl.where(c < C, a, 0.0))
        at = gradient + image * out_n + c * out_c + voxel * out_v
        value = tl.load(at, mask=c < C, other=0.0).to(tl.float32) - change.to(tl.float32) * C / (total * total) * d
        tl.store(at, value.to(gradient.dtype.element_ty), mask=c < C)


class Arguments:
    """What forward and backward share: the maps [N, C, V], where voxels are far, the centers."""

    def __init__(
        self,
        logits: tuple[Tensor, Tensor, Tensor],
        centers: Tensor,
        levels: Tensor,
        valid: Tensor,
        threshold: float,
        evidence: str,
        *,
        distance: Tensor | None = None,
        squared: Tensor | None = None,
        clean_far: bool = True,
    ) -> None:
        self.maps = [z.flatten(2) for z in logits]
        self.images, self.classes, self.voxels = self.maps[0].shape
        self.size = (1, *logits[0].shape[2:])[-3:]
        self.centers, self.valid = centers.contiguous(), valid.contiguous().view(torch.uint8)
        self.levels = levels.contiguous()
        self.distance = None if distance is None else distance.to(torch.float32).contiguous()
        self.squared = squared
        self.threshold, self.most = threshold, _cpu.squared_steps_within(threshold)
        self.clean, self.evidence, self.unroll = clean_far, evidence, unrolled(self.classes)
        self.patches, self.dims = centers.shape[1:]
        self.count = self.images * self.patches

    @property
    def strides(self) -> list[int]:
        return [stride for z in self.maps for stride in z.stride()]


def center_values(a: Arguments) -> Tensor:
    """[4, N P] float64: u, u1, u2, d of the centers."""
    z = a.maps[0]
    values = z.new_empty((4, a.count), dtype=torch.float64)
    nearest = None
    if a.squared is not None:
        nearest = nearest_boundary(a.squared, a.centers, a.valid, a.size)
    _centers[(triton.cdiv(a.count, LANES),)](
        *a.maps, a.distance, a.squared, nearest, a.centers, a.valid, values, a.patches, a.count, *a.size, *a.strides,
        a.dims, a.classes, a.evidence, LANES, a.unroll,
    )  # fmt: skip
    return values


def forward(a: Arguments, terms: Tensor, far: Tensor, slopes: Tensor) -> None:
    """Writes (order, distance) [2]; the sums of u, u1, u2 over the far voxels and their number [4], without the clean
    ones in the far term of u1, u2 alone [2]; and d term / d u^k at the centers [2 terms, 2, N P]. All float64."""
    blocks = triton.cdiv(a.voxels, TILE * TILES)
    partials = far.new_empty((a.images, blocks, 4), dtype=torch.float32)
    with on_device_of(far):
        if partials.numel():
            _far_sums[blocks, a.images](
                *a.maps, a.distance, a.squared, partials, a.voxels, *a.strides, a.threshold, a.most, a.clean, a.classes,
                a.evidence, TILE, TILES, a.unroll,
            )  # fmt: skip
        torch.sum(partials if a.clean else partials[..., NOISY_FAR_SUMS], (0, 1), dtype=torch.float64, out=far)
        if a.count == 0 or a.voxels == 0:
            terms.zero_()
            slopes.zero_()
            return
        values = center_values(a)
        _order[(1,)](values, a.levels, terms, slopes, a.count, a.threshold, LANES)
        parts = triton.cdiv(a.patches, LANES)
        sums = far.new_empty((2, a.images, parts, 2))
        _distance[a.images, 2, parts](values, sums, slopes[1], a.patches, a.count, a.threshold, LANES)
        pair_means(sums, terms[1], slopes[1], a.patches)


def backward(
    a: Arguments, coefficients: Tensor, by_terms: Tensor, slopes: Tensor, gradients: Sequence[Tensor | None]
) -> None:
    """Writes the gradients [N, C, V] of the three logits, that of the clean ones where they are in the far term.
    coefficients [3]: d loss / d sums of u over the far voxels; by_terms [2]: d loss / d (order, distance)."""
    if a.images * a.voxels == 0:
        return
    coefficients, by_terms = coefficients.contiguous(), by_terms.contiguous()
    flats = [z if flat is None else flat for z, flat in zip(a.maps, gradients, strict=True)]
    with on_device_of(coefficients):
        _backward[triton.cdiv(a.voxels, BLOCK), a.images](
            *a.maps, *flats, a.distance, a.squared, coefficients, a.voxels, *a.strides,
            *(stride for flat in flats for stride in flat.stride()), a.threshold, a.most, a.clean, a.classes,
            a.evidence, BLOCK, a.unroll, num_warps=WARPS,
        )  # fmt: skip
        for k in (1, 2) if a.count else ():
            z, flat = a.maps[k], flats[k]
            _add_centers[(a.count,)](
                z, flat, by_terms, slopes[0, k - 1], slopes[1, k - 1], a.centers, a.valid, a.patches, a.count, *a.size,
                *z.stride(), *flat.stride(), a.dims, a.classes, a.evidence, LANES, triton.next_power_of_2(a.classes),
            )  # fmt: skip
