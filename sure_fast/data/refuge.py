"""The layout of REFUGE (Orlando et al., Medical Image Analysis 2020): fundus photographs, masks of disc and cup."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sure_fast.data.cases import Case, is_image_file, stem
from sure_fast.data.errors import DataError, Fault
from sure_fast.data.listing import Listing, same_text, tell

MASKS = "disc_cup_masks"
CLASSES = {0: "optic cup", 128: "optic disc rim", 255: "background"}
"""By grey level."""
LABEL_MAP = {255: 0, 128: 1, 0: 2}
NOT_IMAGES = ("annotation", "-gt", "disc_", "mask", "illustration")
"""Parts of the names of folders whose pictures are no photographs."""
PART = re.compile(r"(?<![a-z])(validation|test)")
"""In the names of folders: Test400 and REFUGE-Test-GT, but not latest."""
PARTS = {"training": None, "validation": "val", "test": "test"}


def is_refuge(root: Path) -> bool:
    return root.is_dir() and any(True for _ in _mask_folders(root))


def list_refuge(root: Path, part: str, faults: list[Fault] | None) -> Listing:
    """Training400/ and Annotation-Training400/Disc_Cup_Masks/, both with Glaucoma/ and Non-Glaucoma/; the parts called
    Validation and Test with a folder …-GT/Disc_Cup_Masks/; each may lie in a folder of its own name, as it is unpacked.

    A mask belongs to the photograph of its name in the same part. The parts named for validation and test stay that.
    """
    masks = {key: path for folder in _mask_folders(root) for key, path in _files(root, folder)}
    photographs: dict[tuple[str, str], Path] = {}
    for folder, folders, _ in os.walk(root):
        folders[:] = sorted(name for name in folders if not any(text in name.lower() for text in NOT_IMAGES))
        for key, path in _files(root, Path(folder), deep=False):
            if key in photographs:
                raise DataError(f"{path}: expected one photograph of that name, got also {photographs[key]}")
            photographs[key] = path
    marked = {key[0] for key in masks}
    wanted = {"training": {"training", *marked}, "test": {"test"}, "all": set(PARTS)}[part]
    cases = [
        Case(name, name, path, masks.get((of, name)), part=PARTS[of])
        for (of, name), path in sorted(photographs.items())
        if of in wanted
    ]
    for key in sorted(masks.keys() - photographs.keys()):
        tell(DataError(f"{masks[key]}: expected the photograph {key[1]} of its part, got none"), key[1], faults)
    return Listing(cases, CLASSES, num_channels=3, source=root)


def _mask_folders(root: Path) -> Iterator[Path]:
    for folder, folders, _ in os.walk(root):
        folders.sort()
        for name in [name for name in folders if name.lower() == MASKS]:
            folders.remove(name)
            yield Path(folder) / name


def _files(root: Path, folder: Path, deep: bool = True) -> Iterator[tuple[tuple[str, str], Path]]:
    """((part, name), file) of the pictures in a folder."""
    for path in sorted(folder.rglob("*") if deep else folder.iterdir()):
        if path.is_file() and is_image_file(path):
            yield (_part_of(path.relative_to(root)), same_text(stem(path))), path


def _part_of(path: Path) -> str:
    """From the names of the folders: training where they say nothing."""
    named = PART.search("/".join(path.parts[:-1]).lower())
    return named.group(1) if named else "training"
