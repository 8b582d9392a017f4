"""Comparisons of labels of any integer type."""

from __future__ import annotations

import torch
from torch import Tensor


def equals(value: Tensor, number: int) -> Tensor:
    """value == number; PyTorch would wrap a number that the type cannot hold: uint8 255 == -1."""
    return value.to(torch.int64) == number


def counted(value: Tensor, ignore_index: int | None) -> Tensor:
    """bool: the labels that are not ignored."""
    return torch.ones_like(value, dtype=torch.bool) if ignore_index is None else ~equals(value, ignore_index)
