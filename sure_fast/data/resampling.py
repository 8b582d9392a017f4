"""Bringing images and labels to another grid, and what a network says of them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from sure_fast.data.cases import DatasetInfo

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
OUTSIDE = 1e3
"""Logit of the background, and its opposite of the other classes, where nothing is shown and no network was asked."""

Box = tuple[tuple[int, int], ...]
"""First voxel and the one behind the last, per axis."""


class Place(NamedTuple):
    """Where an image lies on the grid it is stored on."""

    spacing: tuple[float, ...]
    """Voxel size per axis; 1 of pictures."""
    box: Box | None = None
    """What of it is shown to the network; None: all."""


def target_size(shape: Sequence[int], spacing: Sequence[float], info: DatasetInfo) -> tuple[int, ...]:
    """Voxels per axis that an image [*S] has for the network; the number of its slices stays.

    Example:
        >>> from sure_fast.data import DatasetInfo
        >>> target_size((100, 100, 10), (1.5, 1.5, 10.0), DatasetInfo("folders", {}, 1, spacing=(1.0, 1.0, 5.0)))
        (150, 150, 20)
    """
    if info.resize is not None:
        in_plane = iter(info.resize)
        return tuple(n if axis == info.slice_axis else next(in_plane) for axis, n in enumerate(shape))
    if info.spacing is None:
        return tuple(shape)
    return tuple(
        n if axis == info.slice_axis else max(1, round(n * own / wanted))
        for axis, (n, own, wanted) in enumerate(zip(shape, spacing, info.spacing, strict=True))
    )


def resample(image: Tensor, size: Sequence[int]) -> Tensor:
    """Linear interpolation over the same field of view: [N, K, *S] -> [N, K, *size].

    Where an axis gets fewer voxels, an image of 2D is blurred before (torch's `antialias`).
    """
    if tuple(image.shape[2:]) == tuple(size):
        return image
    coarser = image.dim() == 4 and any(new < old for new, old in zip(size, image.shape[2:], strict=True))
    mode = LINEAR[image.dim() - 2]
    return functional.interpolate(image, tuple(size), mode=mode, align_corners=False, antialias=coarser)


def resample_label(label: Tensor, size: Sequence[int], num_classes: int, ignore_index: int | None) -> Tensor:
    """The class, or `ignore_index`, that has most of each new voxel: each linearly interpolated, [*S] -> [*size]."""
    if tuple(label.shape) == tuple(size):
        return label
    best = torch.full(tuple(size), -1.0)
    result = torch.zeros(tuple(size), dtype=label.dtype)
    values = [*range(num_classes), *([ignore_index] if ignore_index is not None else [])]
    for value in values:
        there = label == value
        if there.any():
            share = resample(there[None, None].float(), size)[0, 0]
            more = share > best
            best, result = torch.where(more, share, best), torch.where(more, value, result)
    return result


def box_of(image: Tensor) -> Box | None:
    """The smallest box with all voxels of [K, *S] that are not 0 in a channel; None where that is all, or nothing."""
    shown = (image != 0).any(0)
    if not shown.any():
        return None
    box = []
    for axis in range(shown.dim()):
        others = [k for k in range(shown.dim()) if k != axis]
        along = torch.nonzero(shown.amax(others) if others else shown).flatten()
        box.append((int(along[0]), int(along[-1]) + 1))
    return None if all((a, b) == (0, n) for (a, b), n in zip(box, shown.shape, strict=True)) else tuple(box)


def region(box: Box) -> tuple[Any, ...]:
    """The index of a box in [..., *S]."""
    return (..., *(slice(first, end) for first, end in box))


def inside(box: Box | None, array: Tensor) -> Tensor:
    """The part of [..., *S] in a box."""
    return array if box is None else array[region(box)]


def around(box: Box | None, shape: Sequence[int], logits: Tensor) -> Tensor:
    """Logits [N, C, *S] of a box in an image of `shape`, with background around."""
    if box is None:
        return logits
    whole = logits.new_full((*logits.shape[:2], *shape), -OUTSIDE)
    whole[:, 0] = OUTSIDE
    whole[region(box)] = logits
    return whole
