"""Plain PyTorch boundary distance: min != max of the neighbourhood, then one exact minimum per axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import torch
from torch import Tensor
from torch.nn import functional

from .labels import equals

SLACK = 1 + 1e-6
"""A distance in float32 that was meant to be equal to a limit is within it."""
# One axis pass without `max_distance` builds [lines, length, length]; this bounds its number of elements.
_CHUNK = 1 << 24


def boundary_mask(label: Tensor, ignore_index: int | None = None) -> Tensor:
    """Boundary voxels of label [N, *S], bool [N, *S]."""
    low, high = label.to(torch.int64), label.to(torch.int64)
    if ignore_index is not None:
        ignored = equals(label, ignore_index)
        low = low.masked_fill(ignored, torch.iinfo(torch.int64).max)
        high = high.masked_fill(ignored, torch.iinfo(torch.int64).min)
    for axis in range(1, label.dim()):
        low = _neighbours(low, axis, torch.minimum)
        high = _neighbours(high, axis, torch.maximum)
    boundary = low < high
    return boundary if ignore_index is None else boundary & ~ignored


def _neighbours(values: Tensor, axis: int, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Minimum or maximum of each voxel and its two neighbours along an axis."""
    size = values.shape[axis]
    if size < 2:
        return values
    before = torch.cat([values.narrow(axis, 0, 1), values.narrow(axis, 0, size - 1)], axis)
    after = torch.cat([values.narrow(axis, 1, size - 1), values.narrow(axis, size - 1, 1)], axis)
    return combine(values, combine(before, after))


def boundary_distance(
    label: Tensor,
    *,
    spacing: Sequence[float] | None = None,
    max_distance: float | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """d_i = min_j in B sqrt(Σ_a s_a² (i_a − j_a)²); docs/method.md, "Distance to the label boundary"."""
    boundary = boundary_mask(label, ignore_index)
    squared = torch.zeros(label.shape, dtype=torch.float64, device=label.device).masked_fill(~boundary, inf)
    for axis in range(1, label.dim()):
        step = 1.0 if spacing is None else spacing[axis - 1]
        reach = label.shape[axis] - 1
        if max_distance is not None:
            reach = min(reach, int(max_distance / step * SLACK))
        squared = (
            _window(squared, axis, step, reach) if max_distance is not None else nearest_along(squared, axis, step)
        )
    distance = squared.sqrt().to(torch.float32)
    if max_distance is not None:
        distance = distance.masked_fill(squared > (max_distance * SLACK) ** 2, inf)
    return distance


def _window(squared: Tensor, axis: int, step: float, reach: int) -> Tensor:
    """min over |k| <= reach of squared[i + k] + (k step)²."""
    if reach <= 0 or squared.numel() == 0:
        return squared
    size = squared.shape[axis]
    pad = [0, 0] * (squared.dim() - 1 - axis) + [reach, reach]
    padded = functional.pad(squared, pad, value=inf)
    nearest = squared
    for k in range(1, reach + 1):
        for start in (reach - k, reach + k):
            nearest = torch.minimum(nearest, padded.narrow(axis, start, size) + (k * step) ** 2)
    return nearest


def nearest_along(squared: Tensor, axis: int, step: float) -> Tensor:
    """min over all j of squared[j] + ((i - j) step)², line by line."""
    size = squared.shape[axis]
    if size < 2 or squared.numel() == 0:
        return squared
    position = torch.arange(size, dtype=squared.dtype, device=squared.device) * step
    cost = (position[:, None] - position[None, :]) ** 2
    lines = squared.movedim(axis, -1).reshape(-1, size)
    parts = [(part[:, None, :] + cost).amin(-1) for part in lines.split(max(1, _CHUNK // size**2))]
    return torch.cat(parts).reshape(squared.movedim(axis, -1).shape).movedim(-1, axis)
