"""One exact pass of a squared distance along an axis, in plain PyTorch on any device."""

from __future__ import annotations

import torch
from torch import Tensor

TABLE = 1 << 24
"""Elements of the table of all pairs along some lines, at the most."""


def nearest_along(squared: Tensor, axis: int, step: float = 1.0) -> Tensor:
    """min over j of squared[j] + ((i - j) step)² for every line along the axis: the lower envelope of parabolas."""
    size = squared.shape[axis]
    if squared.numel() == 0:
        return squared
    position = torch.arange(size, dtype=squared.dtype, device=squared.device) * step
    cost = (position[:, None] - position[None, :]) ** 2
    lines = squared.movedim(axis, -1)
    parts = [(part[:, None, :] + cost).amin(-1) for part in lines.reshape(-1, size).split(max(1, TABLE // size**2))]
    return torch.cat(parts).reshape(lines.shape).movedim(-1, axis)
