"""Plain PyTorch evidential loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .dirichlet_uncertainty import dirichlet_uncertainty, widen
from .dirichlet_uncertainty import evidence as evidence_of
from .labels import counted


class EvidentialTerms(NamedTuple):
    """The terms, each a 0-dim float64 tensor, and what they are of every voxel."""

    data: Tensor
    kl: Tensor
    dice: Tensor
    data_map: Tensor
    """Data term of each voxel times its weight, 0 where it does not count: [N, *S], or of regions [N, R, *S]."""
    kl_map: Tensor
    uncertainty: Tensor | None
    """u [N, 1, *S], or of regions [N, R, *S], where it was asked for."""


class Voxels(NamedTuple):
    """One distribution per voxel against its label."""

    p: Tensor
    """[N, C, *S]."""
    y: Tensor
    """One-hot label, bool [N, C, *S]."""
    counts: Tensor
    """bool [N, *S]."""
    data: Tensor
    """[N, *S], as are the next; anything where the voxel does not count."""
    kl: Tensor


def evidential_loss(
    logits: Tensor,
    target: Tensor,
    *,
    kind: str = "digamma",
    evidence: str = "exp",
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    regions: bool = False,
    return_uncertainty: bool = False,
    add_up: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> EvidentialTerms:
    """docs/method.md, "Evidential segmentation loss"; Sensoy et al., arXiv 1806.01768.

    `class_weights` are those of the regions where the channels are regions; `add_up` makes sums over the voxels those
    of several processes.
    """
    z = widen(logits)
    weights = torch.ones(z.shape[1], dtype=torch.float64, device=z.device) if class_weights is None else class_weights
    if regions:
        alpha = torch.stack([evidence_of(-z, evidence), evidence_of(z, evidence)], 2) + 1.0
        parts = [_voxels(alpha[:, r], target[:, r], kind, ignore_index) for r in range(z.shape[1])]
        of_voxel = [weight.to(z.dtype).expand(part.counts.shape) for weight, part in zip(weights, parts, strict=True)]
    else:
        parts = [_voxels(evidence_of(z, evidence) + 1.0, target, kind, ignore_index)]
        of_voxel = [(weights.to(z.dtype).reshape(-1, *[1] * (z.dim() - 2)) * parts[0].y).sum(1)]
    data = [(part.data * weight).where(part.counts, 0.0) for part, weight in zip(parts, of_voxel, strict=True)]
    kl = [(part.kl * weight).where(part.counts, 0.0) for part, weight in zip(parts, of_voxel, strict=True)]
    counted_weight = [weight.where(part.counts, 0.0) for part, weight in zip(parts, of_voxel, strict=True)]
    overlaps = torch.cat([_overlap(part)[:, 1:] if regions else _overlap(part) for part in parts], 1)
    means = torch.stack([sum(x.sum(dtype=torch.float64) for x in maps) for maps in (data, kl, counted_weight)])
    means, overlaps = add_up(torch.cat([means, overlaps.flatten()])).split([3, overlaps.numel()])
    seen = means[2] > 0
    mean_data, mean_kl = means[:2] / means[2].where(seen, 1.0)
    dice = (_dice(*overlaps.unflatten(0, (3, -1))) * weights).sum() / weights.sum()
    return EvidentialTerms(
        mean_data,
        mean_kl,
        dice.where(seen, 0.0),
        torch.stack(data, 1) if regions else data[0],
        torch.stack(kl, 1) if regions else kl[0],
        dirichlet_uncertainty(logits, evidence=evidence, regions=regions) if return_uncertainty else None,
    )


def _voxels(alpha: Tensor, target: Tensor, kind: str, ignore_index: int | None) -> Voxels:
    """Of alpha [N, C, *S] and labels [N, *S]."""
    target = target.to(torch.int64)
    counts = counted(target, ignore_index)
    y = torch.zeros_like(alpha, dtype=torch.bool).scatter_(1, target.where(counts, 0).unsqueeze(1), True)
    total = _finite_sum(alpha)
    p = alpha / total
    if kind == "digamma":
        data = ((torch.digamma(total) - torch.digamma(alpha)) * y).sum(1)
    elif kind == "log":
        data = ((total.log() - alpha.log()) * y).sum(1)
    else:
        data = ((y.to(p.dtype) - p) ** 2).sum(1) + (p * (1 - p) / (total + 1)).sum(1)
    other = torch.where(y, 1.0, alpha)
    other_total = _finite_sum(other)
    kl = (
        torch.lgamma(other_total).squeeze(1)
        - torch.lgamma(other).sum(1)
        - math.lgamma(alpha.shape[1])
        + ((other - 1) * (torch.digamma(other) - torch.digamma(other_total))).sum(1)
    )
    return Voxels(p, y, counts, data, kl)


def _finite_sum(alpha: Tensor) -> Tensor:
    """Over the classes [N, 1, *S]; beyond what the dtype holds NaN."""
    total = alpha.sum(1, keepdim=True)
    return total + total.detach() * 0.0


def _overlap(voxels: Voxels) -> Tensor:
    """TP = Σ p y', FP = Σ p (1 - y') and FN = Σ (1 - p) y' of each class over the voxels that count, [3, C] float64."""
    p, soft, seen = voxels.p, voxels.y.to(voxels.p.dtype) + 1e-3, voxels.counts.unsqueeze(1)
    over_voxels = [0, *range(2, p.dim())]
    products = (p * soft, p * (1 - soft), (1 - p) * soft)
    return torch.stack([x.where(seen, 0.0).sum(over_voxels, dtype=torch.float64) for x in products])


def _dice(tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
    """1 - D of each class, errors weighted by their share: a = clamp(FP / (FP + FN + 1e-5), 0.2, 0.8)."""
    a = (fp / (fp + fn + 1e-5)).clamp(0.2, 0.8)
    return 1 - tp / (tp + a * fp + (1 - a) * fn + 1e-5)
