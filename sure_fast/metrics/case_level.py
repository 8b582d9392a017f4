"""Does the uncertainty of a whole case tell that its segmentation failed, or that its image is unlike the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .. import _checks
from ..ops.boundary_distance import boundary_distance
from ..ops.pair_concordance import pair_concordance
from ..ops.spearman import spearman
from ._inputs import Array, label_map, like, maps
from ._options import options
from .accumulator import CaseMetric
from .ties import tie_mean

RIM = 4.0
WINDOW = 10


@options(rim=partial(_checks.positive, zero=True))
def compute_case_uncertainty(uncertainty: Array, prediction: Array, *, rim: float = RIM) -> Tensor:
    r"""One number an image: the mean of u in the predicted foreground and around it.

    Math:
        :math:`mean\{u_i : \hat y_i > 0 \text{ or } d_i \le rim\}`, d the distance to a boundary of the prediction; the
        mean over all voxels where no foreground is predicted. The mean over the whole image would hide in the
        background. After Zenk et al., Medical Image Analysis 2025 (arXiv 2406.03323), who compare such aggregations.

    Args:
        uncertainty: [N, \*S] or [N, 1, \*S]. prediction: integer labels, [N, \*S] or [N, 1, \*S].
        rim: how far around the foreground, in voxels.

    Returns:
        float64 [N]; NaN where u is NaN among these voxels.

    Raises:
        TypeError, ValueError: wrong types or shapes, a negative rim.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_case_uncertainty
        >>> p = torch.zeros(1, 1, 9, dtype=torch.long)
        >>> p[..., 0] = 1
        >>> compute_case_uncertainty(torch.arange(9.0).reshape(1, 1, 9), p, rim=1)  # voxels 0, 1 and 2
        tensor([1.], dtype=torch.float64)
    """
    p = label_map("prediction", prediction)
    (u,) = maps("uncertainty", uncertainty)
    u = like("uncertainty", u, "prediction", p).double()
    volume = p[:, None] if p.dim() == 4 else p
    distance = boundary_distance(volume, max_distance=rim).reshape(p.shape)
    near = ((p > 0) | (distance <= rim)).flatten(1)
    near = near | ~near.any(1, keepdim=True)
    return u.flatten(1).where(near, 0.0).sum(1) / near.sum(1)


@options(window=_checks.table_size)
def compute_window_uncertainty(uncertainty: Array, *, window: int = WINDOW) -> Tensor:
    r"""One number an image: the largest mean of u in a window.

    Math:
        The maximum over all windows of `window` voxels an axis, of the whole axis where it is shorter, of the mean
        of u. The patch-level aggregation of Zenk et al., Medical Image Analysis 2025 (arXiv 2406.03323).

    Args:
        uncertainty: [N, \*S] or [N, 1, \*S], S of 1 to 3 axes. window: its edge in voxels.

    Returns:
        float64 [N]; NaN where u holds a NaN, or no voxel.

    Raises:
        TypeError, ValueError: wrong types or shapes, a window of less than one voxel.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_window_uncertainty
        >>> compute_window_uncertainty(torch.tensor([[[0.0, 1.0, 0.5, 0.0]]]), window=2)
        tensor([0.7500], dtype=torch.float64)
    """
    (u,) = maps("uncertainty", uncertainty)
    if u[0:1].numel() == 0:
        return u.new_full((len(u),), math.nan, dtype=torch.float64)
    ones = (1,) * (4 - u.dim())
    size = (*ones, *(min(window, n) for n in u.shape[1:]))
    volumes = u.double().reshape(len(u), 1, *ones, *u.shape[1:])
    return functional.avg_pool3d(volumes, size, stride=1).flatten(1).amax(1)


class FailureDetection(NamedTuple):
    """How well the uncertainty of cases tells which of their segmentations are bad."""

    aurc: float
    """Area under the risk-coverage curve over cases, risk 1 − Dice; smaller is better."""
    spearman: float
    """Rank correlation of uncertainty and Dice, wanted −1."""


def failure_detection(uncertainty: Sequence[float], dice: Sequence[float]) -> FailureDetection:
    r"""Failure detection over cases.

    Math:
        AURC: cases sorted from the least uncertain; the mean over k of the mean risk :math:`1 - Dice` of the first k
        (cases of equal uncertainty each count as their mean). Zenk et al. (arXiv 2406.03323); docs/method.md.

    Args:
        uncertainty: of every case. dice: of the same cases. Cases of which one is NaN are left out.

    Returns:
        FailureDetection; NaN of fewer than two cases, or where all are alike.

    Raises:
        ValueError: two lists of different lengths.

    Example:
        >>> from sure_fast.metrics import failure_detection
        >>> failure_detection([0.1, 0.2, 0.9], [1.0, 0.9, 0.3]).spearman
        -1.0
    """
    u, d = _numbers(uncertainty, dice)
    if len(u) < 2:
        return FailureDetection(math.nan, math.nan)
    ordered, order = u.sort(stable=True)
    risk = tie_mean(ordered, (1.0 - d)[order])
    coverage = torch.arange(1, len(u) + 1, dtype=torch.float64)
    return FailureDetection(float((risk.cumsum(0) / coverage).mean()), float(spearman(u[None], d[None])))


def ood_auroc(clean: Sequence[float], corrupted: Sequence[float]) -> float:
    r"""Detection of images unlike the others, by the uncertainty of cases.

    Math:
        The share of pairs (clean case, corrupted case) of which the corrupted one is the more uncertain, equal ones
        counting half: the area under the ROC curve.

    Args:
        clean, corrupted: uncertainties of cases, of any numbers of them. NaN are left out.

    Returns:
        AUROC, 0.5 by chance; NaN where one of the lists is empty.

    Example:
        >>> from sure_fast.metrics import ood_auroc
        >>> ood_auroc([0.1, 0.2], [0.2, 0.3])
        0.875
    """
    parts = [torch.tensor([x for x in part if not math.isnan(x)], dtype=torch.float64) for part in (clean, corrupted)]
    if not all(map(len, parts)):
        return math.nan
    u = torch.cat(parts)
    is_corrupted = torch.cat([torch.full_like(part, k) for k, part in enumerate(parts)])
    pairs = pair_concordance(u[None], is_corrupted[None])
    larger, smaller = float(pairs.concordant), float(pairs.discordant)
    number = len(parts[0]) * len(parts[1])
    return (larger + (number - larger - smaller) / 2) / number


def _numbers(*columns: Sequence[float]) -> list[Tensor]:
    """Float64 [cases] each, without cases of which one number is NaN."""
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"dice: expected one for each of the {len(columns[0])} cases, got {len(columns[1])}")
    table = np.array(columns, dtype=np.float64)
    return list(torch.from_numpy(table[:, ~np.isnan(table).any(0)]))


class CaseUncertaintyMetric(CaseMetric):
    """`compute_case_uncertainty` of many cases."""

    function = staticmethod(compute_case_uncertainty)


class WindowUncertaintyMetric(CaseMetric):
    """`compute_window_uncertainty` of many cases."""

    function = staticmethod(compute_window_uncertainty)
