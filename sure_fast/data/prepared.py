"""Cases ready for cropping, in memory or as memory-mapped files in a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sure_fast.data.cases import Case
from sure_fast.data.errors import DataError
from sure_fast.data.reading import Sample, load_case
from sure_fast.data.resampling import inside, resample, resample_label, target_size

FORMAT = "sure_fast case 3"
BLOCK = 2**20
PREPARATION = ("ignore_index", "orientation", "spacing", "resize", "foreground_crop", "windows", "slice_axis")
"""What of a data set's `info` changes how a case is prepared."""


@dataclass
class Prepared:
    """A normalised case on the network's grid; where it is seen slice by slice, the slices are the first axis."""

    image: np.ndarray
    """float32 [K, *S]."""
    label: np.ndarray
    """int16 or int64 [*S]."""
    counts: np.ndarray
    """counts[c, i] = voxels of class c in the i-th slab along the first axis."""


def prepare(case: Case, num_classes: int) -> Prepared:
    """Reads and normalises a labelled case; DataError where its labels are not classes."""
    sample = load_case(case, normalized=True)
    assert sample.label is not None
    image, label = _on_grid(case, sample, num_classes)
    _check_classes(case, label, num_classes)
    counts = np.stack([(label == c).sum(axis=tuple(range(1, label.ndim))) for c in range(num_classes)])
    small = label.astype(np.int16) if num_classes < 2**15 and np.abs(label).max(initial=0) < 2**15 else label
    return Prepared(image, small, counts)


def _on_grid(case: Case, sample: Sample, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Image [K, *S] and label [*S] as the network sees them."""
    image, label, info = sample.image, sample.label, case.info
    assert label is not None
    if info is None:
        return image.numpy(), label.numpy()
    image, label = inside(sample.box, image), inside(sample.box, label)
    size = target_size(label.shape, sample.spacing_mm, info)
    if size != tuple(label.shape):
        _check_classes(case, label.numpy(), num_classes)  # a value that is no class would become one
        image = resample(image[None], size)[0]
        label = resample_label(label, size, num_classes, info.ignore_index)
    if info.slice_axis is not None:
        image, label = image.movedim(info.slice_axis + 1, 1), label.movedim(info.slice_axis, 0)
    return image.contiguous().numpy(), label.contiguous().numpy()


def _check_classes(case: Case, label: np.ndarray, num_classes: int) -> None:
    outside = (label < 0) | (label >= num_classes)
    if case.info is not None and case.info.ignore_index is not None:
        outside &= label != case.info.ignore_index
    if outside.any():
        bad = int(label[outside][0])
        raise DataError(f"{case.label}: expected class numbers in [0, {num_classes}), got {bad}")


class DiskCache:
    """Prepared cases as arrays in a folder, found by the content of the files they come from.

    A changed file, label map, preparation or number of classes gives another entry; an entry appears whole or not at
    all, so that several processes and runs may share the folder.

    Args:
        folder: made where it is not there; needs 6 bytes a voxel of one channel, 4 more a further one.
        num_classes: C.
    """

    def __init__(self, folder: str | os.PathLike[str], num_classes: int) -> None:
        self.folder, self.num_classes = Path(folder), num_classes

    def key(self, case: Case) -> str:
        """SHA-256 of what the entry follows from."""
        info = case.info
        options: list[Any] = [FORMAT, self.num_classes]
        if info is not None:
            options += [getattr(info, name) for name in PREPARATION]
        mapping = None if info is None or info.label_map is None else sorted(info.label_map.items())
        digest = hashlib.sha256(json.dumps([*options, mapping]).encode())
        for path in (*case.channel_files, *([case.label] if case.label else [])):
            try:
                digest.update(path.stat().st_size.to_bytes(8, "little"))
                with open(path, "rb") as file:
                    while block := file.read(BLOCK):
                        digest.update(block)
            except OSError as error:
                raise DataError(f"{path}: expected a readable file, got {error.strerror or error}") from None
        return digest.hexdigest()

    def store(self, case: Case) -> str:
        """Makes the entry of a case where there is none; its key."""
        key = self.key(case)
        if not self.has(key):
            prepared = prepare(case, self.num_classes)
            target = self.folder / key
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{key[:16]}-", suffix=".partial", dir=self.folder))
            try:
                for name, array in vars(prepared).items():
                    np.save(partial / f"{name}.npy", array)
                with contextlib.suppress(OSError):  # another process was first
                    os.rename(partial, target)
                if not self.has(key):
                    raise DataError(f"{target}: expected to become a folder of the cache, and did not")
            except OSError as error:
                raise DataError(f"{partial}: cannot be written: {error.strerror or error}") from None
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return key

    def has(self, key: str) -> bool:
        return (self.folder / key).is_dir()

    def load(self, key: str) -> Prepared:
        """The entry, its image and label memory-mapped: what is not looked at is not read."""
        folder = self.folder / key
        try:
            image, label = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("image", "label"))
            return Prepared(image, label, np.load(folder / "counts.npy"))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{folder}: expected a whole entry of the cache, got {error}; remove this folder") from None
