"""Does the uncertainty tell where the prediction is wrong, per image."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .. import _checks
from ..ops._calls import single_or_double
from ..ops.pair_concordance import pair_concordance
from ..ops.segmentation_stats import SegmentationStats
from ._inputs import Array, classes, counted, counts_of, label_maps, map_beside, uncertainty_map
from ._options import options
from .accumulator import CaseMetric
from .stats import level_of
from .ties import tie_mean

at_least_two = partial(_checks.table_size, least=2)


def _checked(
    uncertainty: Array,
    prediction: Array,
    target: Array,
    num_classes: int,
    ignore_index: int | None,
    bounded: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """u, prediction, target and what counts, each [N, n]; `bounded`: u has to be in [0, 1], not only in an order."""
    p, t = label_maps(prediction, target, num_classes, ignore_index)
    counts = counted(t, ignore_index)
    u = uncertainty_map(uncertainty, t, counts) if bounded else map_beside("uncertainty", uncertainty, t)
    return single_or_double(u.flatten(1)), p.flatten(1).long(), t.flatten(1).long(), counts.flatten(1)


@options(num_classes=classes, per_class=_checks.flag, levels=at_least_two, ignore_index=_checks.index)
def compute_ueo(
    uncertainty: Array,
    prediction: Array,
    target: Array,
    num_classes: int,
    *,
    per_class: bool = True,
    levels: int = 100,
    ignore_index: int | None = None,
) -> Tensor:
    r"""Uncertainty-error overlap per image.

    Math:
        :math:`\max_\tau 2 |E \cap \{u > \tau\}| / (|E| + |\{u > \tau\}|)`, τ = 1/levels … (levels − 1)/levels, E the
        voxels where prediction and target differ about a class, or at all (Jungo et al., MICCAI 2020).

    Args:
        uncertainty: u in [0, 1], [N, \*S] or [N, 1, \*S]. prediction, target: integer labels, [N, \*S] or
            [N, 1, \*S]. num_classes: C. per_class: one number a class, else one for errors of any kind.
            levels: how finely τ is tried.
        ignore_index: voxels of this target do not count.

    Returns:
        float64 [N, C], or [N] without `per_class`; NaN where there is no error to find, or a NaN in u.

    Raises:
        TypeError, ValueError: wrong types or shapes, labels outside [0, C), fewer than two levels, u outside [0, 1].

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_ueo
        >>> p, t = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 0, 0, 0]]])
        >>> compute_ueo(torch.tensor([[[0.1, 0.9, 0.1, 0.6]]]), p, t, 2, per_class=False)
        tensor([1.], dtype=torch.float64)
    """
    u, p, t, counts = _checked(uncertainty, prediction, target, num_classes, ignore_index, bounded=True)
    level = level_of(u, levels)
    wrong = [(p == c) != (t == c) for c in range(num_classes)] if per_class else [p != t]

    def histogram(of: Tensor) -> Tensor:
        out = torch.zeros((len(u), levels), dtype=torch.float64, device=u.device)
        return out.scatter_add_(1, level, (of & counts).double())

    result = _ueo(histogram(counts), torch.stack([histogram(w) for w in wrong], 1))
    result = result.masked_fill((u.isnan() & counts).any(1, keepdim=True), torch.nan)
    return result if per_class else result[:, 0]


def ueo_of_stats(stats: SegmentationStats, *, per_class: bool = True) -> Tensor:
    """What `compute_ueo` returns, from `sure_fast.segmentation_stats`, whose levels it takes."""
    stats, per_class = counts_of(stats), _checks.flag("per_class", per_class)
    spoiled = stats.confidence.isnan().flatten(1).any(1)
    result = _ueo(stats.uncertainty.double(), stats.errors.double()).masked_fill(spoiled[:, None], torch.nan)
    return result[:, :-1] if per_class else result[:, -1]


def _ueo(number: Tensor, errors: Tensor) -> Tensor:
    """Of the histograms [N, levels] of all voxels and [N, K, levels] of the wrong ones."""
    above = number.flip(-1).cumsum(-1).flip(-1)[:, None, 1:]
    detected = errors.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    every = errors.sum(-1, keepdim=True)
    return (2.0 * detected / (every + above)).amax(-1).masked_fill(every[..., 0] == 0, torch.nan)


@options(num_classes=classes, ignore_index=_checks.index)
def compute_error_auroc(
    uncertainty: Array, prediction: Array, target: Array, num_classes: int, *, ignore_index: int | None = None
) -> Tensor:
    r"""Area under the ROC curve of u as a detector of wrong voxels, per image.

    Math:
        The share of pairs (wrong voxel, right voxel) of which the wrong one has the larger u, equal u counting half.

    Args:
        uncertainty: [N, \*S] or [N, 1, \*S]. prediction, target: integer labels [N, \*S]. num_classes: C.
        ignore_index: voxels of this target do not count.

    Returns:
        float64 [N]; NaN where no voxel or every voxel is wrong, or u holds a NaN.

    Raises:
        TypeError, ValueError: wrong types or shapes, labels outside [0, C).

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_error_auroc
        >>> p, t = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 0, 0, 0]]])
        >>> compute_error_auroc(torch.tensor([[[0.1, 0.6, 0.1, 0.9]]]), p, t, 2)
        tensor([0.6667], dtype=torch.float64)
    """
    u, p, t, counts = _checked(uncertainty, prediction, target, num_classes, ignore_index)
    spoiled = (u.isnan() & counts).any(1)
    pairs = pair_concordance(u, (p != t).double(), mask=counts & ~spoiled[:, None])
    mixed = pairs.concordant + pairs.discordant + pairs.ties_a
    return (pairs.concordant.double() + 0.5 * pairs.ties_a) / mixed


@options(num_classes=classes, ignore_index=_checks.index)
def compute_aurc(
    uncertainty: Array, prediction: Array, target: Array, num_classes: int, *, ignore_index: int | None = None
) -> Tensor:
    r"""Area under the risk-coverage curve, per image.

    Math:
        :math:`mean_k R_k`, R_k the share of wrong voxels among the k of least u, k = 1 … n (Geifman and El-Yaniv,
        NeurIPS 2017), on average over all orders of voxels of equal u.

    Args, Raises: as of `compute_error_auroc`.

    Returns:
        float64 [N]; NaN for an image without voxels or with a NaN in u.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_aurc
        >>> p, t = torch.tensor([[[1, 1]]]), torch.tensor([[[1, 0]]])
        >>> compute_aurc(torch.tensor([[[0.1, 0.9]]]), p, t, 2)
        tensor([0.2500], dtype=torch.float64)
    """
    risks = _risks(*_checked(uncertainty, prediction, target, num_classes, ignore_index))
    return torch.stack([risk.mean() for risk in risks]) if risks else torch.zeros(0, dtype=torch.float64)


@options(num_classes=classes, points=_checks.table_size, ignore_index=_checks.index)
def compute_risk_coverage(
    uncertainty: Array,
    prediction: Array,
    target: Array,
    num_classes: int,
    *,
    points: int = 100,
    ignore_index: int | None = None,
) -> Tensor:
    r"""The risk-coverage curve of every image: the share of wrong voxels among the share k/points of least u.

    Args, Raises: as of `compute_error_auroc`. points: of the curve, k = 1 … points.

    Returns:
        float64 [N, points]; NaN for an image without voxels or with a NaN in u.
    """
    curves = []
    for risk in _risks(*_checked(uncertainty, prediction, target, num_classes, ignore_index)):
        n = len(risk)
        last = (torch.arange(1, points + 1, device=risk.device) * n + points - 1) // points  # rounded up
        index = (last - 1).clamp(min=0)
        curves.append(risk[index] if n else risk.new_full((points,), torch.nan))
    return torch.stack(curves) if curves else torch.zeros((0, points), dtype=torch.float64)


def _risks(u: Tensor, p: Tensor, t: Tensor, counts: Tensor) -> list[Tensor]:
    """R_k of every image, float64 [n]."""
    risks = []
    for values, wrong, keep in zip(u, p != t, counts, strict=True):
        ordered, order = values[keep].sort()
        errors = tie_mean(ordered, wrong[keep].double()[order]).cumsum(0)
        risk = errors / torch.arange(1, len(errors) + 1, dtype=torch.float64, device=u.device)
        risks.append(torch.full_like(risk, torch.nan) if bool(ordered.isnan().any()) else risk)
    return risks


class UEOMetric(CaseMetric):
    """Accumulates `compute_ueo`."""

    function = staticmethod(compute_ueo)


class ErrorAUROCMetric(CaseMetric):
    """Accumulates `compute_error_auroc`."""

    function = staticmethod(compute_error_auroc)


class AURCMetric(CaseMetric):
    """Accumulates `compute_aurc`."""

    function = staticmethod(compute_aurc)
