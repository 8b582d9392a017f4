"""Counts and histograms of a segmentation from its logits z [N, C, V] and labels [N, V], in one pass.

p = alpha / A, u = C / A, prediction = argmax alpha (the first of equals)
confusion[label][prediction]; calibration bins k / bins <= p < (k + 1) / bins of every class and of the top label:
number, sum of p, hits; number of voxels, and of errors of each class and of the top label, by the level
k / levels < u <= (k + 1) / levels.
Grid (blocks of 1024 voxels, N). A block's counts are histograms in shared memory; its bins of p that have a voxel, of
neighbours a few, are summed one by one. Blocks add to one record an image, int64, of which sums of p are 2^-32: in any
order the same. Bytes per voxel: C logits and a label. Bound by instructions: logits, bins and additions to them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import _cpu
from ._launch import BLOCK, on_device_of, own_voxels, two_sums, unrolled
from ._math import alpha, exponential, log_one_plus, quotient, reciprocal

FRACTION = tl.constexpr(4294967296.0)  # 2^32: an image may have 2^31 voxels


@triton.jit
def _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE: tl.constexpr):
    at = z + tl.cast(c, tl.int64) * stride_c + v * stride_v
    logit = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    if EVIDENCE == "softplus":  # of the polynomial, which rises with z everywhere: it decides which class is predicted
        positive = tl.where(logit > 0.0, logit, 0.0)
        return 1.0 + (positive + (log_one_plus(exponential(-tl.abs(logit))) + positive * 0.0))
    else:
        return alpha(logit, EVIDENCE)[0]


@triton.jit
def _clamped(x, last):
    """A NaN goes to the first."""
    return tl.minimum(tl.where(x > 0.0, x, 0.0), last).to(tl.int32)


@triton.jit
def _edge(k, COUNT: tl.constexpr):
    """k / COUNT of whole numbers below 2^24, correctly rounded."""
    k = k.to(tl.float32)
    inverse = tl.full(k.shape, 1.0 / COUNT, tl.float32)
    near = k * inverse
    return tl.fma(inverse, tl.fma(tl.full(k.shape, -COUNT, tl.float32), near, k), near)


@triton.jit
def _add(record, values, mask, COUNT: tl.constexpr, SIZE: tl.constexpr):
    """Adds how often each of 0 .. COUNT - 1 occurs; in most blocks no voxel is of a class, or wrong about it."""
    number = tl.sum(mask.to(tl.int32))
    if number > 0:
        counts = tl.histogram(tl.where(mask, values, SIZE - 1), SIZE)
        i = tl.arange(0, SIZE)
        # what was counted as the last value only to be counted somewhere
        counts -= tl.where(i == SIZE - 1, mask.shape[0] - number, 0)
        tl.atomic_add(record + i, counts.to(tl.int64), mask=(i < COUNT) & (counts != 0), sem="relaxed")


@triton.jit
def _inverse(total):
    """A / 16, whose inverse is a normal number, and this inverse, nearly always to nearest."""
    smaller = total * 0.0625
    r = reciprocal(smaller)
    return smaller, tl.fma(r, tl.fma(-smaller, r, 1.0), r)


@triton.jit
def _share(a, total, smaller, inverse):
    """alpha / A as a division rounds it, nearly always; of an infinite A what alpha / A is."""
    a_smaller = a * 0.0625
    near = a_smaller * inverse
    near = tl.fma(inverse, tl.fma(-smaller, near, a_smaller), near)
    return tl.where(total == float("inf"), a * 0.0, near)


@triton.jit
def _predict(
    z, v, inside, stride_c, stride_v, C: tl.constexpr, EVIDENCE: tl.constexpr, UNROLL: tl.constexpr
):  # fmt: skip
    """A, the largest alpha, and the first class that has it."""
    total = tl.zeros(v.shape, tl.float32)
    best = tl.zeros(v.shape, tl.float32)
    prediction = tl.zeros(v.shape, tl.int32)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        a = _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE)
        total += a
        larger = (a > best) | (c == 0)
        best = tl.where(larger, a, best)
        prediction = tl.where(larger, c, prediction)
    return total, best, prediction


@triton.jit
def _met(bin):
    """Bit b & 31 where some voxel is in bin b; those that count nowhere have bin -1."""
    return tl.reduce_or(tl.where(bin >= 0, 1 << (bin & 31), 0), 0)


@triton.jit
def _add_bins(number, confidence, hits, begin, p, hit, counts, BINS: tl.constexpr):
    """Adds to the bins of one class, from `begin` on, how many voxels, what sum of p and how many hits a block has."""
    p = tl.where(p > 0.0, p, 0.0)
    bin = _clamped(p * BINS, BINS - 1)  # the product may be rounded over an edge
    up = (p >= _edge(bin + 1, BINS)) & (bin < BINS - 1)
    bin = tl.where(counts, bin + up.to(tl.int32) - (p < _edge(bin, BINS)).to(tl.int32), -1)
    met = _met(bin)
    for b in tl.range(0, BINS):
        if (met >> (b & 31)) & 1:
            mine = bin == b
            # a block has fewer voxels than 65536
            both, sum_p = two_sums(mine.to(tl.int32) + tl.where(mine & hit, 65536, 0), tl.where(mine, p, 0.0))
            at = begin + b
            tl.atomic_add(number + at, (both & 65535).to(tl.int64), sem="relaxed")
            tl.atomic_add(hits + at, (both >> 16).to(tl.int64), sem="relaxed")
            tl.atomic_add(confidence + at, (sum_p.to(tl.float64) * FRACTION).to(tl.int64), sem="relaxed")


@triton.jit
def _forward(
    z,  # logits [N, C, V]
    target,  # labels [N, V], contiguous integers
    record,  # counts [N, width], int64, added to: csrc/cpu/segmentation_stats.h's record, and of each class and the top
    # label how many p were no number; sums of p in 2^-32
    voxels,  # V
    width,  # of a record
    stride_n,  # of z, in elements: along N
    stride_c,  # along C
    stride_v,  # along V
    ignore,  # label that counts nowhere, or None
    C: tl.constexpr,  # classes
    EVIDENCE: tl.constexpr,  # name of e(z)
    BINS: tl.constexpr,  # of the probability
    LEVELS: tl.constexpr,  # of the uncertainty
    CLASSES: tl.constexpr,  # the power of two from C on
    SIZE: tl.constexpr,  # the power of two from LEVELS on
    BLOCK: tl.constexpr,  # voxels of a program
    UNROLL: tl.constexpr,  # classes whose loads are in flight together
):
    image = tl.program_id(1).to(tl.int64)
    z += image * stride_n
    v, inside = own_voxels(voxels, BLOCK)
    y = tl.load(target + image * voxels + v, mask=inside, other=0).to(tl.int64)
    counts = inside
    if ignore is not None:
        counts = counts & (y != ignore)
    bad = counts & ((y < 0) | (y >= C))
    counts = counts & (bad == 0)
    label = tl.where(counts, y, -1).to(tl.int32)
    total, best, prediction = _predict(z, v, inside, stride_c, stride_v, C, EVIDENCE, UNROLL)
    confusion = record + image * width
    number = confusion + C * C
    confidence, hits = number + (C + 1) * BINS, number + 2 * (C + 1) * BINS
    by_level = number + 3 * (C + 1) * BINS
    errors, others = by_level + LEVELS, by_level + (C + 2) * LEVELS
    bad_number = tl.sum(bad.to(tl.int32))
    if bad_number > 0:
        tl.atomic_add(others, bad_number.to(tl.int64), sem="relaxed")
    u = quotient(C, total)
    level = _clamped(u * LEVELS, LEVELS - 1)
    up = (u > _edge(level + 1, LEVELS)) & (level < LEVELS - 1)
    down = (u <= _edge(level, LEVELS)) & (level > 0)
    level += up.to(tl.int32) - down.to(tl.int32)
    _add(by_level, level, counts, LEVELS, SIZE)
    smaller, inverse = _inverse(total)
    of_label = tl.where(label != prediction, label, -1)  # where it is predicted wrong
    of_prediction = tl.where(of_label >= 0, prediction, -1)
    for c in tl.range(0, C + 1):  # the last is the top label
        if c < C:
            a = _alpha(z, c, v, inside, stride_c, stride_v, EVIDENCE)
            hit = label == c
            _add(confusion + c * C, prediction, hit, C, CLASSES)
            _add(errors + c * LEVELS, level, (of_label == c) | (of_prediction == c), LEVELS, SIZE)
        else:
            a = best
            hit = label == prediction
            _add(errors + c * LEVELS, level, of_label >= 0, LEVELS, SIZE)
        p = _share(a, total, smaller, inverse)
        nan = tl.sum((counts & (p != p)).to(tl.int32))
        if nan > 0:
            tl.atomic_add(others + 1 + c, nan.to(tl.int64), sem="relaxed")
        _add_bins(number, confidence, hits, c * BINS, p, hit, counts, BINS)


def forward(logits: Tensor, target: Tensor, evidence: str, bins: int, levels: int, ignore: int | None) -> Tensor:
    """Records [N, width] float64 in the order of the op."""
    z, target = logits.flatten(2), target.contiguous()
    images, classes, voxels = z.shape
    row, width = (classes + 1) * bins, _cpu.segmentation_stats_size(classes, bins, levels)
    counts = torch.zeros((images, width + classes + 1), dtype=torch.int64, device=z.device)
    if z.numel():
        with on_device_of(z):
            _forward[triton.cdiv(voxels, BLOCK), images](
                z, target, counts, voxels, counts.shape[1], *z.stride(), ignore, classes, evidence, bins, levels,
                triton.next_power_of_2(classes), triton.next_power_of_2(levels), BLOCK, unrolled(classes),
            )  # fmt: skip
    records, not_numbers = counts[:, :width].to(torch.float64), counts[:, width:]
    first = classes * classes + row
    confidence = records[:, first : first + row].mul_(1 / FRACTION.value).unflatten(1, (classes + 1, bins))
    confidence[:, :, 0].masked_fill_(not_numbers > 0, torch.nan)
    return records
