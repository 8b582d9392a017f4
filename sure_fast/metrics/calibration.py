"""Expected calibration error."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.segmentation_stats import SegmentationStats


def compute_ece(probabilities: Tensor, target: Tensor, *, bins: int = 10) -> tuple[Tensor, Tensor]:
    r"""Expected calibration error per class and of the top label, over all voxels.

    Math:
        Equal bins of the predicted probability; :math:`\sum_b \frac{n_b}{n} |mean_b(indicator) - mean_b(p)|`, of class
        c with its indicator [y = c], and of the largest probability with [argmax p = y] (Guo et al., ICML 2017).

    Args:
        probabilities: [N, C, \*S] in [0, 1]. target: integer labels [N, \*S]. bins: number of bins.

    Returns:
        float64 [C] and 0-dim float64; NaN without voxels.

    Raises:
        ValueError: a target of another size, or fewer than one bin.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_ece
        >>> p = torch.tensor([0.8, 0.2]).reshape(1, 2, 1, 1).expand(1, 2, 1, 5)
        >>> compute_ece(p, torch.tensor([[[0, 0, 0, 0, 1]]]))[1].abs().item() < 1e-6
        True
    """
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    classes = probabilities.shape[1]
    if target.numel() * classes != probabilities.numel():
        raise ValueError(
            f"target: expected one label per voxel of probabilities {list(probabilities.shape)}, "
            f"got {list(target.shape)}"
        )
    p = probabilities.movedim(1, -1).reshape(-1, classes).double()
    y = target.reshape(-1)
    per_class = torch.stack([_error(p[:, c], y == c, bins) for c in range(classes)])
    confidence, predicted = p.max(1) if len(p) else (p.new_zeros(0), y)
    return per_class, _error(confidence, predicted == y, bins)


def ece_of_stats(stats: SegmentationStats) -> tuple[Tensor, Tensor]:
    """What `compute_ece` returns, from `sure_fast.segmentation_stats`, whose bins it takes."""
    number = stats.number.sum(0)[-1].sum()
    gaps = (stats.hits - stats.confidence).sum(0).abs().sum(-1) / number
    return gaps[:-1], gaps[-1]


def _error(p: Tensor, correct: Tensor, bins: int) -> Tensor:
    if not len(p):
        return torch.tensor(torch.nan, dtype=torch.float64, device=p.device)
    index = (p * bins).long().clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64, device=p.device).index_add_(0, index, correct.double() - p)
    return gap.abs().sum() / len(p)
