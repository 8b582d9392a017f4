"""Where the numbers of a row of sums over voxels are."""

from __future__ import annotations

from typing import NamedTuple


class SumsLayout(NamedTuple):
    """Of the operators' sums; those of `evidential_loss` end after `terms`."""

    means: slice
    """Σ data and Σ KL over the voxels that count."""
    by_class: slice
    """Σ p_c, Σ p_c y_c, Σ y_c, of C classes each."""
    terms: slice
    """All of these: what the data, KL and Dice terms follow from."""
    clean: slice
    """`terms`, `clean_far` and `far_number`: what the evidential kernels add up."""
    clean_far: int
    """Σ u over the far voxels."""
    far_number: int
    """How many voxels are far."""
    noisy_far: slice
    """Σ u¹, Σ u² over the far voxels."""
    of_noisy: slice
    """Three numbers, of which the last two are `noisy_far`: what the noise kernels read."""
    width: int


def sums_layout(classes: int) -> SumsLayout:
    """Of C classes; a region is two."""
    end = 2 + 3 * classes
    return SumsLayout(
        slice(0, 2), slice(2, end), slice(0, end), slice(0, end + 2), end, end + 1, slice(end + 2, end + 4),
        slice(end + 1, end + 4), end + 4,
    )  # fmt: skip


class KernelLayout(NamedTuple):
    """Of the row that the evidential kernels write."""

    terms: slice
    """As of `SumsLayout`, as what follows."""
    clean: slice
    clean_far: int
    far_number: int
    wrong_labels: int
    """How many labels are neither a class nor ignored; the kernels of the CPU count them."""


def kernel_layout(classes: int) -> KernelLayout:
    end = 2 + 3 * classes
    return KernelLayout(slice(0, end), slice(0, end + 2), end, end + 1, end + 2)
