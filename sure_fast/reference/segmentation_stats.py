"""Plain PyTorch counts and histograms of a segmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from .dirichlet_uncertainty import evidence as evidence_of
from .dirichlet_uncertainty import widen
from .labels import counted


def segmentation_stats(
    logits: Tensor, target: Tensor, *, evidence: str, bins: int, levels: int, ignore_index: int | None
) -> tuple[Tensor, ...]:
    """(confusion, number, sum of p, hits, number by uncertainty, errors by uncertainty); see the op."""
    classes = logits.shape[1]
    alpha = evidence_of(widen(logits), evidence).flatten(2) + 1.0
    total = alpha.sum(1)
    y = target.flatten(1).to(torch.int64)
    counts = counted(y, ignore_index)
    y = y.where(counts, 0)
    best, prediction = _first_maximum(alpha)

    def histogram(index: Tensor, size: int, weight: Tensor) -> Tensor:
        out = torch.zeros((len(index), size), dtype=torch.float64, device=index.device)
        return out.scatter_add_(1, index, weight.to(torch.float64))

    confusion = histogram(y * classes + prediction, classes * classes, counts).reshape(-1, classes, classes)
    number, confidence, hits, errors = [], [], [], []
    level = torch.bucketize((torch.full_like(total, classes) / total).nan_to_num(0.0), _edges(total, levels))
    for c in range(classes + 1):
        p = (alpha[:, c] if c < classes else best) / total
        index = torch.bucketize(p.nan_to_num(0.0).contiguous(), _edges(p, bins), right=True)
        hit = (y == c) if c < classes else (y == prediction)
        wrong = (y == c) != (prediction == c) if c < classes else y != prediction
        number.append(histogram(index, bins, counts))
        confidence.append(histogram(index, bins, p.where(counts, 0.0)))
        hits.append(histogram(index, bins, hit & counts))
        errors.append(histogram(level, levels, wrong & counts))
    by_bin = (torch.stack(parts, 1) for parts in (number, confidence, hits))
    return (confusion, *by_bin, histogram(level, levels, counts), torch.stack(errors, 1))


def _edges(values: Tensor, bins: int) -> Tensor:
    """1/bins … (bins - 1)/bins in the dtype of the values."""
    return (torch.arange(1, bins, dtype=torch.float64, device=values.device) / bins).to(values.dtype)


def _first_maximum(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The largest along axis 1 and the index of the first one."""
    best, index = alpha[:, 0], torch.zeros_like(alpha[:, 0], dtype=torch.int64)
    for c in range(1, alpha.shape[1]):
        larger = alpha[:, c] > best
        best, index = torch.where(larger, alpha[:, c], best), index.masked_fill(larger, c)
    return best, index
