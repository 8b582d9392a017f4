"""Overlap and surface distance per image and class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks
from ..ops.segmentation_stats import SegmentationStats
from ..ops.surface_distances import surface_distances
from ._inputs import Array, classes, counted, counts_of, label_maps
from ._inputs import spacing_mm as checked_spacing
from ._options import options
from .accumulator import CaseMetric, PerClass
from .stats import class_counts
from .surface_elements import element_distances, percentile_by_size

distance_mm = partial(_checks.positive, zero=True)
WEIGHTINGS = ("voxels", "surface")
check_weighting = partial(_checks.choice, allowed=WEIGHTINGS)
HAUSDORFF_PERCENT = 95.0


@options(num_classes=classes, ignore_index=_checks.index)
def compute_dice(prediction: Array, target: Array, num_classes: int, *, ignore_index: int | None = None) -> PerClass:
    r"""Dice per image and foreground class.

    Math:
        2 |P ∩ T| / (|P| + |T|). Both empty: 1, and flagged; one empty: 0.

    Args:
        prediction, target: integer labels, [N, \*S] or [N, 1, \*S]. num_classes: C, background 0 included.
        ignore_index: voxels of this target count in neither.

    Returns:
        PerClass(values, absent): Dice float64 [N, C-1] of classes 1 … C-1, and bool [N, C-1].

    Raises:
        TypeError, ValueError: not labels (one map per class is none), different shapes, labels outside [0, C), or fewer
            than two classes.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_dice
        >>> compute_dice(torch.tensor([[[1, 1, 0]]]), torch.tensor([[[1, 0, 0]]]), 2).values
        tensor([[0.6667]], dtype=torch.float64)
    """
    return _dice(*_sizes(prediction, target, num_classes, ignore_index))


@options(num_classes=classes, ignore_index=_checks.index)
def compute_iou(prediction: Array, target: Array, num_classes: int, *, ignore_index: int | None = None) -> PerClass:
    r"""Intersection over union (Jaccard index) per image and foreground class.

    Math:
        |P ∩ T| / |P ∪ T|. Both empty: 1, and flagged; one empty: 0.

    Args, Returns, Raises: as of `compute_dice`.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_iou
        >>> compute_iou(torch.tensor([[[1, 1, 0]]]), torch.tensor([[[1, 0, 0]]]), 2).values
        tensor([[0.5000]], dtype=torch.float64)
    """
    return _iou(*_sizes(prediction, target, num_classes, ignore_index))


def dice_of_stats(stats: SegmentationStats) -> PerClass:
    """What `compute_dice` returns, from `sure_fast.segmentation_stats`."""
    return _dice(*_overlap(counts_of(stats).confusion))


def iou_of_stats(stats: SegmentationStats) -> PerClass:
    """What `compute_iou` returns, from `sure_fast.segmentation_stats`."""
    return _iou(*_overlap(counts_of(stats).confusion))


def _overlap(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """|P ∩ T| and |P| + |T| of the foreground classes, float64."""
    both = confusion.diagonal(dim1=1, dim2=2)[:, 1:].double()
    return both, (confusion.sum(1) + confusion.sum(2))[:, 1:].double()


def _sizes(prediction: Array, target: Array, num_classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """As `_overlap`, of label maps."""
    p, t = label_maps(prediction, target, num_classes, ignore_index)
    both, *sizes = class_counts(p, t, num_classes, ignore_index)
    return both[:, 1:].double(), (sizes[0] + sizes[1])[:, 1:].double()


def _dice(both: Tensor, sizes: Tensor) -> PerClass:
    absent = sizes == 0
    return PerClass((2.0 * both / sizes).masked_fill(absent, 1.0), absent)


def _iou(both: Tensor, sizes: Tensor) -> PerClass:
    absent = sizes == 0
    return PerClass((both / (sizes - both)).masked_fill(absent, 1.0), absent)


class SurfaceMetrics(NamedTuple):
    """Per image and foreground class, [N, C - 1]."""

    hd95_mm: Tensor
    assd_mm: Tensor
    nsd: Tensor
    """Share of both surfaces within the tolerance of the other."""
    absent: Tensor
    """bool: in neither label nor prediction."""


@options(num_classes=classes, spacing_mm=checked_spacing, tolerance_mm=distance_mm,
         weighting=check_weighting, ignore_index=_checks.index)  # fmt: skip
def compute_surface_metrics(
    prediction: Array,
    target: Array,
    num_classes: int,
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float = 1.0,
    weighting: str = "voxels",
    ignore_index: int | None = None,
) -> SurfaceMetrics:
    r"""95th percentile of the Hausdorff distance, average symmetric surface distance, surface Dice at a tolerance.

    Math:
        As of `sure_fast.surface_distances`, which computes all of them at once: every surface voxel counts as one, and
        distances are those between centers of voxels. With "surface" the surfaces are those that marching cubes lays
        between the voxels, and each of their elements counts by its length or area (Nikolov et al., arXiv 1809.04430).

    Args:
        prediction, target: integer labels, [N, \*S] or [N, 1, \*S]. num_classes: C. spacing_mm: voxel size per axis.
        tolerance_mm: of NSD. weighting: what a surface counts by, "voxels" or "surface", which is in plain PyTorch.
        ignore_index: voxels of this target are background in both.

    Returns:
        SurfaceMetrics(hd95_mm, assd_mm, nsd, absent), float64. Both empty: 0, 0 and 1, and flagged; one empty: the
        diagonal of the image, the largest distance it holds, and 0.

    Raises:
        TypeError, ValueError: as `compute_dice`, or another number of spacings than axes.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_surface_metrics
        >>> target = torch.zeros(1, 8, 8, dtype=torch.long)
        >>> target[:, 2:5, 2:5] = 1
        >>> compute_surface_metrics(target.roll(1, 1), target, 2, (1.5, 1.0)).hd95_mm
        tensor([[1.5000]], dtype=torch.float64)
    """
    p, t = label_maps(prediction, target, num_classes, ignore_index)
    if len(spacing_mm) == 3 and t.dim() == 3 and target.ndim == 4:  # a volume of one plane, read as a channel
        p, t = p[:, None], t[:, None]
    spacing_mm = checked_spacing("spacing_mm", spacing_mm, t.dim() - 1)
    if t.dim() == 4:  # with a channel axis a volume is neither a map per class nor planar
        p, t = p[:, None], t[:, None]
    if weighting == "voxels":
        surfaces = surface_distances(
            p, t, num_classes, spacing=spacing_mm, tolerance=tolerance_mm, ignore_index=ignore_index
        )
        hd95, assd, nsd, there = surfaces.percentile, surfaces.average, surfaces.within, surfaces.voxels > 0
    else:
        hd95, assd, nsd, there = _by_size(*_foreground(p, t, ignore_index), num_classes, spacing_mm, tolerance_mm)
    size = t.shape[-len(spacing_mm) :]
    missing, absent = ~there.all(-1), ~there.any(-1)
    diagonal = math.sqrt(sum((s * n) ** 2 for s, n in zip(spacing_mm, size, strict=True)))
    hd95, assd = (d.masked_fill(missing, diagonal).masked_fill(absent, 0.0) for d in (hd95, assd))
    return SurfaceMetrics(hd95, assd, nsd.masked_fill(missing, 0.0).masked_fill(absent, 1.0), absent)


def _foreground(prediction: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Both without the ignored voxels, and without a channel axis of volumes."""
    ignored = ~counted(target, ignore_index)
    p, t = prediction.masked_fill(ignored, 0), target.masked_fill(ignored, 0)
    return (p[:, 0], t[:, 0]) if t.dim() == 5 else (p, t)


def _by_size(
    prediction: Tensor, target: Tensor, num_classes: int, spacing_mm: Sequence[float], tolerance_mm: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Percentile, average and share within the tolerance, [N, C - 1], and which map has the class, [N, C - 1, 2]."""
    shape, tolerance = (len(target), num_classes - 1), _checks.reach("tolerance_mm", tolerance_mm)
    results = torch.full((*shape, 3), torch.nan, dtype=torch.float64, device=target.device)
    there = torch.zeros((*shape, 2), dtype=torch.bool, device=target.device)
    for n in range(shape[0]):
        for c in range(1, num_classes):
            masks = [_checks.equals(labels[n], c) for labels in (prediction, target)]
            there[n, c - 1] = torch.stack([mask.any() for mask in masks])
            if not bool(there[n, c - 1].all()):
                continue
            d_p, size_p, d_t, size_t = element_distances(masks[0], masks[1], spacing_mm)
            sides, whole = ((d_p, size_p), (d_t, size_t)), size_p.sum() + size_t.sum()
            results[n, c - 1, 0] = max(percentile_by_size(d, size, HAUSDORFF_PERCENT) for d, size in sides)
            results[n, c - 1, 1] = sum((d * size).sum() for d, size in sides) / whole
            results[n, c - 1, 2] = sum(size[d <= tolerance].sum() for d, size in sides) / whole
    hd95, assd, nsd = results.unbind(-1)
    return hd95, assd, nsd, there


@options(num_classes=classes, spacing_mm=checked_spacing, weighting=check_weighting, ignore_index=_checks.index)
def compute_hd95(
    prediction: Array,
    target: Array,
    num_classes: int,
    spacing_mm: Sequence[float],
    *,
    weighting: str = "voxels",
    ignore_index: int | None = None,
) -> PerClass:
    """95th percentile of the Hausdorff distance (mm); see `compute_surface_metrics`, which has all in one call."""
    surfaces = compute_surface_metrics(
        prediction, target, num_classes, spacing_mm, weighting=weighting, ignore_index=ignore_index
    )
    return PerClass(surfaces.hd95_mm, surfaces.absent)


@options(num_classes=classes, spacing_mm=checked_spacing, weighting=check_weighting, ignore_index=_checks.index)
def compute_assd(
    prediction: Array,
    target: Array,
    num_classes: int,
    spacing_mm: Sequence[float],
    *,
    weighting: str = "voxels",
    ignore_index: int | None = None,
) -> PerClass:
    """Average symmetric surface distance (mm); see `compute_surface_metrics`, which has all in one call."""
    surfaces = compute_surface_metrics(
        prediction, target, num_classes, spacing_mm, weighting=weighting, ignore_index=ignore_index
    )
    return PerClass(surfaces.assd_mm, surfaces.absent)


@options(num_classes=classes, spacing_mm=checked_spacing, tolerance_mm=distance_mm,
         weighting=check_weighting, ignore_index=_checks.index)  # fmt: skip
def compute_nsd(
    prediction: Array,
    target: Array,
    num_classes: int,
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float = 1.0,
    weighting: str = "voxels",
    ignore_index: int | None = None,
) -> PerClass:
    """Normalized surface Dice at a tolerance (mm); see `compute_surface_metrics`, which has all in one call."""
    surfaces = compute_surface_metrics(
        prediction, target, num_classes, spacing_mm, tolerance_mm=tolerance_mm, weighting=weighting,
        ignore_index=ignore_index,
    )  # fmt: skip
    return PerClass(surfaces.nsd, surfaces.absent)


class DiceMetric(CaseMetric):
    """Accumulates `compute_dice`."""

    function = staticmethod(compute_dice)


class IoUMetric(CaseMetric):
    """Accumulates `compute_iou`."""

    function = staticmethod(compute_iou)


class HD95Metric(CaseMetric):
    """Accumulates `compute_hd95`."""

    function = staticmethod(compute_hd95)


class ASSDMetric(CaseMetric):
    """Accumulates `compute_assd`."""

    function = staticmethod(compute_assd)


class NSDMetric(CaseMetric):
    """Accumulates `compute_nsd`."""

    function = staticmethod(compute_nsd)
