"""From sums over voxels to terms and to a loss, and back: the formulas of ops/_terms.py, ops/_dense_terms.py and
ops/_weighted.py, each one program that reads and writes a few numbers in float64, where torch would launch a kernel for
every arithmetic operation. Bound by the launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import triton
import triton.language as tl
from torch import Tensor

from ..ops import _terms
from ..ops._dense_terms import FAR_NUMBER, FAR_SUMS, NEAR_NUMBER, NEAR_SUMS
from ..ops._sums import sums_layout
from ._launch import on_device_of

if TYPE_CHECKING:
    from ..ops._weighted import Weights

MOST_LANES = 64  # entries of a row at a time
SHIFT, EPS = tl.constexpr(_terms.SHIFT), tl.constexpr(_terms.EPS)
LEAST, MOST = tl.constexpr(_terms.LEAST), tl.constexpr(_terms.MOST)
DATA, KL = tl.constexpr(sums_layout(1).means.start), tl.constexpr(sums_layout(1).means.start + 1)
BY_CLASS = tl.constexpr(sums_layout(1).by_class.start)
NEAR, FAR = tl.constexpr(NEAR_SUMS.start), tl.constexpr(FAR_SUMS.start)  # in the sums of dense_noise_uncertainty_loss
NEAR_COUNT, FAR_COUNT = tl.constexpr(NEAR_NUMBER), tl.constexpr(FAR_NUMBER)


@triton.jit
def _given(t):
    """A number, or 0 of a derivative that nothing asked for."""
    if t is None:
        return tl.cast(0.0, tl.float64)
    else:
        return tl.load(t).to(tl.float64)


@triton.jit
def _weights(weights, k, exists):
    if weights is None:
        return tl.where(exists, tl.full(k.shape, 1.0, tl.float64), 0.0)
    else:
        return tl.load(weights + k, mask=exists, other=0.0)


@triton.jit
def _entry(k, C: tl.constexpr, WIDTH: tl.constexpr, REGIONS: tl.constexpr):
    """Where in the sums that begin with a batch's those of an entry are: a class, or the presence of a region."""
    if REGIONS:
        return k * WIDTH + BY_CLASS + 1
    else:
        return k + BY_CLASS


@triton.jit
def _voxels(row, C: tl.constexpr, LANES: tl.constexpr):
    """Of a batch: the voxels that count, of any class."""
    lane = tl.arange(0, LANES)
    total = tl.zeros((LANES,), tl.float64)
    for first in tl.range(0, C, LANES):
        total += tl.load(row + BY_CLASS + 2 * C + first + lane, mask=first + lane < C, other=0.0)
    return tl.sum(total)


@triton.jit
def _dice(row, k, exists, voxels, C: tl.constexpr, WIDTH: tl.constexpr, REGIONS: tl.constexpr):
    """Of entries: TP, FP, FN, and how many voxels weigh the means."""
    at = row + _entry(k, C, WIDTH, REGIONS)
    p = tl.load(at, mask=exists, other=0.0)
    hit = tl.load(at + C, mask=exists, other=0.0)
    y = tl.load(at + 2 * C, mask=exists, other=0.0)
    counted = y
    if REGIONS:
        counted = y + tl.load(at + 2 * C - 1, mask=exists, other=0.0)
        voxels = counted
    tp = hit + SHIFT * p
    return tp, p - tp, y + SHIFT * voxels - tp, counted


@triton.jit
def _share(tp, fp, fn):
    """What is clamped to a, a, and 1 / the denominator."""
    share = fp / (fp + fn + EPS)
    a = tl.minimum(tl.maximum(share, LEAST), MOST)
    return share, a, 1.0 / (tp + a * fp + (1.0 - a) * fn + EPS)


@triton.jit
def _totals(
    row, weights, count, C: tl.constexpr, WIDTH: tl.constexpr, REGIONS: tl.constexpr, LANES: tl.constexpr
):  # fmt: skip
    """Of a batch: the sums of weight times count, of the weights, of weight times Dice term, of data and of KL."""
    lane = tl.arange(0, LANES)
    zero = tl.zeros((LANES,), tl.float64)
    scale, whole, dice, data, kl = zero, zero, zero, zero, zero
    voxels = tl.cast(0.0, tl.float64)
    if not REGIONS:
        voxels = _voxels(row, C, LANES)
    for first in tl.range(0, count, LANES):
        k, exists = first + lane, first + lane < count
        weight = _weights(weights, k, exists)
        tp, fp, fn, counted = _dice(row, k, exists, voxels, C, WIDTH, REGIONS)
        inverse = _share(tp, fp, fn)[2]
        scale += weight * counted
        whole += weight
        dice += tl.where(exists, weight * (1.0 - tp * inverse), 0.0)
        if REGIONS:
            data += weight * tl.load(row + k * WIDTH + DATA, mask=exists, other=0.0)
            kl += weight * tl.load(row + k * WIDTH + KL, mask=exists, other=0.0)
    data, kl = tl.sum(data), tl.sum(kl)
    if not REGIONS:
        data, kl = tl.load(row + DATA), tl.load(row + KL)
    return voxels, tl.sum(scale), tl.sum(whole), tl.sum(dice), data, kl


@triton.jit
def _evidential(
    sums,  # [batches, WIDTH], of regions [regions, WIDTH], float64 contiguous
    weights,  # of the classes or of the regions, float64, or None
    data,  # data term [1], float64, written
    kl,  # KL term [1], float64, written
    dice,  # Dice term [1], float64, written
    far,  # far term [1], float64, written
    batches,  # rows that the terms are averaged over; of regions 1
    count,  # classes, or regions
    C: tl.constexpr,  # classes, of regions 2
    WIDTH: tl.constexpr,  # of a row of sums
    REGIONS: tl.constexpr,  # whether a row is one of a region
    WITH_FAR: tl.constexpr,  # whether a row has the sums of the far term
    LANES: tl.constexpr,  # entries at a time
):
    of_data, of_kl, of_dice = tl.cast(0.0, tl.float64), tl.cast(0.0, tl.float64), tl.cast(0.0, tl.float64)
    for batch in tl.range(0, batches):
        _, scale, whole, by_class, s_data, s_kl = _totals(
            sums + batch * WIDTH, weights, count, C, WIDTH, REGIONS, LANES
        )
        seen = scale > 0.0
        divisor = tl.where(seen, scale, 1.0)
        of_data += s_data / divisor
        of_kl += s_kl / divisor
        of_dice += tl.where(seen, by_class / whole, 0.0)
    number = tl.cast(batches, tl.float64)
    tl.store(data, of_data / number)
    tl.store(kl, of_kl / number)
    tl.store(dice, of_dice / number)
    if WITH_FAR:
        last = sums + BY_CLASS + 3 * C
        whole_u = tl.load(last) + tl.load(last + 2) + tl.load(last + 3)
        tl.store(far, whole_u / tl.maximum(tl.load(last + 1), 1.0))
    else:
        tl.store(far, 0.0)


@triton.jit
def _evidential_backward(
    by_data,  # d loss / d data term [1], or None: 0, as the three others
    by_kl,  # d loss / d KL term [1]
    by_dice,  # d loss / d Dice term [1]
    by_far,  # d loss / d far term [1]
    sums,  # [batches, WIDTH], of regions [regions, WIDTH], float64 contiguous
    weights,  # of the classes or of the regions, float64, or None
    out,  # d loss / d sums, shaped as they are, written
    batches,  # rows that the terms are averaged over; of regions 1
    count,  # classes, or regions
    C: tl.constexpr,  # classes, of regions 2
    WIDTH: tl.constexpr,  # of a row of sums
    REGIONS: tl.constexpr,  # whether a row is one of a region
    WITH_FAR: tl.constexpr,  # whether a row has the sums of the far term
    LANES: tl.constexpr,  # entries at a time
):
    number = tl.cast(batches, tl.float64)
    g_data, g_kl, g_dice = _given(by_data) / number, _given(by_kl) / number, _given(by_dice) / number
    lane = tl.arange(0, LANES)
    for batch in tl.range(0, batches):
        row, to = sums + batch * WIDTH, out + batch * WIDTH
        voxels, scale, whole, _by_class, _data, _kl = _totals(row, weights, count, C, WIDTH, REGIONS, LANES)
        seen = scale > 0.0
        divisor = tl.where(seen, scale, 1.0)
        if not REGIONS:
            tl.store(to + DATA, g_data / divisor)
            tl.store(to + KL, g_kl / divisor)
        for first in tl.range(0, count, LANES):
            k, exists = first + lane, first + lane < count
            weight = _weights(weights, k, exists)
            tp, fp, fn, _counted = _dice(row, k, exists, voxels, C, WIDTH, REGIONS)
            share, a, inverse = _share(tp, fp, fn)
            total = fp + fn + EPS
            change = tl.where((share >= LEAST) & (share <= MOST), (fp - fn) / (total * total), 0.0)
            by_all = tp * inverse * inverse
            by_tp = by_all - inverse
            by_fp = by_all * (a + change * (fn + EPS))
            by_fn = by_all * (1.0 - a - change * fp)
            of_dice = tl.where(seen, g_dice * (weight / whole), 0.0)
            at = to + _entry(k, C, WIDTH, REGIONS)
            zero = tl.zeros((LANES,), tl.float64)
            tl.store(at, of_dice * (SHIFT * (by_tp - by_fn) + (1.0 - SHIFT) * by_fp), mask=exists)
            tl.store(at + C, of_dice * (by_tp - by_fp - by_fn), mask=exists)
            tl.store(at + 2 * C, zero, mask=exists)
            if REGIONS:
                tl.store(to + k * WIDTH + DATA, g_data * weight / divisor, mask=exists)
                tl.store(to + k * WIDTH + KL, g_kl * weight / divisor, mask=exists)
                for column in tl.static_range(3):
                    tl.store(at + column * C - 1, zero, mask=exists)
    if WITH_FAR:
        last = BY_CLASS + 3 * C
        each = _given(by_far) / tl.maximum(tl.load(sums + last + 1), 1.0)
        tl.store(out + last, each)
        tl.store(out + last + 1, 0.0)
        tl.store(out + last + 2, each)
        tl.store(out + last + 3, each)


@triton.jit
def _sum_of(x, count):
    total = tl.cast(0.0, tl.float64)
    if x is not None:
        for i in tl.range(0, count):
            total += tl.load(x + i).to(tl.float64)
    return total


@triton.jit
def _dense_parts(sums, each, NORMALIZE: tl.constexpr):
    """The order term; what a sum of the order term adds to it, and what u of a near voxel does; 1 / far voxels."""
    near = tl.load(sums + NEAR_COUNT)
    by_sum = each / tl.maximum(near, 1.0)
    order = (tl.load(sums) + tl.load(sums + 1) + tl.load(sums + 2)) * by_sum
    by_near = tl.cast(0.0, tl.float64)
    if NORMALIZE:
        third = 1.0 / tl.maximum(3.0 * near, 1.0)
        mean = (tl.load(sums + NEAR) + each * (tl.load(sums + NEAR + 1) + tl.load(sums + NEAR + 2))) * third
        varies = mean > 0.0
        divisor = tl.where(varies, mean, 1.0)
        order = order / divisor
        kept = varies | (order != order)
        order, by_sum = tl.where(kept, order, 0.0), tl.where(kept, by_sum / divisor, 0.0)
        by_near = tl.where(varies, -order / divisor * third, 0.0)
    return order, by_sum, by_near, 1.0 / tl.maximum(tl.load(sums + FAR_COUNT), 1.0)


@triton.jit
def _dense_noise(
    sums,  # of dense_noise_uncertainty_loss [11], float64
    losses1,  # pair loss of each image in the first copy [N], float64, or None
    losses2,  # in the second copy [N], or None
    order,  # order term [1], float64, written
    distance,  # distance term [1], float64, written
    far,  # far term [1], float64, written
    each,  # how many copies a copy stands for
    images,  # N
    NORMALIZE: tl.constexpr,  # whether the order term is divided by the mean of u
):
    of_order, _, _, each_far = _dense_parts(sums, each, NORMALIZE)
    tl.store(order, of_order)
    pairs = _sum_of(losses1, images) + _sum_of(losses2, images)
    tl.store(distance, each * pairs / tl.maximum(images, 1).to(tl.float64))
    noisy = tl.load(sums + FAR + 1) + tl.load(sums + FAR + 2)
    tl.store(far, (tl.load(sums + FAR) + each * noisy) * each_far)


@triton.jit
def _dense_noise_backward(
    by_order,  # d loss / d order term [1], or None: 0, as the two others
    by_distance,  # d loss / d distance term [1]
    by_far,  # d loss / d far term [1]
    sums,  # of dense_noise_uncertainty_loss [11], float64
    out,  # d loss / d sums, and d loss / d each pair loss [12], float64, written
    each,  # how many copies a copy stands for
    images,  # N
    NORMALIZE: tl.constexpr,  # whether the order term is divided by the mean of u
    SUMS: tl.constexpr,  # 11
):
    _, by_sum, by_near, each_far = _dense_parts(sums, each, NORMALIZE)
    g_order, g_far = _given(by_order), _given(by_far) * each_far
    for k in tl.static_range(3):
        times = 1.0 if k == 0 else each
        tl.store(out + k, g_order * by_sum)
        tl.store(out + NEAR + k, g_order * by_near * times)
        tl.store(out + FAR + k, g_far * times)
    tl.store(out + NEAR_COUNT, 0.0)
    tl.store(out + FAR_COUNT, 0.0)
    tl.store(out + SUMS, _given(by_distance) * each / tl.maximum(images, 1).to(tl.float64))


@triton.jit
def _pair_means(
    sums,  # of pairs of centers, v and the number of v > 0 [2, N, blocks, 2], float64
    term,  # distance term [1], float64, written
    slopes,  # [2, N, P], float64, those of the sums of v, which become those of the term
    images,  # N
    blocks,  # of centers
    patches,  # P
    LANES: tl.constexpr,  # centers at a time
):
    """One program."""
    term_so_far = tl.cast(0.0, tl.float64)
    for group in tl.range(0, 2 * images):  # of each noisy image
        total, number = tl.cast(0.0, tl.float64), tl.cast(0.0, tl.float64)
        for block in tl.range(0, blocks):
            at = sums + (group * blocks + block) * 2
            total += tl.load(at)
            number += tl.load(at + 1)
        each = 1.0 / (images * tl.maximum(number, 1.0))
        term_so_far += total * each
        for first in tl.range(0, patches, LANES):
            lane = first + tl.arange(0, LANES)
            at = slopes + tl.cast(group, tl.int64) * patches + lane
            tl.store(at, tl.load(at, mask=lane < patches, other=0.0) * each, mask=lane < patches)
    tl.store(term, term_so_far)


@triton.jit
def _put(to, value):
    tl.store(to, value.to(to.dtype.element_ty))


@triton.jit
def _weighted(
    data,  # data term [1]
    kl,  # KL term [1]
    dice,  # Dice term [1]
    gradient,  # L_gu of each image [images], over which the mean is taken, or None: 0
    order,  # order term [1], or None: 0, as what follows
    distance,  # distance term [1]
    far,  # far term [1]
    noisy_data,  # data term of the noisy copies [1]
    noisy_kl,  # KL term of the noisy copies [1]
    noisy_dice,  # Dice term of the noisy copies [1]
    out0,  # total [1], written
    out1,  # segmentation [1], written
    out2,  # data term [1], written
    out3,  # KL term [1], written
    out4,  # Dice term [1], written
    out5,  # L_gu [1], written
    out6,  # L_nu [1], written
    out7,  # order term [1], written
    out8,  # distance term [1], written
    out9,  # far term [1], written
    out10,  # L_seg of the noisy copies [1], written
    w_data,  # of the data term, as all `Weights` a number
    w_kl,  # of the KL term
    w_dice,  # of the Dice term
    w_order,  # of the order term
    w_distance,  # of the distance term
    w_far,  # of the far term
    w_noisy,  # of L_seg of the noisy copies
    w_gradient,  # of L_gu
    w_noise,  # of L_nu
    images,  # of gradient
):
    x_data, x_kl, x_dice = _given(data), _given(kl), _given(dice)
    x_gradient = _sum_of(gradient, images) / tl.maximum(images, 1).to(tl.float64)
    x_order, x_distance, x_far = _given(order), _given(distance), _given(far)
    noisy = w_data * _given(noisy_data) + w_kl * _given(noisy_kl) + w_dice * _given(noisy_dice)
    ordered = w_order * x_order + w_distance * x_distance + w_far * x_far
    of_copies = w_noisy * noisy
    segmentation = w_data * x_data + w_kl * x_kl + w_dice * x_dice + w_noise * of_copies
    _put(out0, segmentation + w_gradient * x_gradient + w_noise * ordered)
    _put(out1, segmentation)
    _put(out2, x_data)
    _put(out3, x_kl)
    _put(out4, x_dice)
    _put(out5, x_gradient)
    _put(out6, ordered + of_copies)
    _put(out7, x_order)
    _put(out8, x_distance)
    _put(out9, x_far)
    _put(out10, noisy)


@triton.jit
def _weighted_backward(
    total,  # d loss / d total [1], or None: 0
    segmentation,  # d loss / d segmentation [1], or None: 0
    data,  # d loss / d data term [1], or None: 0
    kl,  # d loss / d KL term [1], or None: 0
    dice,  # d loss / d Dice term [1], or None: 0
    gradient,  # d loss / d L_gu [1], or None: 0
    noise,  # d loss / d L_nu [1], or None: 0
    order,  # d loss / d order term [1], or None: 0
    distance,  # d loss / d distance term [1], or None: 0
    far,  # d loss / d far term [1], or None: 0
    noisy,  # d loss / d L_seg of the noisy copies [1], or None: 0
    out,  # d loss / d terms, that of L_gu of each image [10], float64, written
    w_data,  # of the data term, as all `Weights` a number
    w_kl,  # of the KL term
    w_dice,  # of the Dice term
    w_order,  # of the order term
    w_distance,  # of the distance term
    w_far,  # of the far term
    w_noisy,  # of L_seg of the noisy copies
    w_gradient,  # of L_gu
    w_noise,  # of L_nu
    images,  # of L_gu
):
    g_total, g_noise = _given(total), _given(noise)
    g_segmentation = _given(segmentation) + g_total
    g_ordered = g_noise + w_noise * g_total
    g_noisy = _given(noisy) + w_noisy * (g_noise + w_noise * g_segmentation)
    tl.store(out, _given(data) + w_data * g_segmentation)
    tl.store(out + 1, _given(kl) + w_kl * g_segmentation)
    tl.store(out + 2, _given(dice) + w_dice * g_segmentation)
    tl.store(out + 3, (_given(gradient) + w_gradient * g_total) / tl.maximum(images, 1).to(tl.float64))
    tl.store(out + 4, _given(order) + w_order * g_ordered)
    tl.store(out + 5, _given(distance) + w_distance * g_ordered)
    tl.store(out + 6, _given(far) + w_far * g_ordered)
    tl.store(out + 7, w_data * g_noisy)
    tl.store(out + 8, w_kl * g_noisy)
    tl.store(out + 9, w_dice * g_noisy)


def _settings(sums: Tensor, classes: int, regions: bool) -> tuple[int, int, int, int, bool, bool, int]:
    """batches, count, and the constants."""
    rows, width = sums.shape
    count = rows if regions else classes
    with_far = width == sums_layout(classes).width
    lanes = min(max(triton.next_power_of_2(count), 16), MOST_LANES)
    return 1 if regions else rows, count, classes, width, regions, with_far, lanes


def evidential(
    sums: Tensor, weights: Tensor | None, classes: int, regions: bool, out: Sequence[Tensor]
) -> None:  # fmt: skip
    """Writes the four terms."""
    with on_device_of(sums):
        _evidential[(1,)](sums.contiguous(), weights, *out, *_settings(sums, classes, regions), num_warps=1)


def evidential_backward(
    grads: Sequence[Tensor | None], sums: Tensor, weights: Tensor | None, classes: int, regions: bool, out: Tensor
) -> None:
    """Writes the derivatives by the sums from those by the terms."""
    settings = _settings(sums, classes, regions)
    with on_device_of(sums):
        _evidential_backward[(1,)](*grads, sums.contiguous(), weights, out, *settings, num_warps=1)


def dense_noise(
    sums: Tensor, losses1: Tensor | None, losses2: Tensor | None, each: float, normalize: bool, out: Sequence[Tensor]
) -> None:
    """Writes order, distance and far."""
    images = 0 if losses1 is None else len(losses1)
    losses = (x if x is None else x.contiguous() for x in (losses1, losses2))
    with on_device_of(sums):
        _dense_noise[(1,)](sums, *losses, *out, each, images, normalize, num_warps=1)


def dense_noise_backward(
    grads: Sequence[Tensor | None], sums: Tensor, each: float, images: int, normalize: bool, out: Tensor
) -> None:
    """Writes the derivatives by the sums and, behind them, by each pair loss."""
    with on_device_of(sums):
        _dense_noise_backward[(1,)](*grads, sums, out, each, images, normalize, len(out) - 1, num_warps=1)


def pair_means(sums: Tensor, term: Tensor, slopes: Tensor, patches: int) -> None:
    """Writes the distance term of noise_uncertainty_loss, and makes its slopes of those of the sums."""
    with on_device_of(sums):
        _pair_means[(1,)](sums, term, slopes, *sums.shape[1:3], patches, MOST_LANES, num_warps=1)


def weighted(terms: Sequence[Tensor | None], weights: Weights, out: Sequence[Tensor]) -> None:
    """Writes the eleven outputs."""
    gradient = terms[3]
    images = 1 if gradient is None else gradient.numel()
    with on_device_of(out[0]):
        _weighted[(1,)](*terms, *out, *weights, images, num_warps=1)


def weighted_backward(grads: Sequence[Tensor | None], weights: Weights, images: int, out: Tensor) -> None:
    """Writes the derivatives by the ten terms."""
    with on_device_of(out):
        _weighted_backward[(1,)](*grads, out, *weights, images, num_warps=1)
