"""What the metrics take: tensors of any device, MONAI's MetaTensors, NumPy arrays; maps [N, *S] or [N, 1, *S]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .. import _checks
from ..ops.segmentation_stats import SegmentationStats

Array: TypeAlias = Tensor | np.ndarray

SUM_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""How far the sum of a voxel's probabilities may be from 1: what rounding, averaging and resampling leave."""


def as_tensor(name: str, value: Array) -> Tensor:
    """A tensor; arrays of booleans and of unsigned types beyond uint8 become integers that torch can index with."""
    tensor = _checks.tensor(name, _of_array(name, value) if isinstance(value, np.ndarray) else value)
    return tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor


def _of_array(name: str, array: np.ndarray) -> Tensor:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "biuf":
        raise TypeError(f"{name}: expected an array of numbers, got {array.dtype}")
    if kind == "f" and size > 8:
        raise TypeError(f"{name}: expected numbers of at most 64 bits, got {array.dtype}")
    if kind == "u" and size > 1:
        most = min(np.iinfo(array.dtype).max, np.iinfo(np.int64).max)  # a larger label stays one that is none
        array = np.minimum(array, array.dtype.type(most)).astype(np.int64)
    # torch knows neither negative strides nor other byte orders
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def one_channel(value: Tensor) -> Tensor:
    """[N, *S] of [N, 1, *S]."""
    return value.squeeze(1) if value.dim() > 2 and value.shape[1] == 1 else value


def _voxels(value: Tensor) -> list[int]:
    return [value.shape[0], *(n for n in value.shape[1:] if n != 1)]


def like(name: str, value: Tensor, other_name: str, other: Tensor) -> Tensor:
    """Of the shape of `other`, the same voxels; an axis of one, such as a channel's, may be left out of either."""
    if value.shape != other.shape:
        if _voxels(value) != _voxels(other):
            raise ValueError(
                f"{name}: expected the shape of {other_name} {_checks.shape_text(other.shape)}, with or without a "
                f"channel axis of 1, got {_checks.shape_text(value.shape)}"
            )
        value = value.reshape(other.shape)
    _checks.same_device(name, value, other_name, other)
    return value


def maps(first: str, value: Array, **others: Array) -> list[Tensor]:
    """Floating maps of one shape, [N, *S] as the first without a channel axis."""
    base = one_channel(_map(first, value))
    return [base] + [like(name, _map(name, v), first, base) for name, v in others.items()]


def _map(name: str, value: Array) -> Tensor:
    t = _checks.floating(name, as_tensor(name, value)).detach()
    if t.dim() < 2:
        raise ValueError(f"{name}: expected [N, *S] or [N, 1, *S], got {_checks.shape_text(t.shape)}")
    return t


def map_beside(name: str, value: Array, target: Tensor) -> Tensor:
    """A floating map as [N, *S] beside labels [N, *S]."""
    return like(name, _map(name, value), "target", target)


def mask_of(mask: Array | None, other_name: str, other: Tensor) -> Tensor:
    """bool, of the shape of a map [N, *S]: the voxels that count; None: all."""
    if mask is None:
        return torch.ones_like(other, dtype=torch.bool)
    given = as_tensor("mask", mask)
    if given.dtype not in _checks.INTEGERS:
        raise TypeError(f"mask: expected booleans, got {given.dtype}")
    return like("mask", given != 0, other_name, other)


def label_map(name: str, value: Array) -> Tensor:
    """Integer labels as [N, *S] of [N, *S] or [N, 1, *S]; one map per class is refused."""
    t = _checks.whole(name, as_tensor(name, value))
    if t.dim() == 5 and t.shape[1] != 1:
        raise ValueError(
            f"{name}: expected labels [N, *S] or [N, 1, *S], got {_checks.shape_text(t.shape)}; "
            "use .argmax(1) on one map per class"
        )
    if not 2 <= t.dim() <= 5:
        raise ValueError(f"{name}: expected labels [N, *S] or [N, 1, *S], got {_checks.shape_text(t.shape)}")
    if t.dim() == 4 and t.shape[1] > 1:
        _checks.not_one_hot(name, t.cpu())
    return one_channel(t) if t.dim() > 3 else t


def label_maps(prediction: Array, target: Array, num_classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Checked label maps [N, *S] of one shape."""
    classes("num_classes", num_classes)
    _checks.index("ignore_index", ignore_index)
    p, t = label_map("prediction", prediction), label_map("target", target)
    if p.shape != t.shape:
        raise ValueError(
            f"prediction: expected the shape of target {_checks.shape_text(t.shape)}, got {_checks.shape_text(p.shape)}"
        )
    _checks.same_device("prediction", p, "target", t)
    # metrics wait for the device anyway, and a wrong label would be counted as another's
    _checks.labels_in_range("prediction", p.cpu(), num_classes)
    _checks.labels_in_range("target", t.cpu(), num_classes, ignore_index)
    return p, t


def probability_maps(probabilities: Array, target: Array, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Checked probabilities [N, C, *S] and labels [N, *S]; those of voxels that do not count may be anything."""
    _checks.index("ignore_index", ignore_index)
    p = _checks.floating("probabilities", as_tensor("probabilities", probabilities)).detach()
    if p.dim() < 3 or p.shape[1] < 2:
        raise ValueError(
            f"probabilities: expected [N, C, *S] with at least 2 classes, got {_checks.shape_text(p.shape)}"
        )
    t = _checks.label("target", as_tensor("target", target), p, "probabilities")
    _checks.labels_in_range("target", t.cpu(), p.shape[1], ignore_index)
    counts = counted(t, ignore_index)
    slack = SUM_TOLERANCE[p.dtype]
    among = p.movedim(1, -1)[counts]
    if bool(among.isnan().any()):
        raise ValueError("probabilities: expected numbers in [0, 1], got NaN")
    if among.numel() and not (float(among.amin()) >= -slack and float(among.amax()) <= 1.0 + slack):
        raise ValueError(
            f"probabilities: expected numbers in [0, 1], got {float(among.amin()):.4g} to {float(among.amax()):.4g}; "
            "logits become probabilities by softmax, evidence by α / A"
        )
    off = (among.sum(-1, dtype=torch.float64) - 1.0).abs()
    if off.numel() and float(off.amax()) > slack:
        raise ValueError(
            f"probabilities: expected them to sum to 1 over the classes, got a sum that is {float(off.amax()):.4g} off"
        )
    return p, t


def uncertainty_map(value: Array, target: Tensor, counts: Tensor) -> Tensor:
    """u [N, *S] beside labels [N, *S], in [0, 1] where it counts, or NaN."""
    u = map_beside("uncertainty", value, target)
    among = u[counts & ~u.isnan()]
    if among.numel() and not (float(among.amin()) >= 0.0 and float(among.amax()) <= 1.0 + SUM_TOLERANCE[u.dtype]):
        raise ValueError(
            f"uncertainty: expected numbers in [0, 1], got {float(among.amin()):.4g} to {float(among.amax()):.4g}; "
            "an entropy is divided by ln C"
        )
    return u


def counted(target: Tensor, ignore_index: int | None) -> Tensor:
    """bool, of the target's shape: the voxels that count."""
    return _checks.counted(target, ignore_index)


def counts_of(stats: object) -> SegmentationStats:
    if not isinstance(stats, SegmentationStats):
        raise TypeError(f"stats: expected SegmentationStats, got {type(stats).__name__}")
    return stats


def classes(name: str, value: int) -> int:
    number = _checks.table_size(name, value, least=0)
    if number < 2:
        raise ValueError(f"{name}: expected at least 2, the background included, got {value}")
    return number


def rising_levels(name: str, value: Any) -> tuple[float, float]:
    """Two noise levels, the weaker first."""
    levels = _checks.numbers(name, value, "two numbers, the weaker noise level first")
    if len(levels) != 2 or not -float("inf") < levels[0] < levels[1] < float("inf"):
        raise ValueError(f"{name}: expected the weaker noise level first, of two, got {value}")
    return float(levels[0]), float(levels[1])


def spacing_mm(name: str, value: Sequence[float], dims: int | None = None) -> list[float]:
    """One number > 0 for each axis; `dims` None: of an image whose axes are not known yet."""
    what = f"{'2 or 3' if dims is None else dims} numbers > 0, one per axis"
    steps = [float(s) for s in _checks.numbers(name, value, what)]
    if len(steps) not in ((2, 3) if dims is None else (dims,)) or not all(0.0 < s < float("inf") for s in steps):
        raise ValueError(f"{name}: expected {what}, got {steps}")
    return steps
