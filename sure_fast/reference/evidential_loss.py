"""Plain PyTorch evidential loss: the sums over voxels, and what the loss makes of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .dirichlet_uncertainty import evidence as evidence_of
from .dirichlet_uncertainty import widen

_SHIFT = 1e-3  # Dice counts y + 1e-3 and divides with 1e-5 added
_EPS = 1e-5


def evidential_loss(
    logits: Tensor,
    target: Tensor,
    *,
    kind: str = "digamma",
    evidence: str = "softplus",
    ignore_index: int | None = None,
) -> Tensor:
    """[Σ data, Σ KL, Σ_i p_ic (C), Σ_i p_ic y_ic (C), Σ_i y_ic (C)] float64 over the voxels that count.

    docs/method.md, "Evidential segmentation loss"; Sensoy et al., arXiv 1806.01768.
    """
    classes = logits.shape[1]
    target = target.to(torch.int64)
    counts = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    y = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, target.where(counts, 0).unsqueeze(1), True)
    alpha = evidence_of(widen(logits), evidence) + 1.0
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
    voxels = [0, *range(2, logits.dim())]
    seen = counts.unsqueeze(1)
    zero = torch.zeros((), dtype=p.dtype, device=p.device)
    parts = [
        data.where(counts, zero).sum(dtype=torch.float64)[None],
        kl.where(counts, zero).sum(dtype=torch.float64)[None],
        p.where(seen, zero).sum(voxels, dtype=torch.float64),
        p.where(seen & y, zero).sum(voxels, dtype=torch.float64),
        (seen & y).sum(voxels).to(torch.float64),
    ]
    return torch.cat(parts)


def terms_of_sums(sums: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean data term, mean KL term and Dice term from the sums; all 0 when no voxel counts.

    Dice: y' = y + 1e-3, TP = Σ p y', FP = Σ p (1 - y'), FN = Σ (1 - p) y', a = clamp(FP / (FP + FN + 1e-5), 0.2, 0.8),
    mean_c (1 - TP / (TP + a FP + (1 - a) FN + 1e-5)).
    """
    p, hit, y = sums[2:].reshape(3, classes)
    voxels = y.sum()
    present = voxels > 0
    tp = hit + _SHIFT * p
    fp = p - tp
    fn = y + _SHIFT * voxels - tp
    a = (fp / (fp + fn + _EPS)).clamp(0.2, 0.8)
    dice = (1 - tp / (tp + a * fp + (1 - a) * fn + _EPS)).mean()
    means = sums[:2] / voxels.clamp(min=1)
    return means[0], means[1], torch.where(present, dice, torch.zeros_like(dice))
