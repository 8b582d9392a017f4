"""The images of a folder to predict on: a file each, or as nnU-Net names them a file each channel."""

from __future__ import annotations

import re
from pathlib import Path

from sure_fast.data.cases import Case, is_image_file, stem
from sure_fast.data.errors import DataError, Fault
from sure_fast.data.layouts import discover

CHANNEL = re.compile(r"^(.+)_(\d{4})$")
INNER = ("imagesTs", "images", "imagesTr")
"""Folders that are looked into where a folder holds no image itself."""


def list_inputs(
    root: Path, num_channels: int, *, layout: str = "auto", faults: list[Fault] | None = None
) -> list[Case]:
    """The images to predict on, sorted by name.

    Args:
        root: an image file, a folder of images, or a data set (with `dataset.json`, or where a `layout` is given).
        num_channels: of the network. As many files NAME_0000, NAME_0001 … are the channels of one image; a single
            NAME_0000 may hold all of them.
        layout: as of `discover`.
        faults: where a list is given, an image whose files are not complete is told there, rather than refused.

    Raises:
        DataError: nothing there, no image, or two images of one name.
    """
    if not root.exists():
        raise DataError(f"{root}: expected an image or a folder of images, got nothing there")
    if root.is_file():
        return [_of_file(root, num_channels)]
    if layout != "auto" or (root / "dataset.json").is_file():
        return list(discover(root, layout, part="all", require_labels=False, faults=faults))
    folders = [root, *(root / name for name in INNER if (root / name).is_dir())]
    files = next((listed for listed in map(_images, folders) if listed), [])
    if not files:
        entries = sorted(path.name for path in root.iterdir())
        listed = ", ".join(entries[:5]) + (", …" if len(entries) > 5 else "") if entries else "an empty folder"
        raise DataError(f"{root}: expected NIfTI, PNG, JPEG or TIFF images, got {listed}")
    groups: dict[str, list[Path]] = {}
    by_channel = all(CHANNEL.match(stem(path)) for path in files)
    if num_channels == 1 and any(not stem(path).endswith("_0000") for path in files):
        by_channel = False  # of a network of one channel the numbers count images, such as frames
    for path in files:
        match = CHANNEL.match(stem(path)) if by_channel else None
        groups.setdefault(match.group(1) if match else stem(path), []).append(path)
    cases = []
    for name, paths in sorted(groups.items()):
        try:
            cases.append(_case(name, paths, num_channels, by_channel))
        except DataError as error:
            if faults is None:
                raise
            faults.append(Fault(name, str(error)))
    return cases


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and is_image_file(path))


def _of_file(path: Path, num_channels: int) -> Case:
    """A file, together with those of its other channels where it is nnU-Net's first of several."""
    match = CHANNEL.match(stem(path))
    if match is None or num_channels == 1 or match.group(2) != "0000":
        return Case(stem(path), stem(path), path)
    others = [other for other in _images(path.parent) if _is_channel_of(other, match.group(1))]
    return _case(match.group(1), others, num_channels, True)


def _is_channel_of(path: Path, name: str) -> bool:
    match = CHANNEL.match(stem(path))
    return match is not None and match.group(1) == name


def _case(name: str, paths: list[Path], num_channels: int, by_channel: bool) -> Case:
    if not by_channel:
        if len(paths) > 1:
            raise DataError(f"{paths[1]}: expected one image of that name, got also {paths[0].name}")
        return Case(name, name, paths[0])
    numbers = [stem(path)[-4:] for path in paths]
    wanted = [f"{k:04}" for k in range(num_channels)]
    if numbers not in (wanted, ["0000"]):
        raise DataError(
            f"{paths[0].parent}: expected the channels {', '.join(f'{name}_{k}' for k in wanted)}, "
            f"got {', '.join(path.name for path in paths)}"
        )
    return Case(name, name, paths[0], None, tuple(paths[1:]))
