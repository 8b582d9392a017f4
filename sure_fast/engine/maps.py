"""Segmentations and maps of any tool: found by the name of the case, and held against the image they are of."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data import DataError, Sample, read_image, read_label
from ..data.cases import IMAGE_SUFFIXES, NIFTI_SUFFIXES, Case
from ..data.orientation import reorient, reorient_affine
from ..data.reading import Grid
from .prediction import Prediction, entropy_of

SEGMENTATION, UNCERTAINTY, PROBABILITIES = KINDS = ("segmentation", "uncertainty", "probabilities")
ENDINGS = {
    SEGMENTATION: ("", "_segmentation", "_seg", "_prediction", "_pred", "_trans"),
    UNCERTAINTY: ("", "_uncertainty", "_entropy", "_trans"),
    PROBABILITIES: ("", "_probabilities", "_softmax", "_prob", "_trans"),
}
"""What may stand behind the name of a case; _trans is MONAI's."""
SUFFIXES = {
    SEGMENTATION: (*NIFTI_SUFFIXES, *IMAGE_SUFFIXES),
    UNCERTAINTY: (*NIFTI_SUFFIXES, ".png", ".tif", ".tiff"),
    PROBABILITIES: (*NIFTI_SUFFIXES, ".npz"),
}
AGREE = 0.9
"""Share of voxels in which the most probable class has to be that of the segmentation beside it."""


@dataclass(frozen=True)
class MapFolders:
    """Where a tool's results lie, a file a case; None: it has none of this kind."""

    segmentation: Path | None = None
    uncertainty: Path | None = None
    probabilities: Path | None = None
    noisy: tuple[Path, ...] = ()
    """Of uncertainty, or probabilities, under rising noise."""
    largest: float = 1.0
    """The uncertainty that counts as 1."""

    @staticmethod
    def of(
        predictions: Path | None = None,
        uncertainty: Path | None = None,
        probabilities: Path | None = None,
        noisy: Sequence[Path] = (),
        largest: float = 1.0,
    ) -> MapFolders:
        """The folders that are named; what is not, where `predictions` is given, as it is found beside it.

        Raises:
            ValueError: a folder that is not there; neither segmentations nor probabilities.
        """
        if not 0 < largest < math.inf:
            raise ValueError(f"uncertainty-max: expected a number above 0, got {largest}")
        named = (("uncertainty", uncertainty), ("probabilities", probabilities), *(("noisy", path) for path in noisy))
        for name, folder in named:
            if folder is not None and not folder.is_dir():
                raise DataError(f"{name} {folder}: expected a folder, got {'a file' if folder.exists() else 'nothing'}")
        found = MapFolders() if predictions is None else MapFolders.found_in(predictions)
        if found.segmentation is None and probabilities is None:
            raise ValueError("predictions: expected a folder of segmentations, or --probabilities DIR, got neither")
        folders = MapFolders(
            found.segmentation,
            _inner(uncertainty, UNCERTAINTY) or found.uncertainty,
            _inner(probabilities, PROBABILITIES) or found.probabilities,
            tuple(noisy) or found.noisy,
            largest,
        )
        if largest != 1 and folders.uncertainty is None and not folders.noisy:
            raise ValueError(f"uncertainty-max: expected with uncertainty maps only, got {largest:g} without any")
        return folders

    @staticmethod
    def found_in(folder: Path) -> MapFolders:
        """Of a folder of segmentations CASE or CASE_segmentation: maps CASE_uncertainty, or in its folder uncertainty/,
        the same of probabilities, CASE.npz as nnU-Net writes it, and noisy*/ in the order of their numbers."""
        if not folder.is_dir():
            raise DataError(
                f"predictions {folder}: expected a folder, got {'a file' if folder.exists() else 'nothing'}"
            )
        parts = {}
        for kind in (UNCERTAINTY, PROBABILITIES):
            beside = any(folder.glob(f"*_{kind}.*")) or (kind == PROBABILITIES and any(folder.glob("*.npz")))
            parts[kind] = folder / kind if (folder / kind).is_dir() else folder if beside else None
        noisy = tuple(sorted((path for path in folder.glob("noisy*") if path.is_dir()), key=_by_number))
        return MapFolders(folder, parts[UNCERTAINTY], parts[PROBABILITIES], noisy)

    def file(self, case: str, kind: str) -> Path | None:
        """The file of a case; None where there is none, or none of this kind.

        Raises:
            DataError: several.
        """
        return self._file(getattr(self, kind), case, kind)

    def _file(self, folder: Path | None, case: str, kind: str) -> Path | None:
        if folder is None:
            return None
        for ending in ENDINGS[kind]:
            suffixes = SUFFIXES[kind]
            beside = self.segmentation is not None and folder.resolve() == self.segmentation.resolve()
            if not ending and kind != SEGMENTATION and beside:
                suffixes = tuple(suffix for suffix in suffixes if suffix == ".npz")  # the others are segmentations
            names = [f"{case}{ending}{suffix}" for suffix in suffixes]
            found = [path for place in (folder, folder / case) for path in map(place.joinpath, names) if path.is_file()]
            if len(found) > 1:
                raise DataError(f"{found[0]}: expected one {kind} of the case, got also {found[1]}")
            if found:
                return found[0]
        return None

    def noisy_files(self, case: str) -> list[tuple[Path, str]]:
        """Files under rising noise with their kind: as in a folder of predictions, or files alone, of the kind that the
        maps without noise are of.

        Raises:
            DataError: a folder without one.
        """
        files = []
        own = PROBABILITIES if self.uncertainty is None and self.probabilities is not None else UNCERTAINTY
        for folder in self.noisy:
            of = MapFolders.found_in(folder)
            found = [(of.file(case, kind), kind) for kind in (UNCERTAINTY, PROBABILITIES)]
            found.append((self._file(folder, case, own), own) if of.kinds == [SEGMENTATION] else (None, own))
            one = next(((path, kind) for path, kind in found if path is not None), None)
            if one is None:
                raise DataError(f"noisy {folder}: expected {case}.nii.gz or another map of this case, got none")
            files.append(one)
        return files

    @property
    def kinds(self) -> list[str]:
        return [kind for kind in KINDS if getattr(self, kind) is not None]

    def choose(self, cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        """The labelled cases of which there is a result, and notes on what is missing.

        Raises:
            DataError: none; a case with one kind of result and not with another.
        """
        chosen, labelled = [], [case for case in cases if case.label is not None]
        for case in labelled:
            there = {kind: self.file(case.name, kind) is not None for kind in self.kinds}
            if any(there.values()):
                missing = next((kind for kind, found in there.items() if not found), None)
                if missing is not None:
                    raise DataError(
                        f"{missing} {getattr(self, missing)}: expected a file of case {case.name}, of which there is "
                        f"another kind of result, got none"
                    )
                chosen.append(case)
        if not chosen:
            folder = getattr(self, self.kinds[0])
            example = labelled[0].name if labelled else "a case"
            entries = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
            listed = ", ".join(entries[:3]) + (", …" if len(entries) > 3 else "") or "nothing"
            raise DataError(
                f"{self.kinds[0]} {folder}: expected files named as the cases, such as {example}.nii.gz, got {listed}"
            )
        left = len(labelled) - len(chosen)
        notes = [f"{left} of {len(labelled)} labelled cases have no prediction and are left out"] if left else []
        return chosen, notes


def _by_number(path: Path) -> list[tuple[int, str]]:
    """noisy-2 before noisy-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _inner(folder: Path | None, kind: str) -> Path | None:
    """The folder of maps within a whole folder of predictions, or the folder itself."""
    return folder if folder is None or not (folder / kind).is_dir() else folder / kind


def load(folders: MapFolders, case: Case, sample: Sample, classes: int) -> tuple[Prediction, list[Tensor]]:
    """What a tool says of a case, and its uncertainty [1, *S] under rising noise.

    Args:
        sample: the case as it was read: its voxels are those of the result. classes: C.

    Raises:
        DataError: a file that cannot be read, lies on another grid, or holds something else.
    """
    files = {kind: path for kind in KINDS if (path := folders.file(case.name, kind)) is not None}
    known, p, u = set(), None, None
    if PROBABILITIES in files:
        p = _probabilities(files[PROBABILITIES], sample, classes)
        u = entropy_of(p)
        known = {PROBABILITIES, UNCERTAINTY}
    if UNCERTAINTY in files:
        u = _uncertainty(files[UNCERTAINTY], sample, folders.largest)
        known.add(UNCERTAINTY)
    if SEGMENTATION in files:
        segmentation = _segmentation(files[SEGMENTATION], case, sample, classes)
        if p is not None:
            _check_agreement(files, p, segmentation)
    else:
        assert p is not None
        segmentation = p.argmax(1)
    if p is None:
        p = torch.nn.functional.one_hot(segmentation, classes).movedim(-1, 1).float()
    if u is None:
        u = torch.zeros_like(p[:, 0])
    prediction = Prediction(p, u, segmentation=segmentation, known=frozenset(known))
    noisy = [
        _uncertainty(path, sample, folders.largest) if kind == UNCERTAINTY else
        entropy_of(_probabilities(path, sample, classes))
        for path, kind in folders.noisy_files(case.name)
    ]  # fmt: skip
    return prediction, noisy


def _segmentation(path: Path, case: Case, sample: Sample, classes: int) -> Tensor:
    """[1, *S]: class numbers, or the values that labels are stored as."""
    label, grid = read_label(path)
    if label.min(initial=0) < 0 or label.max(initial=0) >= classes:
        label_map = None if case.info is None else case.info.label_map
        if label_map is None or not set(np.unique(label).tolist()) <= set(label_map):
            wrong = label.min() if label.min() < 0 else label.max()
            raise DataError(f"{path}: expected class numbers in [0, {classes}), got {int(wrong)}")
        label, grid = read_label(path, label_map)
    return torch.from_numpy(_on_grid(path, label[None], grid, sample)).long()


def _uncertainty(path: Path, sample: Sample, largest: float) -> Tensor:
    """[1, *S] in [0, 1]; of several maps, such as one a region, the largest."""
    u, grid = read_image(path)
    if grid.affine is None:
        if largest != 1:
            raise DataError(
                f"{path}: expected no --uncertainty-max with pictures, whose depth tells it, got {largest:g}"
            )
        largest = _largest_of_picture(path)
    u = _on_grid(path, u, grid, sample).max(0, keepdims=True) / largest
    if u.size and not (u.min() >= 0 and u.max() <= 1 + 1e-5):
        raise DataError(
            f"{path}: expected an uncertainty in [0, {largest:g}] (--uncertainty-max gives another largest value), got "
            f"{float(u.min()) * largest:.4g} to {float(u.max()) * largest:.4g}"
        )
    if largest == 1 and u.any() and not (u % 1).any():
        raise DataError(f"{path}: expected an uncertainty, got whole numbers alone, as a segmentation holds")
    return torch.from_numpy(u.clip(0, 1).astype(np.float32))


def _largest_of_picture(path: Path) -> float:
    """The number that a picture of its depth stores for 1."""
    from PIL import Image

    with Image.open(path) as picture:
        return 255.0 if picture.mode in ("L", "P", "RGB") else 1.0 if picture.mode == "F" else 65535.0


def _probabilities(path: Path, sample: Sample, classes: int) -> Tensor:
    """[1, C, *S], float32; of two classes that of the second is enough."""
    if path.suffix == ".npz":
        p = _of_archive(path, sample)
    else:
        stored, grid = read_image(path)
        p = _on_grid(path, stored, grid, sample)
    if len(p) == 1 and classes == 2:
        p = np.concatenate([1 - p, p])
    if len(p) != classes:
        raise DataError(f"{path}: expected the probabilities of {classes} classes, got {len(p)} channels")
    wrong = not (np.isfinite(p).all() and p.min(initial=0) >= -1e-3 and p.max(initial=0) <= 1 + 1e-3)
    if wrong or (p.size and np.abs(p.sum(0) - 1).max() > 1e-2):
        raise DataError(f"{path}: expected probabilities in [0, 1] that add up to 1 in every voxel, got others")
    p = p.clip(0, 1)
    return torch.from_numpy((p / p.sum(0)).astype(np.float32))[None]


def _of_archive(path: Path, sample: Sample) -> np.ndarray:
    """nnU-Net's CASE.npz: [C, z, y, x], of a picture [C, 1, y, x] or [C, y, x]."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = list(archive.keys())
            name = PROBABILITIES if PROBABILITIES in keys else keys[0] if len(keys) == 1 else ""
            p = np.asarray(archive[name], dtype=np.float32)
    except Exception as error:  # NumPy and zipfile raise many unrelated kinds
        raise DataError(f"{path}: expected an archive with {PROBABILITIES!r}, got {error}") from None
    if sample.affine is None:
        p = p[:, 0] if p.ndim == 4 and p.shape[1] == 1 else p
    else:
        p = p.transpose(0, *range(p.ndim - 1, 0, -1))  # as NIfTI stores it
        if sample.stored_orientation and sample.orientation and p.ndim == len(sample.stored_orientation) + 1:
            p = reorient(p, sample.stored_orientation, sample.orientation)
    if p.shape[1:] != sample.image.shape[1:]:
        raise DataError(
            f"{path}: expected the shape {list(sample.image.shape[1:])} of the image, got {list(p.shape[1:])}"
        )
    return np.ascontiguousarray(p)


def _check_agreement(files: dict[str, Path], p: Tensor, segmentation: Tensor) -> None:
    agree = float((p.argmax(1) == segmentation).double().mean())
    if agree < AGREE:
        raise DataError(
            f"{files[PROBABILITIES]}: expected {files[SEGMENTATION]} to hold its most probable classes, got them in "
            f"{agree:.0%} of the voxels"
        )


def _on_grid(path: Path, array: np.ndarray, grid: Grid, sample: Sample) -> np.ndarray:
    """An array [K, *S] in the voxel order of the sample.

    Raises:
        DataError: it lies elsewhere.
    """
    shape, affine = grid.shape, grid.affine
    if affine is not None and sample.affine is not None and sample.orientation and grid.orientation:
        source, target = grid.orientation, sample.orientation
        if len(source) == len(target) and source != target:
            try:
                array = reorient(array, source, target)
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
            affine = reorient_affine(affine, shape, source, target)
            shape = array.shape[1:]
    wanted = tuple(sample.image.shape[1:])
    if tuple(shape) != wanted:
        raise DataError(f"{path}: expected the shape {list(wanted)} of the image, got {list(shape)}")
    own, other = (Grid(wanted, a, tuple(sample.spacing_mm)) for a in (affine, sample.affine))
    offset = own.offset_mm(other)
    if not offset <= 0.1 * min(sample.spacing_mm):
        raise DataError(f"{path}: expected the affine of the image, got one that is up to {offset:.3g} mm off")
    return np.ascontiguousarray(array)
