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

    def take(self, cases: Sequence[Case], overwrite: bool) -> None:
        """Makes sure that what is there is of these weights; with `overwrite` what is not is removed.

        Raises:
            ConfigError: the folder holds something else, or predictions of other weights.
        """
        file = self.path / MANIFEST
        if lock.is_empty(self.path):
            return
        stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if isinstance(stored, dict) and {key: stored.get(key) for key in self._owner} == self._owner:
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

    def files(self, case: Case) -> dict[str, Path]:
        """By kind, where the results of a case go."""
        nifti = case.image.name.lower().endswith(NIFTI_SUFFIXES)
        ending = ".nii.gz" if nifti else ".png"
        kinds = {"segmentation": ending, "uncertainty": ending}
        if self.probabilities:
            kinds["probabilities"] = ".nii.gz" if nifti else ".npz"
        return {kind: self.path / f"{case.name}_{kind}{end}" for kind, end in kinds.items()}

    def is_done(self, case: Case) -> bool:
        """Whether all of a case is there and newer than its image."""
        read = max(path.stat().st_mtime_ns for path in case.channel_files if path.exists())
        return all(path.is_file() and path.stat().st_mtime_ns >= read for path in self.files(case).values())

    def write(
        self, case: Case, sample: Sample, segmentation: np.ndarray, uncertainty: np.ndarray, probabilities: np.ndarray
    ) -> None:
        """Results in the kind of file the image came from, on its own grid.

        Args:
            segmentation: class numbers [*S]. uncertainty: [*S] in [0, 1]. probabilities: [C, *S].
        """
        if not (self.path / MANIFEST).is_file():
            write_text(self.path / MANIFEST, json.dumps({**self._owner, **self._told}, indent=1))
        self.notes.extend(Fault(case.name, f"{case.image}: {note}") for note in sample.notes)
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


def describe(folder: Folder, cases: Sequence[Case], written: int, there: int) -> str:
    """One line: how many images, and which files."""
    kinds = ", ".join(sorted({f"NAME_{path.name[len(case.name) + 1:]}" for case in cases
                              for path in folder.files(case).values()}))  # fmt: skip
    before = f" ({there} were there already)" if there else ""
    return f"{written + there} images{before}: {kinds} in {folder.path}"
