"""Where the numbers of a row of sums over voxels are, and the evidential terms that follow from them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._distributed import summed

_SHIFT = 1e-3  # Dice counts y + 1e-3 and divides with 1e-5 added
_EPS = 1e-5


class SumsLayout(NamedTuple):
    """Of the operators' sums; those of `evidential_loss` end after `terms`."""

    means: slice
    """Σ data and Σ KL over the voxels that count."""
    by_class: slice
    """Σ p_c, Σ p_c y_c, Σ y_c, of C classes each."""
    terms: slice
    """All of these: what the data, KL and Dice terms follow from."""
    clean_far: int
    """Σ u over the far voxels; the first of `far`."""
    far: slice
    """Σ u, Σ u¹, Σ u² over the far voxels."""
    noisy_far: slice
    """Σ u¹, Σ u²; the others of `far`."""
    far_number: int
    """How many voxels are far."""
    width: int


def sums_layout(classes: int) -> SumsLayout:
    """Of C classes; a region is two."""
    end = 2 + 3 * classes
    return SumsLayout(
        slice(0, 2), slice(2, end), slice(0, end), end, slice(end, end + 3), slice(end + 1, end + 3), end + 3, end + 4
    )


class KernelLayout(NamedTuple):
    """Of the row that the evidential kernels write."""

    terms: slice
    """As of `SumsLayout`."""
    clean_far: int
    far_number: int
    wrong_labels: int
    """How many labels are neither a class nor ignored; the kernels of the CPU count them."""


def kernel_layout(classes: int) -> KernelLayout:
    end = 2 + 3 * classes
    return KernelLayout(slice(0, end), end, end + 1, end + 2)


def terms_of_sums(
    sums: Tensor, weights: Tensor | None = None, *, regions: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean data term, mean KL term and Dice term from the sums' `terms`, a row for all classes or for each region; all
    0 when no voxel counts.

    Dice: y' = y + 1e-3, TP = Σ p y', FP = Σ p (1 - y'), FN = Σ (1 - p) y', a = clamp(FP / (FP + FN + 1e-5), 0.2, 0.8),
    mean_c (1 - TP / (TP + a FP + (1 - a) FN + 1e-5)), of regions their presence alone. The weights of the classes, or
    of the regions, weight all three means. Within `across_ranks` the sums are those of all ranks.
    """
    sums = summed(sums)
    layout = sums_layout((sums.shape[1] - 2) // 3)
    p, hit, y = sums[:, layout.by_class].unflatten(1, (3, -1)).unbind(1)
    voxels = y.sum(1, keepdim=True)
    tp = hit + _SHIFT * p
    fp = p - tp
    fn = y + _SHIFT * voxels - tp
    a = (fp / (fp + fn + _EPS)).clamp(0.2, 0.8)
    dice = 1 - tp / (tp + a * fp + (1 - a) * fn + _EPS)
    dice, number = (dice[:, 1], voxels[:, 0]) if regions else (dice[0], y[0])
    weight = torch.ones_like(dice) if weights is None else weights.to(dice)
    scale = (weight * number).sum()
    seen = scale > 0
    means = (weight[:, None] * sums[:, layout.means]).sum(0) if regions else sums[0, layout.means]
    means = means / scale.where(seen, 1.0)
    dice = (weight * dice).sum() / weight.sum()
    return means[0], means[1], dice.where(seen, 0.0)
