"""Reading images and labels: NIfTI through nibabel, PNG/JPEG/BMP/TIFF through Pillow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sure_fast import _checks
from sure_fast.data.cases import IMAGE_SUFFIXES, NIFTI_SUFFIXES, Case
from sure_fast.data.errors import DataError
from sure_fast.data.geometry import geometry_of
from sure_fast.data.nifti_header import check_announced_size
from sure_fast.data.normalize import Window, normalize
from sure_fast.data.orientation import order, reorder, reorient, reorient_affine
from sure_fast.data.pictures import read_picture
from sure_fast.data.resampling import Box, Place, box_of, region

LARGEST_LABEL = 2**53
"""Whole numbers up to it are exact in float64."""


@dataclass
class Sample:
    """One case in memory.

    Args:
        image: float32 [K, *S], as stored (or normalised when asked for).
        label: int64 [*S], class numbers; None when the case has no label.
        spacing_mm: voxel size per spatial axis; 1 for pictures, which name none: distances are in pixels then.
        affine: float64 4×4, voxel index to mm in RAS+; None for pictures.
        name: of the case.
        orientation: axis codes such as "RAS" or "LPS" of the arrays here; None for pictures.
        tilt_degrees: angle between the axes of the voxels and those of the scanner, above 0 with an oblique affine.
        stored_orientation, stored_affine: of the file; the voxels are in another order than there where the data set's
            `info` names an orientation.
        form_code: NIfTI code of the header's form that the affine is from; 0: it has none.
        notes: what in the header of the image is contradictory or converted, each one line.
        box: what of it is not 0, where the data set's `info` says that a network sees no more; None: all of it.
    """

    image: Tensor
    label: Tensor | None
    spacing_mm: tuple[float, ...]
    affine: np.ndarray | None
    name: str
    orientation: str | None = None
    tilt_degrees: float = 0.0
    stored_orientation: str | None = None
    stored_affine: np.ndarray | None = None
    form_code: int = 1
    notes: tuple[str, ...] = ()
    box: Box | None = None

    @property
    def place(self) -> Place:
        return Place(tuple(self.spacing_mm), self.box)

    def as_stored(self, array: np.ndarray) -> np.ndarray:
        """An array [..., *S] on the grid of this sample, such as a prediction, in the voxel order of the file."""
        if self.orientation == self.stored_orientation or self.orientation is None or self.stored_orientation is None:
            return array
        return np.ascontiguousarray(reorient(array, self.orientation, self.stored_orientation))


@dataclass
class Grid:
    """Where voxels lie: shape [*S], affine (None for pictures), spacing in mm; code and notes of the header."""

    shape: tuple[int, ...]
    affine: np.ndarray | None
    spacing_mm: tuple[float, ...]
    form_code: int = 1
    notes: tuple[str, ...] = ()

    @property
    def orientation(self) -> str | None:
        """Axis codes of the nearest axes of the scanner; None for pictures."""
        if self.affine is None:
            return None
        import nibabel

        codes = nibabel.aff2axcodes(self.affine)
        return "".join("?" if code is None else code for code in codes)[: len(self.shape)]

    @property
    def shear_degrees(self) -> float:
        """How far the axes are from right angles; 0 where no affine is named."""
        if self.affine is None:
            return 0.0
        axes = self.affine[:3, : len(self.shape)]
        cosines = np.abs(axes.T @ axes / np.outer(self.spacing_mm, self.spacing_mm))
        return float(np.degrees(np.arcsin(np.clip(np.max(cosines - np.eye(len(cosines))), 0.0, 1.0))))

    @property
    def tilt_degrees(self) -> float:
        """Largest angle between an axis of the voxels and the nearest one of the scanner (an oblique affine)."""
        if self.affine is None:
            return 0.0
        axes = self.affine[:3, : len(self.shape)] / np.asarray(self.spacing_mm)
        return float(np.degrees(np.arccos(np.clip(np.abs(axes).max(axis=0).min(), 0.0, 1.0))))

    def offset_mm(self, other: Grid) -> float:
        """Largest distance in mm between the same corner voxel of both grids; 0 when either names no affine."""
        if self.affine is None or other.affine is None:
            return 0.0
        ends = [(0, n - 1) for n in self.shape] + [(0, 0)] * (3 - len(self.shape))
        corners = np.array([(*c, 1) for c in product(*ends)], dtype=np.float64)
        return float(np.linalg.norm((corners @ (self.affine - other.affine).T)[:, :3], axis=1).max())


def read_image(path: str | os.PathLike[str]) -> tuple[np.ndarray, Grid]:
    """Read one image file as channels first.

    Args:
        path: NIfTI (2D, 3D, or 4D with channels last as the Medical Segmentation Decathlon has it; a trailing axis of
            length 1 is dropped, as is the axis of time of a file of vectors, [*S, 1, K]) or a picture (grey, palette or
            RGB of any depth, as it is shown: its EXIF orientation is applied).

    Returns:
        float32 [K, *S] and its grid, as ITK takes it from the header (`sure_fast.data.geometry`).

    Raises:
        DataError: unreadable or truncated file, unknown suffix, NaN or infinity, another number of axes; a picture that
            holds more than is read: several pages, an alpha channel that is not opaque, a mode such as CMYK.
    """
    path = Path(path)
    array, grid = _read(path, label=False)
    dims = len(grid.shape)
    with np.errstate(over="ignore"):
        image = array[None] if array.ndim == dims else np.moveaxis(array, -1, 0)
        image = np.ascontiguousarray(image, dtype=np.float32)
    if image.size == 0:
        raise DataError(f"{path}: expected an image with voxels, got shape {list(array.shape)}")
    if not np.isfinite(image).all():
        bad = int(image.size - np.isfinite(image).sum())
        raise DataError(f"{path}: expected finite intensities, got NaN or infinity in {bad} of {image.size} values")
    return image, grid


def read_label(path: str | os.PathLike[str], label_map: Mapping[int, int] | None = None) -> tuple[np.ndarray, Grid]:
    """Read one label file.

    Args:
        path: NIfTI or picture with whole numbers; a coloured picture, or one of lossy compression, is refused.
        label_map: stored value to class number, such as {0: 2, 128: 1, 255: 0} for REFUGE; a value it lacks is refused.

    Returns:
        int64 [*S] and its grid.

    Raises:
        DataError: unreadable file, values that are not whole numbers or not in `label_map`, more than one channel.
    """
    path = Path(path)
    array, grid = _read(path, label=True)
    if array.ndim > len(grid.shape):
        first = array[..., :1]
        if path.name.lower().endswith(NIFTI_SUFFIXES) or not (array == first).all():
            raise DataError(f"{path}: expected a label with one channel, got {array.shape[-1]} that differ")
        array = first[..., 0]
    if array.dtype.kind == "f":
        rounded = np.rint(array)
        # A stored scale factor may leave 0.9999998 of a 1; anything further off is no class number.
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(array - rounded) <= 1e-3)
        if wrong.any():
            raise DataError(f"{path}: expected whole class numbers in a label, got {float(array[wrong].flat[0]):.6g}")
        array = rounded
    if array.size and (array.max() > LARGEST_LABEL or array.min() < -LARGEST_LABEL):
        largest = max(float(array.max()), -float(array.min()))
        raise DataError(f"{path}: expected class numbers in a label, got a value of size {largest:.6g}")
    label = np.ascontiguousarray(array, dtype=np.int64)
    if label_map is None:
        return label, grid
    mapped = np.empty_like(label)
    known = np.zeros(label.shape, dtype=bool)
    for stored, number in label_map.items():
        here = label == stored
        mapped[here] = number
        known |= here
    if not known.all():
        raise DataError(f"{path}: expected the values {sorted(label_map)} of label_map, got {int(label[~known][0])}")
    return mapped, grid


def load_case(case: Case, *, normalized: bool = False) -> Sample:
    """Read a case, its channels stacked and its label held against its image.

    Args:
        case: from `discover`, or made by hand.
        normalized: apply `normalize` to the image, in its `box` where it has one, with the data set's windows.

    Returns:
        A `Sample`; spacing, orientation and affine are those of the (first) image file. Where `case.info` names an
        orientation, NIfTI voxels are brought to it; without one they stay in the order of the file.

    Raises:
        DataError: a file that cannot be read; channels or label on another grid than the image (shape, or affine by
            more than a tenth of a voxel); labels outside the classes; more or fewer channels than the data set says;
            axes of a labelled case that are not at right angles.
    """
    parts = [read_image(path) for path in case.channel_files]
    grid = parts[0][1]
    for path, (_, other) in zip(case.extra_images, parts[1:], strict=True):
        _check_same_grid(path, other, case.image, grid)
    image = np.concatenate([array for array, _ in parts]) if len(parts) > 1 else parts[0][0]
    info = case.info
    if info is not None and image.shape[0] != info.num_channels:
        raise DataError(
            f"{case.image}: expected {info.num_channels} channels, got {image.shape[0]} "
            f"in {len(parts)} file{'s' if len(parts) > 1 else ''}"
        )
    label = None
    if case.label is not None:
        label, label_grid = read_label(case.label, None if info is None else info.label_map)
        _check_same_grid(case.label, label_grid, case.image, grid)
        if grid.shear_degrees > 1.0:
            raise DataError(
                f"{case.image}: expected axes at right angles, where distances in mm are defined, "
                f"got an affine sheared by {grid.shear_degrees:.1f} degrees"
            )
        _check_range(case, label)
    box = box_of(torch.from_numpy(image)) if info is not None and info.foreground_crop else None
    try:
        pixels = _normalized(image, box, None if info is None else info.windows) if normalized else image
    except DataError as error:
        raise DataError(f"{case.image}: {error}") from None
    stored = grid.orientation
    wanted = stored if info is None or info.orientation is None or stored is None else info.orientation
    affine, spacing = grid.affine, grid.spacing_mm
    if wanted is not None and stored is not None and grid.affine is not None and wanted != stored:
        try:
            pixels = np.ascontiguousarray(reorient(pixels, stored, wanted))
        except DataError as error:
            raise DataError(f"{case.image}: {error}") from None
        label = None if label is None else np.ascontiguousarray(reorient(label, stored, wanted))
        affine = reorient_affine(grid.affine, grid.shape, stored, wanted)
        spacing = reorder(spacing, stored, wanted)
        box = box and tuple(
            (grid.shape[axis] - box[axis][1], grid.shape[axis] - box[axis][0]) if flip else box[axis]
            for axis, flip in order(stored, wanted)
        )
    return Sample(
        image=torch.from_numpy(pixels),
        label=None if label is None else torch.from_numpy(label),
        spacing_mm=spacing,
        affine=affine,
        name=case.name,
        orientation=wanted,
        tilt_degrees=grid.tilt_degrees,
        stored_orientation=stored,
        stored_affine=grid.affine,
        form_code=grid.form_code,
        notes=grid.notes,
        box=box,
    )


def _normalized(image: np.ndarray, box: Box | None, windows: Sequence[Window | None] | None) -> np.ndarray:
    """By the values in the box; 0 around it, where no network looks."""
    if box is None:
        return normalize(image, windows=windows)
    out = np.zeros_like(image, dtype=np.float32)
    out[region(box)] = normalize(image[region(box)], windows=windows)
    return out


def _check_same_grid(path: Path, grid: Grid, image_path: Path, image_grid: Grid) -> None:
    if grid.shape != image_grid.shape:
        raise DataError(f"{path}: expected the shape {list(image_grid.shape)} of {image_path}, got {list(grid.shape)}")
    offset = grid.offset_mm(image_grid)
    # A tenth of a voxel is far beyond the rounding of headers and far below any real shift.
    if not offset <= 0.1 * min(image_grid.spacing_mm):
        raise DataError(f"{path}: expected the affine of {image_path}, got one that is up to {offset:.3g} mm off")


def _check_range(case: Case, label: np.ndarray) -> None:
    info = case.info
    ignore = None if info is None else info.ignore_index
    low_ok = label >= 0
    high_ok = np.ones_like(low_ok) if info is None else label < info.num_classes
    wrong = ~(low_ok & high_ok)
    if ignore is not None:
        wrong &= label != ignore
    if wrong.any():
        wanted = "class numbers >= 0" if info is None else f"class numbers in [0, {info.num_classes})"
        wanted += "" if ignore is None else f" or {ignore} (ignored)"
        hint = "" if info is None or info.label_map is not None else " (--label-map gives other values a class)"
        raise DataError(f"{case.label}: expected {wanted}, got {int(label[wrong][0])}{hint}")


def _read(path: Path, label: bool) -> tuple[np.ndarray, Grid]:
    """The array of a file, spatial axes first, with channels last where it has them."""
    name = path.name.lower()
    if not path.is_file():
        raise DataError(f"{path}: expected a file, got {'a folder' if path.is_dir() else 'nothing there'}")
    if not name.endswith(NIFTI_SUFFIXES + IMAGE_SUFFIXES):
        raise DataError(f"{path}: expected NIfTI (.nii, .nii.gz) or a picture ({', '.join(IMAGE_SUFFIXES)})")
    if name.endswith(NIFTI_SUFFIXES):
        return _read_nifti(path)
    array = read_picture(path, label)
    return array, Grid(array.shape[:2], None, (1.0, 1.0))


def _read_nifti(path: Path) -> tuple[np.ndarray, Grid]:
    import nibabel

    start = check_announced_size(path)
    try:
        # What nibabel would print of a header is told in the notes.
        with nibabel.imageglobals.LoggingOutputSuppressor():
            image: Any = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
        # As stored: nibabel mends what is wrong in a header, not always as ITK takes it.
        geometry = geometry_of(image.header_class(start[: image.header_class.sizeof_hdr], check=False))
    # A damaged file makes nibabel, gzip and zlib raise at least six unrelated kinds, MemoryError among them.
    except Exception as error:
        raise DataError(f"{path}: expected a readable NIfTI file, got {type(error).__name__}: {error}") from None
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path}: expected integer or floating voxels, got dtype {array.dtype}")
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[..., 0, :]
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3, 4):
        raise DataError(f"{path}: expected 2 or 3 spatial axes and at most one of channels, got {list(array.shape)}")
    shape = array.shape[:3]
    affine = geometry.affine
    if not np.isfinite(affine).all():
        raise DataError(f"{path}: expected a finite affine, got NaN or infinity in it")
    spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, : len(shape)], axis=0))
    if not _checks.are_sizes(spacing):
        raise DataError(f"{path}: expected a spacing from 1e-12 to 1e12 mm on every axis, got {spacing}")
    return array, Grid(shape, affine, spacing, geometry.code, geometry.notes)
