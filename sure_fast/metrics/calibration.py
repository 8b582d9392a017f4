"""Calibration of the predicted probabilities, per image."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks
from ..ops.segmentation_stats import SegmentationStats
from ._inputs import Array, counted, counts_of, probability_maps
from ._options import options
from .accumulator import CaseMetric
from .stats import probability_stats
from .ties import tie_mean


@options(bins=_checks.table_size, top_label=_checks.flag, ignore_index=_checks.index)
def compute_ece(
    probabilities: Array, target: Array, *, bins: int = 10, top_label: bool = False, ignore_index: int | None = None
) -> Tensor:
    r"""Expected calibration error per image, of each class or of the top label.

    Math:
        Equal bins of the predicted probability; :math:`\sum_b \frac{n_b}{n} |mean_b(indicator) - mean_b(p)|`, of class
        c with its indicator [y = c], or of the largest probability with [argmax p = y] (Guo et al., ICML 2017).

    Args:
        probabilities: [N, C, \*S] in [0, 1]. target: integer labels [N, \*S] or [N, 1, \*S]. bins: number of bins.
        top_label: of the largest probability instead of each class. ignore_index: voxels of this target do not count.

    Returns:
        float64 [N, C], or [N] with `top_label`; NaN for an image without voxels.

    Raises:
        TypeError, ValueError: wrong types or shapes, a label outside [0, C), fewer than one bin; of a voxel that counts
            numbers outside [0, 1], NaN, or a sum other than 1, such as logits.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_ece
        >>> p = torch.tensor([0.8, 0.2]).reshape(1, 2, 1, 1).expand(1, 2, 1, 5)
        >>> compute_ece(p, torch.tensor([[[0, 0, 0, 0, 1]]]), top_label=True).abs().item() < 1e-6
        True
    """
    return ece_of_stats(
        probability_stats(probabilities, target, bins=bins, levels=1, ignore_index=ignore_index), top_label=top_label
    )


def ece_of_stats(stats: SegmentationStats, *, top_label: bool = False) -> Tensor:
    """What `compute_ece` returns, from `sure_fast.segmentation_stats`, whose bins it takes."""
    stats, top_label = counts_of(stats), _checks.flag("top_label", top_label)
    gaps = (stats.hits - stats.confidence).abs().sum(-1) / stats.number.sum(-1)
    return gaps[:, -1] if top_label else gaps[:, :-1]


@options(bins=_checks.table_size, top_label=_checks.flag, ignore_index=_checks.index)
def compute_adaptive_ece(
    probabilities: Array, target: Array, *, bins: int = 10, top_label: bool = False, ignore_index: int | None = None
) -> Tensor:
    r"""Expected calibration error in bins of equally many voxels, per image, of each class or of the top label.

    Math:
        As `compute_ece`, the voxels sorted by p, bin b holding the positions i with ⌊i · bins / n⌋ = b (Nixon et al.,
        CVPR Workshops 2019). Voxels of equal p share the mean of their indicators, so that no order among them counts.

    Args, Returns, Raises: as of `compute_ece`.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_adaptive_ece
        >>> p = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).reshape(1, 2, 1, 2)
        >>> compute_adaptive_ece(p, torch.tensor([[[0, 1]]]), bins=2, top_label=True)
        tensor([0.1000], dtype=torch.float64)
    """
    p, label = probability_maps(probabilities, target, ignore_index)
    counts = counted(label, ignore_index)
    rows = [_adaptive(image.flatten(1)[:, c.flatten()].double(), y[c].long(), bins, top_label)
            for image, y, c in zip(p, label, counts, strict=True)]  # fmt: skip
    return torch.stack(rows) if rows else p.new_zeros((0,) if top_label else (0, p.shape[1]), dtype=torch.float64)


def _adaptive(p: Tensor, y: Tensor, bins: int, top_label: bool) -> Tensor:
    """Of one image: p [C, n], y [n]."""
    classes, n = p.shape
    if top_label:
        p, best = p.max(0, keepdim=True) if n else (p[:1], p[:1])
        hit = best == y
    else:
        hit = torch.arange(classes, device=p.device)[:, None] == y
    ordered, order = p.sort(1)
    gap = tie_mean(ordered, hit.double().gather(1, order)) - ordered
    bin_of = torch.arange(n, device=p.device) * bins // max(n, 1)
    sums = torch.zeros((len(p), bins), dtype=torch.float64, device=p.device)
    error = sums.scatter_add_(1, bin_of.expand(len(p), n), gap).abs().sum(1) / n
    return error[0] if top_label else error


@options(ignore_index=_checks.index)
def compute_brier(probabilities: Array, target: Array, *, ignore_index: int | None = None) -> Tensor:
    r"""Brier score per image, class by class.

    Math:
        :math:`mean_i (p_{ic} - [y_i = c])^2`; the sum over the classes is the multi-class score (Brier, 1950).

    Args:
        probabilities: [N, C, \*S]. target: integer labels [N, \*S] or [N, 1, \*S]. ignore_index: does not count.

    Returns:
        float64 [N, C]; NaN for an image without voxels.

    Raises:
        TypeError, ValueError: wrong types or shapes, a label outside [0, C), no probabilities, see `compute_ece`.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_brier
        >>> compute_brier(torch.tensor([0.75, 0.25]).reshape(1, 2, 1, 1), torch.tensor([[[0]]])).sum(1)
        tensor([0.1250], dtype=torch.float64)
    """
    p, label = probability_maps(probabilities, target, ignore_index)
    return _mean_per_class(p, label, ignore_index, lambda value, hit: (value.double() - hit.double()) ** 2)


@options(ignore_index=_checks.index)
def compute_nll(probabilities: Array, target: Array, *, ignore_index: int | None = None) -> Tensor:
    r"""Negative log-likelihood of the labels per image, class by class.

    Math:
        :math:`mean_i (-[y_i = c] \ln p_{ic})`; the sum over the classes is the log loss. p is kept at or above the
        epsilon of its type, as scikit-learn's `log_loss` does.

    Args, Returns, Raises: as of `compute_brier`.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_nll
        >>> compute_nll(torch.tensor([0.5, 0.5]).reshape(1, 2, 1, 1), torch.tensor([[[0]]])).sum(1)
        tensor([0.6931], dtype=torch.float64)
    """
    p, label = probability_maps(probabilities, target, ignore_index)
    least = torch.finfo(p.dtype).eps

    def term(value: Tensor, hit: Tensor) -> Tensor:
        return value.double().clamp(least, 1.0).log().neg().where(hit, 0.0)

    return _mean_per_class(p, label, ignore_index, term)


def _mean_per_class(p: Tensor, label: Tensor, ignore_index: int | None, term) -> Tensor:
    counts = counted(label, ignore_index).flatten(1)
    y, p = label.flatten(1), p.flatten(2)
    sums = [term(p[:, c], y == c).where(counts, 0.0).sum(1) for c in range(p.shape[1])]
    return torch.stack(sums, 1) / counts.sum(1, keepdim=True)


class ECEMetric(CaseMetric):
    """Accumulates `compute_ece`."""

    function = staticmethod(compute_ece)


class AdaptiveECEMetric(CaseMetric):
    """Accumulates `compute_adaptive_ece`."""

    function = staticmethod(compute_adaptive_ece)


class BrierMetric(CaseMetric):
    """Accumulates `compute_brier`."""

    function = staticmethod(compute_brier)


class NLLMetric(CaseMetric):
    """Accumulates `compute_nll`."""

    function = staticmethod(compute_nll)
