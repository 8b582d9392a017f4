"""Where the voxels of a NIfTI file lie, although its header says it in several ways that may contradict each other."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""The lowest bits of xyzt_units to mm; unknown units are taken as mm."""
UNIT_NAMES = {1: "metres", 3: "microns"}
ORTHONORMAL = 5e-5
"""Largest cosine between two axes of a form that ITK takes for a rotation (measured between 3e-5 and 1e-4)."""
ROUNDING = 1e-5
"""Relative difference of scales up to which a form is taken as it is stored: float32, written and read."""
TOLD_SCALE, TOLD_DEGREES, TOLD_VOXELS = 1e-3, 0.5, 0.1
"""From which difference of scale, direction and origin on a contradiction is noted."""
WITHOUT_FORM = np.diag([-1.0, -1.0, 1.0])
"""Directions in RAS+ where neither form has a code: the axes of the voxels run to the left, the back and the head."""


class Geometry(NamedTuple):
    """What is taken of a header."""

    affine: np.ndarray
    """float64 4×4, voxel index to mm in RAS+."""
    code: int
    """Of the form it was taken from; 0: neither has one."""
    notes: tuple[str, ...]
    """What in the header is contradictory or converted."""


def geometry_of(header: Any) -> Geometry:
    """The affine of a NIfTI header, as ITK takes it.

    The rule, measured with SimpleITK 2.5 (ITK 5.4) over sform, qform, their codes, pixdim and units:

    - The voxel size is |pixdim|, whatever the scale of the forms; 0 and what is not finite is 1.
    - The directions and the origin are those of the sform where it has a code, its axes are at right angles, and it
      either has code 1 (scanner) or the qform has no code; else those of the qform where it has a code.
    - A sform whose axes are not at right angles beside a qform without code is refused by ITK. Here it is taken, with
      the shear, which `load_case` refuses where it matters.
    - Without either code the axes run to the left, the back and the head from the origin 0.
    - A negative pixdim turns its axis round.
    - Units of metres and microns are converted to mm, the origin with them.

    Args:
        header: of nibabel, as stored: made with `check=False`, which leaves what is wrong in it as it is.

    Returns:
        Affine in mm, code of the form taken, and one note for each contradiction of more than a rounding.
    """
    notes: list[str] = []
    pixdim = np.array(header["pixdim"][1:4], dtype=np.float64)
    axes = min(max(int(header["dim"][0]), 1), 3)
    missing = ~np.isfinite(pixdim) | (pixdim == 0)
    if missing[:axes].any():
        notes.append(f"no voxel size in pixdim, {_numbers(pixdim[:axes])}; what is no size is taken as 1, as in ITK")
    pixdim = np.where(missing, 1.0, pixdim)
    if (pixdim[:axes] < 0).any():
        notes.append(f"negative voxel size in pixdim, {_numbers(pixdim[:axes])}; its axis is turned round, as in ITK")
    directions, scales, origin, code = _chosen_form(header, axes, notes)
    # A form that names the same size up to rounding is kept to the bit; else pixdim is the size.
    same = bool((np.abs(scales - pixdim) <= ROUNDING * np.abs(pixdim))[:axes].all())
    affine = np.eye(4)
    affine[:3, :3] = directions * np.where(same, scales, pixdim)
    affine[:3, 3] = origin
    units = int(header["xyzt_units"]) & 7
    factor = UNIT_MM.get(units, 1.0)
    if factor != 1.0:
        notes.append(f"header in {UNIT_NAMES[units]}, converted to mm")
        affine[:3] *= factor
    return Geometry(affine, code, tuple(notes))


def _chosen_form(header: Any, axes: int, notes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Directions as unit columns, their lengths as stored, origin and code of the form that ITK takes."""
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    size = np.abs(np.array(header["pixdim"][1:4], dtype=np.float64))
    if sform_code <= 0 and qform_code <= 0:
        notes.append("no orientation in the header, taken to run to the left, the back and the head, as in ITK")
        return WITHOUT_FORM, size, np.zeros(3), 0
    sform, qform = _sform(header), _qform(header)
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    first = sform_code > 0 and (qform_code <= 0 or (sform_code == 1 and _is_rotation(sform[:3, :3], lengths)))
    if sform_code > 0 and not np.allclose(lengths[:axes], size[:axes], rtol=TOLD_SCALE, atol=0.0):
        notes.append(
            f"sform and pixdim disagree, voxels of {_numbers(lengths[:axes])} against {_numbers(size[:axes])}; "
            "pixdim is taken, as in ITK"
        )
    if sform_code > 0 and qform_code > 0:
        difference = _difference(sform, qform, axes)
        if difference:
            taken = "sform" if first else "qform"
            notes.append(f"sform and qform disagree, by {difference}; the {taken} is taken, as in ITK")
    if not first:
        return qform[:3, :3], size, qform[:3, 3], qform_code
    directions = np.divide(sform[:3, :3], lengths, out=np.zeros((3, 3)), where=lengths != 0)
    return directions, lengths, sform[:3, 3], sform_code


def _is_rotation(matrix: np.ndarray, scales: np.ndarray) -> bool:
    if not np.isfinite(matrix).all() or not (scales > 0).all():
        return False
    unit = matrix / scales
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() <= ORTHONORMAL)


def _difference(sform: np.ndarray, qform: np.ndarray, axes: int) -> str:
    """What of direction and origin differs; empty where it is within rounding."""
    if not np.isfinite(sform).all():
        return "NaN or infinity"
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if not (lengths[:axes] > 0).all():
        return "axes of length 0"
    unit = sform[:3, :axes] / lengths[:axes]
    cosines = np.clip((unit * qform[:3, :axes]).sum(axis=0), -1.0, 1.0)
    degrees = float(np.degrees(np.arccos(cosines.min())))
    offset = float(np.linalg.norm(sform[:3, 3] - qform[:3, 3]))
    told = []
    if degrees > TOLD_DEGREES:
        told.append(f"{degrees:.1f} degrees")
    if offset > TOLD_VOXELS * float(lengths[:axes].min()):
        told.append(f"{offset:.3g} in the origin")
    return " and ".join(told)


def _sform(header: Any) -> np.ndarray:
    affine = np.eye(4)
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        affine[row] = header[name]
    return affine


def _qform(header: Any) -> np.ndarray:
    """The rotation of the quaternion with its origin, unit columns; the third one mirrored by a negative qfac."""
    b, c, d = (float(header[f"quatern_{name}"]) for name in "bcd")
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < 1e-7:  # half a turn, where rounding may leave a length above 1
        length = math.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = math.sqrt(rest)
    affine = np.eye(4)
    affine[:3, :3] = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
    ]
    if float(header["pixdim"][0]) < 0:
        affine[:3, 2] *= -1
    affine[:3, 3] = [float(header[f"qoffset_{axis}"]) for axis in "xyz"]
    return affine


def _numbers(values: np.ndarray) -> str:
    return " x ".join(f"{value:g}" for value in values)
