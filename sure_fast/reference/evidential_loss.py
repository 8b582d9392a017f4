"""Plain PyTorch evidential loss: the sums over voxels, and what the loss makes of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks
from .._distributed import summed
from .dirichlet_uncertainty import evidence as evidence_of
from .dirichlet_uncertainty import widen

_SHIFT = 1e-3  # Dice counts y + 1e-3 and divides with 1e-5 added
_EPS = 1e-5


class EvidentialSums(NamedTuple):
    """What every term follows from."""

    sums: Tensor
    """[Σ data, Σ KL, Σ_i p_ic (C), Σ_i p_ic y_ic (C), Σ_i y_ic (C)] float64 over the voxels that count: [1, 2 + 3C], or
    for regions [R, 8], of which each is two classes."""
    data: Tensor
    """Data term of each voxel, weighted by its class, 0 where it does not count: [N, *S], or [N, R, *S]."""
    kl: Tensor


def evidential_loss(
    logits: Tensor,
    target: Tensor,
    *,
    kind: str = "digamma",
    evidence: str = "softplus",
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    regions: bool = False,
) -> EvidentialSums:
    """docs/method.md, "Evidential segmentation loss"; Sensoy et al., arXiv 1806.01768."""
    z = widen(logits)
    if not regions:
        alpha = evidence_of(z, evidence) + 1.0
        return _sums(alpha, target, kind, ignore_index, class_weights)
    alpha = torch.stack([evidence_of(-z, evidence), evidence_of(z, evidence)], 2) + 1.0
    parts = [_sums(alpha[:, r], target[:, r], kind, ignore_index, None) for r in range(z.shape[1])]
    return EvidentialSums(
        torch.cat([part.sums for part in parts]),
        torch.stack([part.data for part in parts], 1),
        torch.stack([part.kl for part in parts], 1),
    )


def _sums(
    alpha: Tensor, target: Tensor, kind: str, ignore_index: int | None, class_weights: Tensor | None
) -> EvidentialSums:
    classes = alpha.shape[1]
    target = target.to(torch.int64)
    counts = _checks.counted(target, ignore_index)
    target = target.where(counts, 0)
    y = torch.zeros_like(alpha, dtype=torch.bool).scatter_(1, target.unsqueeze(1), True)
    total = alpha.sum(1, keepdim=True)
    p = alpha / total
    if kind == "digamma":
        data = ((torch.digamma(total) - torch.digamma(alpha)) * y).sum(1)
    elif kind == "log":
        data = ((total.log() - alpha.log()) * y).sum(1)
    else:
        data = ((y.to(p.dtype) - p) ** 2).sum(1) + (p * (1 - p) / (total + 1)).sum(1)
    other = torch.where(y, 1.0, alpha)
    other_total = other.sum(1, keepdim=True)
    kl = (
        torch.lgamma(other_total).squeeze(1)
        - torch.lgamma(other).sum(1)
        - math.lgamma(classes)
        + ((other - 1) * (torch.digamma(other) - torch.digamma(other_total))).sum(1)
    )
    voxels = [0, *range(2, alpha.dim())]
    seen = counts.unsqueeze(1)
    zero = torch.zeros((), dtype=p.dtype, device=p.device)
    if class_weights is not None:
        weight = class_weights.to(p)[target]
        data, kl = data * weight, kl * weight
    data, kl = data.where(counts, zero), kl.where(counts, zero)
    parts = [
        data.sum(dtype=torch.float64)[None],
        kl.sum(dtype=torch.float64)[None],
        p.where(seen, zero).sum(voxels, dtype=torch.float64),
        p.where(seen & y, zero).sum(voxels, dtype=torch.float64),
        (seen & y).sum(voxels).to(torch.float64),
    ]
    return EvidentialSums(torch.cat(parts)[None], data, kl)


def terms_of_sums(
    sums: Tensor, weights: Tensor | None = None, *, regions: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean data term, mean KL term and Dice term from `EvidentialSums.sums`; all 0 when no voxel counts.

    Dice: y' = y + 1e-3, TP = Σ p y', FP = Σ p (1 - y'), FN = Σ (1 - p) y', a = clamp(FP / (FP + FN + 1e-5), 0.2, 0.8),
    mean_c (1 - TP / (TP + a FP + (1 - a) FN + 1e-5)), of regions their presence alone. The weights of the classes, or
    of the regions, weight all three means. Within `across_ranks` the sums are those of all ranks.
    """
    sums = summed(sums)
    p, hit, y = sums[:, 2:].unflatten(1, (3, -1)).unbind(1)
    voxels = y.sum(1, keepdim=True)
    tp = hit + _SHIFT * p
    fp = p - tp
    fn = y + _SHIFT * voxels - tp
    a = (fp / (fp + fn + _EPS)).clamp(0.2, 0.8)
    dice = 1 - tp / (tp + a * fp + (1 - a) * fn + _EPS)
    dice, number = (dice[:, 1], voxels[:, 0]) if regions else (dice[0], y[0])
    weight = torch.ones_like(dice) if weights is None else weights.to(dice)
    scale = (weight * number).sum()
    seen = scale > 0
    means = (weight[:, None] * sums[:, :2]).sum(0) if regions else sums[0, :2]
    means = means / scale.where(seen, 1.0)
    dice = (weight * dice).sum() / weight.sum()
    return means[0], means[1], dice.where(seen, 0.0)
