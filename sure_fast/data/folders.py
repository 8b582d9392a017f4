"""The layout of two folders: images beside labels, paired by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sure_fast.data.cases import Case, is_image_file, stem
from sure_fast.data.errors import DataError, Fault
from sure_fast.data.listing import Listing, by_stem, channel_of, check_channels, tell

IMAGE_FOLDERS = ("images", "image", "imgs")
LABEL_FOLDERS = ("masks", "labels", "mask", "label", "annotations")
LABEL_ENDINGS = ("", "_mask", "_label", "_labels", "_seg", "_segmentation", "_gt")


def subfolder(root: Path, names: Sequence[str]) -> Path | None:
    """The folder in `root` with one of these names in any case.

    Raises:
        DataError: several, of which none is the right one more than another.
    """
    if not root.is_dir():
        return None
    present = sorted(path for path in root.iterdir() if path.is_dir() and path.name.lower() in names)
    if len(present) > 1:
        both = " and ".join(f"{path.name}/" for path in present)
        raise DataError(f"{root}: expected one folder of {names[0]}, got {both}; rename the one that is not meant")
    return present[0] if present else None


def list_folders(
    root: Path,
    images: str | os.PathLike[str] | None,
    labels: str | os.PathLike[str] | None,
    faults: list[Fault] | None,
) -> Listing:
    """Cases of images/ with the labels of masks/ or labels/; or images alone, in a folder or as one file.

    Channels may be files of their own, NAME_0000, NAME_0001, …, where the label is NAME.
    """
    if root.is_file() and images is None:
        return Listing([Case(stem(root), stem(root), root)], None)
    image_folder = root / images if images is not None else subfolder(root, IMAGE_FOLDERS)
    label_folder = root / labels if labels is not None else subfolder(root, LABEL_FOLDERS)
    if image_folder is None:
        if label_folder is not None:
            raise DataError(f"{root}: expected a folder images/ beside {label_folder.name}/, got none")
        image_folder = root
    for name, folder in (("images", image_folder), ("labels", label_folder)):
        if folder is not None and not folder.is_dir():
            raise DataError(f"{name}: expected a folder, got {folder}, which is none")
    notes: list[str] = []
    files = by_stem(image_folder, notes)
    if not files:
        raise DataError(f"{image_folder}: expected NIfTI or PNG/JPEG images, got none in it")
    label_of = {} if label_folder is None else by_stem(label_folder, notes)
    cases, used = _paired(files, label_of, faults)
    for left in sorted(set(label_of.values()) - used):
        tell(DataError(f"{left}: expected an image of its name in {image_folder}, got none"), stem(left), faults)
    return Listing(cases, None, notes=notes)


def _paired(
    files: dict[str, Path], label_of: dict[str, Path], faults: list[Fault] | None
) -> tuple[list[Case], set[Path]]:
    """Cases, and the labels that belong to an image."""

    def labels_of(name: str) -> list[Path]:
        return [label_of[name + end] for end in LABEL_ENDINGS if name + end in label_of]

    groups: dict[str, dict[int, Path]] = {}
    for name, path in files.items():
        channel = channel_of(name)
        # With a label of its own name the number at its end counts cases, not channels.
        if channel is not None and not labels_of(name) and labels_of(channel[0]):
            groups.setdefault(channel[0], {})[channel[1]] = path
    taken = {path for channels in groups.values() for path in channels.values()}
    every = {name: {0: path} for name, path in files.items() if path not in taken} | groups
    cases, used = [], set()
    for name, channels in sorted(every.items()):
        labels = labels_of(name)
        used.update(labels)
        try:
            if name in groups:
                check_channels(list(channels.values()), list(channels))
            if len(labels) > 1:
                raise DataError(f"{channels[0]}: expected one label, got {labels[0].name} and {labels[1].name}")
            cases.append(_case(name, channels, labels[0] if labels else None))
        except DataError as error:
            tell(error, name, faults)
    return cases, used


def _case(name: str, channels: dict[int, Path], label: Path | None) -> Case:
    ordered = [channels[number] for number in sorted(channels)]
    return Case(name, name, ordered[0], label, tuple(ordered[1:]))


def holds_images(folder: Path) -> bool:
    return any(is_image_file(path) for path in folder.iterdir())
