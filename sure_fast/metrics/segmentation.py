"""Overlap and surface distance per image and class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops.segmentation_stats import SegmentationStats
from ..ops.surface_distances import surface_distances


def compute_dice(
    prediction: Tensor, target: Tensor, num_classes: int, *, ignore_index: int | None = None
) -> tuple[Tensor, Tensor]:
    r"""Dice per image and foreground class.

    Math:
        2 |P ∩ T| / (|P| + |T|). Both empty: 1, and flagged; one empty: 0.

    Args:
        prediction, target: integer labels [N, \*S]. num_classes: C, background 0 included.
        ignore_index: voxels of this target count in neither.

    Returns:
        Dice float64 [N, C-1] of classes 1 … C-1, and bool [N, C-1]: absent from both.

    Raises:
        ValueError: different shapes, or fewer than two classes.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_dice
        >>> compute_dice(torch.tensor([[[1, 1, 0]]]), torch.tensor([[[1, 0, 0]]]), 2)[0]
        tensor([[0.6667]], dtype=torch.float64)
    """
    _check(prediction, target, num_classes)
    counts = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    hits, sizes = [], []
    for c in range(1, num_classes):
        p, t = ((labels == c).logical_and(counts).flatten(1) for labels in (prediction, target))
        hits.append((p & t).sum(1))
        sizes.append(p.sum(1) + t.sum(1))
    return _dice(torch.stack(hits, 1), torch.stack(sizes, 1))


def dice_of_stats(stats: SegmentationStats) -> tuple[Tensor, Tensor]:
    """What `compute_dice` returns, from `sure_fast.segmentation_stats`."""
    confusion = stats.confusion
    hits = confusion.diagonal(dim1=1, dim2=2)
    return _dice(hits[:, 1:], (confusion.sum(1) + confusion.sum(2))[:, 1:])


def _dice(hits: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    absent = sizes == 0
    return (2.0 * hits.double() / sizes).masked_fill(absent, 1.0), absent


def _check(prediction: Tensor, target: Tensor, num_classes: int) -> None:
    if prediction.shape != target.shape:
        raise ValueError(f"prediction: expected the shape of target {list(target.shape)}, got {list(prediction.shape)}")
    if num_classes < 2:
        raise ValueError(f"num_classes: expected at least 2, the background included, got {num_classes}")


class SurfaceMetrics(NamedTuple):
    """Per image and foreground class, [N, C - 1]."""

    hd95_mm: Tensor
    assd_mm: Tensor
    nsd: Tensor
    """Share of both surfaces within the tolerance of the other."""
    absent: Tensor
    """bool: in neither label nor prediction."""


def compute_surface_metrics(
    prediction: Tensor,
    target: Tensor,
    num_classes: int,
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float = 1.0,
    ignore_index: int | None = None,
) -> SurfaceMetrics:
    r"""95th percentile of the Hausdorff distance, average symmetric surface distance, surface Dice at a tolerance.

    Math:
        As of `sure_fast.surface_distances`, which computes all of them at once.

    Args:
        prediction, target: integer labels [N, \*S]. num_classes: C. spacing_mm: voxel size per axis.
        tolerance_mm: of NSD. ignore_index: voxels of this target are background in both.

    Returns:
        SurfaceMetrics(hd95_mm, assd_mm, nsd, absent), float64. Both empty: 0, 0 and 1, and flagged; one empty: the
        diagonal of the image, the largest distance it holds, and 0.

    Raises:
        ValueError: different shapes, fewer than two classes, or another number of spacings than axes.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_surface_metrics
        >>> target = torch.zeros(1, 8, 8, dtype=torch.long)
        >>> target[:, 2:5, 2:5] = 1
        >>> compute_surface_metrics(target.roll(1, 1), target, 2, (1.5, 1.0)).hd95_mm
        tensor([[1.5000]], dtype=torch.float64)
    """
    _check(prediction, target, num_classes)
    if len(spacing_mm) != prediction.dim() - 1:
        raise ValueError(f"spacing_mm: expected {prediction.dim() - 1} numbers, one per axis, got {list(spacing_mm)}")
    found = surface_distances(
        prediction, target, num_classes, spacing=spacing_mm, tolerance=tolerance_mm, ignore_index=ignore_index
    )
    there = found.voxels > 0
    missing, absent = ~there.all(-1), ~there.any(-1)
    diagonal = math.sqrt(sum((s * n) ** 2 for s, n in zip(spacing_mm, prediction.shape[1:], strict=True)))
    hd95, assd = (d.masked_fill(missing, diagonal).masked_fill(absent, 0.0) for d in (found.percentile, found.average))
    return SurfaceMetrics(hd95, assd, found.within.masked_fill(missing, 0.0).masked_fill(absent, 1.0), absent)
