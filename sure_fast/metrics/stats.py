"""Counts and histograms of probabilities that come from no Dirichlet distribution, as of `segmentation_stats`."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks
from ..ops._calls import single_or_double
from ..ops.segmentation_stats import SegmentationStats
from ._inputs import Array, counted, probability_maps, uncertainty_map
from ._options import options


@options(bins=_checks.table_size, levels=_checks.table_size, ignore_index=_checks.index)
def probability_stats(
    probabilities: Array,
    target: Array,
    *,
    uncertainty: Array | None = None,
    bins: int = 10,
    levels: int = 100,
    ignore_index: int | None = None,
) -> SegmentationStats:
    r"""What `sure_fast.segmentation_stats` counts, of probabilities and any uncertainty map in [0, 1].

    Args:
        probabilities: [N, C, \*S] in [0, 1]. target: integer labels [N, \*S] or [N, 1, \*S].
        uncertainty: [N, \*S] or [N, 1, \*S]; None: 1 less the largest probability.
        bins, levels: of the probability and of the uncertainty. ignore_index: voxels of this target are not counted.

    Returns:
        SegmentationStats.

    Raises:
        TypeError, ValueError: wrong types or shapes, a label outside [0, C), fewer than one bin or level; of a voxel
            that counts no probabilities, see `compute_ece`, or u outside [0, 1].

    Example:
        >>> import torch
        >>> from sure_fast.metrics import probability_stats
        >>> p = torch.tensor([[0.9, 0.2], [0.1, 0.8]]).reshape(1, 2, 1, 2)
        >>> probability_stats(p, torch.tensor([[[0, 0]]])).confusion
        tensor([[[1, 1],
                 [0, 0]]])
    """
    p, label = probability_maps(probabilities, target, ignore_index)
    classes = p.shape[1]
    voxels = counted(label, ignore_index)
    counts = voxels.flatten(1)
    y = label.flatten(1).long().where(counts, 0)
    p = p.flatten(2)
    best, prediction = p.max(1)
    if uncertainty is None:
        u = 1.0 - best
    else:
        u = uncertainty_map(uncertainty, label, voxels).flatten(1)
    level = level_of(u, levels)
    number, confidence, hits, errors = [], [], [], []
    for c in range(classes + 1):
        if c < classes:
            probability, hit, wrong = p[:, c], y == c, (y == c) != (prediction == c)
        else:
            probability, hit, wrong = best, y == prediction, y != prediction
        bin_of = bin_of_probability(probability, bins)
        number.append(_histogram(bin_of, bins, counts))
        confidence.append(_histogram(bin_of, bins, probability.double().where(counts, 0.0)))
        hits.append(_histogram(bin_of, bins, hit & counts))
        errors.append(_histogram(level, levels, wrong & counts))
    confusion = _histogram(y * classes + prediction, classes * classes, counts)
    return SegmentationStats(
        confusion.long().reshape(-1, classes, classes),
        torch.stack(number, 1).long(),
        torch.stack(confidence, 1),
        torch.stack(hits, 1).long(),
        _histogram(level, levels, counts).long(),
        torch.stack(errors, 1).long(),
    )


def _edges(value: Tensor, bins: int) -> Tensor:
    """1/bins … (bins - 1)/bins, rounded as the values are, at least to float32."""
    return (torch.arange(1, bins, dtype=torch.float64, device=value.device) / bins).to(value.dtype)


def bin_of_probability(p: Tensor, bins: int) -> Tensor:
    """int64, k where k/bins <= p < (k + 1)/bins; the last also holds 1, the first NaN."""
    p = single_or_double(p.detach()).nan_to_num(0.0).contiguous()
    return torch.bucketize(p, _edges(p, bins), right=True)


def level_of(u: Tensor, levels: int) -> Tensor:
    """int64, k where k/levels < u <= (k + 1)/levels; the first also holds 0 and NaN."""
    u = single_or_double(u.detach()).nan_to_num(0.0).contiguous()
    return torch.bucketize(u, _edges(u, levels))


def _histogram(index: Tensor, size: int, weight: Tensor) -> Tensor:
    """float64 [N, size] of index [N, n]; exact for counts."""
    out = torch.zeros((len(index), size), dtype=torch.float64, device=index.device)
    return out.scatter_add_(1, index, weight.double())


def class_counts(
    prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """int64 [N, C] each: of checked label maps the voxels of a class in both, in the prediction and in the target."""
    counts = counted(target, ignore_index).flatten(1)
    p, t = prediction.long().flatten(1), target.long().flatten(1)

    def number(label: Tensor, among: Tensor) -> Tensor:
        # voxels that do not count go into one more cell
        cells = label.masked_fill(~among, num_classes)
        cells = cells + torch.arange(len(cells), device=cells.device)[:, None] * (num_classes + 1)
        size = len(cells) * (num_classes + 1)
        return torch.bincount(cells.flatten(), minlength=size).reshape(-1, num_classes + 1)[:, :num_classes]

    return number(t, counts & (p == t)), number(p, counts), number(t, counts)
