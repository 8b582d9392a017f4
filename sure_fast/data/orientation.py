"""Bringing the axes of arrays from one voxel order to another, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from sure_fast.data.errors import DataError

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


def order(source: str, target: str) -> list[tuple[int, bool]]:
    """For every axis of `target` the axis of `source` that runs along it, and whether it runs the other way.

    Raises:
        DataError: slices of another plane, or another number of axes.

    Example:
        >>> order("LPS", "SAL")
        [(2, False), (1, True), (0, False)]
    """
    if len(source) != len(target):
        raise DataError(f"expected {len(target)} spatial axes, for voxels ordered as {target}, got {len(source)}")
    axes = []
    for code in target:
        same, turned = source.find(code), source.find(OPPOSITE.get(code, "?"))
        if same < 0 and turned < 0:
            raise DataError(f"orientation: expected voxels that can be brought to {target}, got {source}")
        axes.append((max(same, turned), same < 0))
    return axes


def reorient(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """The array with its last axes, which run as `source` says, in the order and direction of `target`.

    Args:
        array: [..., *S], the spatial axes last.
        source, target: axis codes such as "LPS", a letter per spatial axis.

    Returns:
        A view. `reorient(result, target, source)` is the array again.
    """
    lead = array.ndim - len(source)
    axes = order(source, target)
    turned = array.transpose(*range(lead), *(lead + axis for axis, _ in axes))
    flipped = (..., *(slice(None, None, -1 if flip else 1) for _, flip in axes))
    return turned[flipped]


def reorient_affine(affine: np.ndarray, shape: Sequence[int], source: str, target: str) -> np.ndarray:
    """The affine of a reoriented array: every voxel stays where it is in mm.

    Args:
        affine: 4×4 of the array as it was. shape: [*S] as it was.
    """
    step = np.eye(4)
    step[: len(source), : len(source)] = 0.0
    for new, (old, flip) in enumerate(order(source, target)):
        step[old, new] = -1.0 if flip else 1.0
        step[old, 3] = shape[old] - 1 if flip else 0.0
    return affine @ step


def reorder(values: Sequence[float], source: str, target: str) -> tuple[float, ...]:
    """One value per axis, such as a size or a spacing, in the order of `target`."""
    return tuple(values[axis] for axis, _ in order(source, target))


def most_common(orientations: Iterable[str | None], among: Sequence[str] = ()) -> str | None:
    """The orientation that most cases have; None where no case has one.

    Of equals it is the one that is more often in `among`, then the first in the alphabet.
    """
    counts = Counter(orientation for orientation in orientations if orientation)
    return min(counts, key=lambda code: (-counts[code], -among.count(code), code)) if counts else None
