"""Writing NIfTI, so that a file is there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sure_fast.data.cases import NIFTI_SUFFIXES
from sure_fast.data.errors import DataError

MANIFEST = "predictions.json"
"""In a folder of predictions: of which weights they are, and of which images."""
HEADERS: dict[str, dict[str, Any]] = {
    "segmentation": {"description": "sure_fast: class numbers", "labels": True},
    "uncertainty": {"description": "sure_fast: uncertainty u, 0 certain to 1 uncertain", "shown": (0.0, 1.0)},
    "probabilities": {"description": "sure_fast: probability of each class", "shown": (0.0, 1.0)},
}
"""Keywords of `save_nifti` for what is predicted, so that viewers show it right."""


def save_nifti(
    path: str | os.PathLike[str],
    array: np.ndarray | torch.Tensor,
    affine: np.ndarray | None = None,
    spacing_mm: Sequence[float] | None = None,
    form_code: int = 1,
    shown: tuple[float, float] | None = None,
    description: str = "",
    labels: bool = False,
) -> Path:
    """Write an array as NIfTI on a given grid.

    Args:
        path: ends in `.nii.gz` or `.nii`; its folder is made.
        array: [*S], or channel-last [*S, K]; bool and int64 are stored as uint8 or int32, float64 as float32.
        affine: 4×4 voxel to mm; None: a diagonal of `spacing_mm`.
        spacing_mm: voxel size per axis, used where there is no affine; None: 1 mm.
        form_code: NIfTI code of sform and qform, which are both written, with pixdim, so that every reader takes the
            same; 0: neither, as in a file without them, of which every reader takes what it takes of that.
        shown: smallest and largest value that viewers shall tell apart (cal_min and cal_max); None: left to them.
        description: of at most 79 ASCII characters.
        labels: the values are class numbers, which viewers give colours (the intent of NIfTI).

    Returns:
        The path.

    Raises:
        DataError: another suffix, integers that fit no 32-bit number, or a description that does not fit.

    Notes:
        Written beside its place under another name and then moved, so no reader sees half a file.
    """
    import nibabel

    path = Path(path)
    suffix = next((s for s in NIFTI_SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise DataError(f"path: expected a file ending in .nii.gz or .nii, got {path}")
    data = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    if data.dtype == np.bool_:
        data = data.astype(np.uint8)
    elif data.dtype in (np.int64, np.uint64):
        low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
        if low < -(2**31) or high >= 2**31:
            raise DataError(f"array: expected integers of 32 bits, got values {low} to {high}")
        data = data.astype(np.uint8 if low >= 0 and high <= 255 else np.int32)
    elif data.dtype in (np.float64, np.float16):
        data = data.astype(np.float32)
    if affine is None:
        spacing = [1.0] * min(data.ndim, 3) if spacing_mm is None else [float(s) for s in spacing_mm]
        affine = np.diag([*spacing, *[1.0] * (4 - len(spacing))])
    image = _with_forms(data, np.asarray(affine, dtype=np.float64), form_code)
    image.header.set_xyzt_units("mm")
    if shown is not None:
        image.header["cal_min"], image.header["cal_max"] = shown
    if labels:
        image.header.set_intent("label")
    if len(description) > 79 or not description.isascii():
        raise DataError(f"description: expected at most 79 ASCII characters, got {description!r}")
    image.header["descrip"] = description.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".writing-", suffix=suffix, dir=path.parent)
    os.close(handle)
    try:
        nibabel.save(image, temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it private; give it the mode any new file gets
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _with_forms(data: np.ndarray, affine: np.ndarray, form_code: int) -> Any:
    """An image whose forms and pixdim say the same."""
    import nibabel

    axes = min(data.ndim, 3)
    spacing = np.linalg.norm(affine[:3, :axes], axis=0)
    if form_code <= 0:
        image = nibabel.Nifti1Image(data, None)
        image.header.set_zooms([*spacing, *[1.0] * (data.ndim - axes)])
        return image
    code = form_code if form_code <= 5 else 1
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, code)
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # A qform is a rotation: beside a sheared sform there is none that says the same.
    upright = np.abs(cosines.T @ cosines - np.eye(3)).max() < 1e-4
    image.set_qform(affine if upright else None, code if upright else 0)
    image.header.set_zooms([*spacing, *[1.0] * (data.ndim - axes)])
    return image
