"""What the forward and the backward of evidential_loss share: alpha of a block of voxels, and which of them count."""

from __future__ import annotations

import triton
import triton.language as tl

from ._math import alpha

KEPT = tl.constexpr(8)  # classes at the most whose alphas stay in registers; those of more are computed twice


@triton.jit
def map_of(z, stride_n, stride_c, REGIONS: tl.constexpr):
    """Where the logits of this program's map begin, and the number of the map; axis 1 of the grid."""
    number = tl.program_id(1)
    if REGIONS > 0:
        z += (number // REGIONS).to(tl.int64) * stride_n + (number % REGIONS).to(tl.int64) * stride_c
    else:
        z += number.to(tl.int64) * stride_n
    return z, number.to(tl.int64)


@triton.jit
def alpha_of(z, c, v, inside, stride_c, stride_v, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr):
    """alpha_c and d alpha_c / d z of a map's voxels."""
    if REGIONS > 0:  # absence, presence
        sign = tl.where(c == 0, -1.0, 1.0)
        logit = tl.load(z + v * stride_v, mask=inside, other=0.0).to(tl.float32) * sign
        a, slope = alpha(logit, EVIDENCE)
        return a, slope * sign
    else:
        at = z + tl.cast(c, tl.int64) * stride_c + v * stride_v
        return alpha(tl.load(at, mask=inside, other=0.0).to(tl.float32), EVIDENCE)


@triton.jit
def alphas_of(z, v, inside, stride_c, stride_v, C: tl.constexpr, EVIDENCE: tl.constexpr, REGIONS: tl.constexpr):
    """alpha and d alpha / d z of every class where they are kept, else nothing."""
    alphas, slopes = (), ()
    if C <= KEPT:
        for c in tl.static_range(C):
            a, slope = alpha_of(z, c, v, inside, stride_c, stride_v, EVIDENCE, REGIONS)
            alphas, slopes = alphas + (a,), slopes + (slope,)  # type: ignore[assignment]
    return alphas, slopes


@triton.jit
def labels_of(target, at, inside, ignore, C: tl.constexpr):
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
def far_of(squared, at, label, inside, far_above):
    counts = label >= 0
    return counts & (tl.load(squared + at, mask=inside, other=0).to(tl.int32) > far_above)


@triton.jit
def add_alpha(total, other, own, a, mine):
    return total + a, other + tl.where(mine, 1.0, a), tl.where(mine, a, own)
