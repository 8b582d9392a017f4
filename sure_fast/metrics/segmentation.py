"""Overlap and surface distance per image and class."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor


def compute_dice(prediction: Tensor, target: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    r"""Dice per image and foreground class.

    Math:
        2 |P ∩ T| / (|P| + |T|). Both empty: 1, and flagged; one empty: 0.

    Args:
        prediction, target: integer labels [N, \*S]. num_classes: C, background 0 included.

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
    dice, absent = [], []
    for c in range(1, num_classes):
        p, t = (prediction == c).flatten(1), (target == c).flatten(1)
        size = p.sum(1) + t.sum(1)
        dice.append((2.0 * (p & t).sum(1).double() / size).masked_fill(size == 0, 1.0))
        absent.append(size == 0)
    return torch.stack(dice, 1), torch.stack(absent, 1)


def _check(prediction: Tensor, target: Tensor, num_classes: int) -> None:
    if prediction.shape != target.shape:
        raise ValueError(f"prediction: expected the shape of target {list(target.shape)}, got {list(prediction.shape)}")
    if num_classes < 2:
        raise ValueError(f"num_classes: expected at least 2, the background included, got {num_classes}")


def compute_hd95(
    prediction: Tensor, target: Tensor, num_classes: int, spacing_mm: Sequence[float]
) -> tuple[Tensor, Tensor]:
    r"""95th percentile of the Hausdorff distance in mm, per image and foreground class (MONAI's definition).

    Args:
        prediction, target: integer labels [N, \*S]. num_classes: C. spacing_mm: voxel size per axis.

    Returns:
        float64 [N, C-1] in mm and bool [N, C-1]: absent from both. Both empty: 0 and flagged; one empty: the diagonal
        of the image, the largest distance it holds.

    Raises:
        ValueError: different shapes, fewer than two classes, or another number of spacings than axes.

    Example:
        >>> import torch
        >>> from sure_fast.metrics import compute_hd95
        >>> target = torch.zeros(1, 8, 8, dtype=torch.long)
        >>> target[:, 2:5, 2:5] = 1
        >>> compute_hd95(target.roll(1, 1), target, 2, (1.5, 1.0))[0]
        tensor([[1.5000]], dtype=torch.float64)
    """
    _check(prediction, target, num_classes)
    if len(spacing_mm) != prediction.dim() - 1:
        raise ValueError(f"spacing_mm: expected {prediction.dim() - 1} numbers, one per axis, got {list(spacing_mm)}")
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    hot = [torch.stack([labels == c for c in range(1, num_classes)], 1) for labels in (prediction, target)]
    present = [h.flatten(2).any(2) for h in hot]
    both = present[0] & present[1]
    absent = ~(present[0] | present[1])
    diagonal = math.sqrt(sum((s * n) ** 2 for s, n in zip(spacing_mm, prediction.shape[1:], strict=True)))
    result = torch.full(both.shape, diagonal, dtype=torch.float64).masked_fill(absent.cpu(), 0.0)
    for n, c in both.nonzero().tolist():
        pair = [h[n : n + 1, c : c + 1] for h in hot]
        with warnings.catch_warnings():
            # MONAI 1.5 and 1.6 warn of an argument that they themselves pass.
            warnings.simplefilter("ignore", FutureWarning)
            distance = compute_hausdorff_distance(
                pair[0], pair[1], include_background=True, percentile=95, spacing=list(spacing_mm)
            )
        result[n, c] = float(distance)
    return result, absent
