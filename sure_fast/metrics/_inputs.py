"""What the metrics take: tensors of any device, MONAI's MetaTensors, NumPy arrays."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from .. import _checks

Array: TypeAlias = Tensor | np.ndarray


def as_tensor(name: str, value: Array) -> Tensor:
    """A tensor; arrays of booleans and of unsigned types beyond uint8 become integers that torch can index with."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "u" and value.dtype.itemsize > 1:
            value = value.astype(np.int64)
        value = np.ascontiguousarray(value)  # torch knows no negative strides
        value = torch.from_numpy(value if value.flags.writeable else value.copy())
    tensor = _checks.tensor(name, value)
    return tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor


def label_maps(prediction: Array, target: Array, num_classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Checked label maps [N, *S] of one shape."""
    p = _checks.integer("prediction", as_tensor("prediction", prediction))
    t = _checks.integer("target", as_tensor("target", target))
    if p.shape != t.shape:
        raise ValueError(
            f"prediction: expected the shape of target {_checks.shape_text(t.shape)}, got {_checks.shape_text(p.shape)}"
        )
    _checks.same_device("prediction", p, "target", t)
    if num_classes < 2:
        raise ValueError(f"num_classes: expected at least 2, the background included, got {num_classes}")
    # metrics wait for the device anyway, and a wrong label would be counted as another's
    _checks.labels_in_range("prediction", p.cpu(), num_classes)
    _checks.labels_in_range("target", t.cpu(), num_classes, ignore_index)
    return p, t


def probability_maps(probabilities: Array, target: Array, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Checked probabilities [N, C, *S] and labels [N, *S]."""
    p = _checks.floating("probabilities", as_tensor("probabilities", probabilities))
    if p.dim() < 3 or p.shape[1] < 2:
        raise ValueError(
            f"probabilities: expected [N, C, *S] with at least 2 classes, got {_checks.shape_text(p.shape)}"
        )
    t = _checks.label("target", as_tensor("target", target), p, "probabilities")
    _checks.labels_in_range("target", t.cpu(), p.shape[1], ignore_index)
    return p.detach(), t


def counted(target: Tensor, ignore_index: int | None) -> Tensor:
    """bool, of the target's shape: the voxels that count."""
    return torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
