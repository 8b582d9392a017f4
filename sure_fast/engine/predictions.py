"""A folder of predictions: what is written of an image, whose it is, and what is still missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..data import Fault, Sample, save_nifti
from ..data.cases import NIFTI_SUFFIXES, Case
from ..data.writing import HEADERS, MANIFEST
from . import lock
from .config import ConfigError
from .files import replacing, write_text


class Folder:
    """Predictions of one set of weights.

    Args:
        checkpoint: fingerprint of the weights.
        probabilities: α / A, or the softmax methods' mean probabilities, are written too.
        told: plain data that the folder's manifest tells too.
    """

    def __init__(self, path: Path, checkpoint: str, probabilities: bool = False, **told: Any) -> None:
        self.path, self.probabilities = path, probabilities
        self.notes: list[Fault] = []
        """What is to be known of the images that were written of."""
        self._owner = {"checkpoint": checkpoint, "sure_fast": __version__}
        self._told = told
        self._images: dict[str, list[list[Any]]] = {}
        """Of each case whose results are there: name, size and time of change of its image's files."""

    def take(self, cases: Sequence[Case], overwrite: bool) -> None:
        """Makes sure that what is there is of these weights; with `overwrite` what is not is removed.

        Raises:
            ConfigError: the folder holds something else, or predictions of other weights.
        """
        file = self.path / MANIFEST
        if lock.is_empty(self.path):
            return
        stored = self._stored(file, overwrite)
        if stored is not None and {key: stored.get(key) for key in self._owner} == self._owner:
            self._images = stored.get("images", {})
            return
        if not overwrite and stored is None:
            raise ConfigError(
                f"output {self.path}: expected a new or empty folder (or --overwrite), got one with files"
            )
        if not overwrite:
            raise ConfigError(
                f"output {self.path}: holds predictions of other weights; choose another output, or --overwrite"
            )
        for case in cases:
            for path in self.files(case).values():
                path.unlink(missing_ok=True)
        file.unlink(missing_ok=True)

    def _stored(self, file: Path, overwrite: bool) -> dict[str, Any] | None:
        """What the manifest tells, None where there is none; with `overwrite` also where it is damaged."""
        if not file.is_file():
            return None
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            stored = None
        if isinstance(stored, dict) and isinstance(stored.get("images", {}), dict):
            return stored
        if not overwrite:
            raise ConfigError(f"{file}: expected what predict wrote there, got a damaged file; --overwrite replaces it")
        return None

    def files(self, case: Case) -> dict[str, Path]:
        """By kind, where the results of a case go."""
        nifti = case.image.name.lower().endswith(NIFTI_SUFFIXES)
        ending = ".nii.gz" if nifti else ".png"
        kinds = {"segmentation": ending, "uncertainty": ending}
        if self.probabilities:
            kinds["probabilities"] = ".nii.gz" if nifti else ".npz"
        return {kind: self.path / f"{case.name}_{kind}{end}" for kind, end in kinds.items()}

    def is_done(self, case: Case) -> bool:
        """Whether all of a case is there, of the image that the case has now."""
        return self._images.get(case.name) == _identity(case) and all(map(Path.is_file, self.files(case).values()))

    def write(
        self, case: Case, sample: Sample, segmentation: np.ndarray, uncertainty: np.ndarray, probabilities: np.ndarray
    ) -> None:
        """Results in the kind of file the image came from, on its own grid.

        Args:
            segmentation: class numbers [*S]. uncertainty: [*S] in [0, 1]. probabilities: [C, *S].
        """
        self._tell(case, None)
        self.notes.extend(Fault(case.name, f"{case.image}: {note}") for note in sample.notes)
        self._save(case, sample, segmentation, uncertainty, probabilities)
        self._tell(case, _identity(case))

    def _tell(self, case: Case, image: list[list[Any]] | None) -> None:
        """Writes the manifest, in which a case is one of this image; None: its results are being written."""
        recorded = self._images.pop(case.name, None) is not None
        if image is None and not recorded and (self.path / MANIFEST).is_file():
            return
        if image is not None:
            self._images[case.name] = image
        content = {**self._owner, **self._told, "images": self._images}
        write_text(self.path / MANIFEST, json.dumps(content, indent=1))

    def _save(
        self, case: Case, sample: Sample, segmentation: np.ndarray, uncertainty: np.ndarray, probabilities: np.ndarray
    ) -> None:
        files = self.files(case)
        if sample.affine is not None:
            arrays = {"segmentation": segmentation, "uncertainty": uncertainty.astype(np.float32)}
            if self.probabilities:
                arrays["probabilities"] = np.moveaxis(probabilities, 0, -1).astype(np.float32)
            for kind, array in arrays.items():
                channels_first = np.moveaxis(array, -1, 0) if kind == "probabilities" else array
                stored = sample.as_stored(channels_first)
                stored = np.moveaxis(stored, 0, -1) if kind == "probabilities" else stored
                save_nifti(files[kind], stored, sample.stored_affine, form_code=sample.form_code, **HEADERS[kind])
            return
        from PIL import Image

        sixteen = (uncertainty.clip(0, 1) * 65535).round().astype(np.uint16)
        for kind, array in (("segmentation", segmentation), ("uncertainty", sixteen)):
            with replacing(files[kind]) as file:
                Image.fromarray(array).save(file, format="PNG")
        if self.probabilities:
            with replacing(files["probabilities"]) as file:
                np.savez_compressed(file, probabilities=probabilities)


def _identity(case: Case) -> list[list[Any]]:
    """What tells an image from another of its name, wherever it lies."""
    return [[path.name, (now := path.stat()).st_size, now.st_mtime_ns] for path in case.channel_files if path.exists()]


def describe(folder: Folder, cases: Sequence[Case], written: int, there: int) -> str:
    """One line: how many images, and which files."""
    kinds = ", ".join(sorted({f"NAME_{path.name[len(case.name) + 1:]}" for case in cases
                              for path in folder.files(case).values()}))  # fmt: skip
    before = f" ({there} were there already)" if there else ""
    return f"{written + there} images{before}: {kinds} in {folder.path}"
