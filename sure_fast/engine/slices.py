"""Which slice of a volume is shown, how it lies, and in what colours: the same in every picture of the project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
PLANES = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal", "R": "sagittal", "L": "sagittal"}
UNCERTAINTY = "magma"
UNCERTAINTY_POWER = 0.5
"""u is drawn from 0 to 1 in every picture; its root is, so that 0.01 is told from 0."""
WRONG = (1.0, 0.15, 0.1)


@dataclass(frozen=True)
class View:
    """A slice of arrays of one shape, turned as readers know it: front or head up, the patient's right on the left."""

    axis: int | None
    """The axis it is cut across; None: the images are two-dimensional."""
    index: int
    aspect: float
    """Height of a pixel over its width."""
    title: str
    letters: tuple[str, str, str, str] = ("", "", "", "")
    """Left, right, top, bottom: where the patient's sides are; empty where it is not known."""
    transposed: bool = False
    """The first of the two axes that are left points up, not the second."""
    flipped: tuple[bool, bool] = (False, False)
    """Vertically, horizontally."""

    def cut(self, volume: np.ndarray) -> np.ndarray:
        if self.axis is None:
            return volume
        plane = np.take(volume, self.index, self.axis)
        plane = np.rot90(plane.T if self.transposed else plane)
        flips = tuple(k for k in range(2) if self.flipped[k])
        return np.flip(plane, flips)


def view_of(
    label: np.ndarray, uncertainty: np.ndarray, spacing: Sequence[float], orientation: str | None = None
) -> View:
    """The slice with most foreground of the label, or where it has none, with most uncertainty.

    A volume is cut across an axis of a single voxel, else across its longest voxel edge, else axially, else across the
    last axis.

    Args:
        label, uncertainty: [*S]. spacing: voxel size per axis. orientation: as nibabel's axis codes, such as "RAS".
    """
    if label.ndim == 2:
        return View(None, 0, spacing[0] / spacing[1], "")
    codes = orientation if orientation is not None and len(orientation) == 3 and "?" not in orientation else None
    axis = _across(label.shape, spacing, codes)
    across, up = (k for k in range(3) if k != axis)
    shown = (label > 0) if (label > 0).any() else np.nan_to_num(uncertainty)
    index = int(shown.sum((across, up), dtype=np.float64).argmax())
    where = f"slice {index + 1} of {label.shape[axis]} along axis {axis + 1}"
    if codes is None:
        return View(axis, index, spacing[up] / spacing[across], where)
    transposed = codes[across] in "SI" or (codes[across] in "AP" and codes[up] in "LR")
    if transposed:
        across, up = up, across
    flipped = (codes[up] in "PI", codes[across] in "RA")
    sides = (OPPOSITE[codes[across]], codes[across], codes[up], OPPOSITE[codes[up]])
    left, right, top, bottom = sides
    if flipped[0]:
        top, bottom = bottom, top
    if flipped[1]:
        left, right = right, left
    where += f" ({PLANES[codes[axis]]})"
    return View(axis, index, spacing[up] / spacing[across], where, (left, right, top, bottom), transposed, flipped)


def _across(shape: Sequence[int], spacing: Sequence[float], codes: str | None) -> int:
    flat = [k for k in range(3) if shape[k] == 1]
    if flat:
        return flat[-1]
    longest = int(np.argmax(spacing))
    if spacing[longest] > 1.2 * sorted(spacing)[1]:
        return longest
    axial = [k for k in range(3) if codes is not None and codes[k] in "SI"]
    return axial[0] if axial else 2


def grey_limits(image: np.ndarray) -> tuple[float, float]:
    """Grey levels that are drawn black and white."""
    low, high = np.percentile(image, [1, 99])
    return float(low), float(max(high, low + 1e-6))


def palette(classes: int) -> np.ndarray:
    """[classes, 3]; the background is black."""
    from matplotlib import colormaps

    return np.array([(0.0, 0.0, 0.0), *(colormaps["tab10"](k % 10)[:3] for k in range(classes - 1))])


def wrong(prediction: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """Where the prediction differs from a label; a label outside the classes is not annotated and nowhere wrong."""
    return (prediction != label) & (label >= 0) & (label < classes)


TICKS = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
"""Of the colour bar of u."""


def uncertainty_norm() -> Any:
    from matplotlib.colors import PowerNorm

    return PowerNorm(UNCERTAINTY_POWER, 0.0, 1.0)
