"""Plain PyTorch surface distances."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan

import torch
from torch import Tensor

from .boundary_distance import nearest_along
from .labels import equals


def surface(mask: Tensor) -> Tensor:
    """Voxels of mask [*S] with a neighbour across a face that is not in it; outside of the image nothing is."""
    if mask.numel() == 0:
        return mask
    inside = mask.clone()
    for axis in range(mask.dim()):
        for shift in (1, -1):
            neighbour = mask.roll(shift, axis)
            neighbour.select(axis, 0 if shift == 1 else -1).fill_(False)
            inside &= neighbour
    return mask & ~inside


def surface_distances(
    prediction: Tensor,
    target: Tensor,
    num_classes: int,
    *,
    spacing: Sequence[float],
    percentile: float,
    tolerance: float,
    ignore_index: int | None,
) -> Tensor:
    """Records float64 [N, C - 1, 10]: surface voxels of prediction and target; then from prediction to target and back
    the largest distance, the percentile, the sum and the number within the tolerance."""
    if ignore_index is not None:
        ignored = equals(target, ignore_index)
        prediction, target = prediction.masked_fill(ignored, 0), target.masked_fill(ignored, 0)
    shape = (len(target), num_classes - 1, 10)
    records = torch.full(shape, nan, dtype=torch.float64, device=target.device)
    for n in range(shape[0]):
        for c in range(1, num_classes):
            surfaces = [surface(equals(labels[n], c)) for labels in (prediction, target)]
            records[n, c - 1, :2] = torch.stack([s.sum() for s in surfaces]).to(torch.float64)
            if not all(bool(s.any()) for s in surfaces):
                continue
            for side, mask in enumerate(surfaces):
                squared = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
                squared = squared.masked_fill(~surfaces[1 - side], inf)
                for axis, step in enumerate(spacing):
                    squared = nearest_along(squared, axis, step)
                distance = squared[mask].sqrt()
                parts = [distance.max(), torch.quantile(distance, percentile / 100), distance.sum()]
                parts.append((distance <= tolerance * (1 + 1e-6)).sum().to(torch.float64))
                records[n, c - 1, 2 + 4 * side : 6 + 4 * side] = torch.stack(parts)
    return records
