"""The layout with a `dataset.json`: Medical Segmentation Decathlon, nnU-Net v1 and nnU-Net v2."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sure_fast.data.cases import Case, stem
from sure_fast.data.errors import DataError, Fault


@dataclass
class Listing:
    """What a layout found: its cases, and what it says of them (None: it does not say)."""

    cases: list[Case]
    class_names: dict[int, str] | None
    num_channels: int | None = None
    ignore_index: int | None = None


def attempted(make: Callable[[], Case], name: str, faults: list[Fault] | None) -> list[Case]:
    """The case, or, where it is faulty, none and its fault; without a list of faults the error."""
    try:
        return [make()]
    except DataError as error:
        if faults is None:
            raise
        faults.append(Fault(name, str(error)))
        return []


def list_msd_nnunet(root: Path, part: str, faults: list[Fault] | None = None) -> Listing:
    """Cases named by root/dataset.json; every file it names must lie inside `root` and be there."""
    path = root / "dataset.json"
    if not path.is_file():
        raise DataError(f"{path}: expected this file for layout msd_nnunet, got nothing there")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected readable JSON, got {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise DataError(f'{path}: expected an object with "labels", got none')
    class_names, ignore_index = _classes(path, content["labels"])
    channels = content.get("channel_names", content.get("modality"))
    if not isinstance(channels, (dict, list)) or not channels:
        raise DataError(f'{path}: expected "channel_names" or "modality" with at least one channel, got {channels!r}')
    num_channels = len(channels)
    cases: list[Case] = []
    for wanted in ("training", "test") if part == "all" else (part,):
        if wanted == "training" and isinstance(content.get("dataset"), dict):
            cases += _listed_by_name(path, content["dataset"], faults)
        elif isinstance(content.get(wanted), list) and (content[wanted] or "file_ending" not in content):
            cases += _listed_pairs(path, content[wanted], wanted, num_channels, faults)
        elif "file_ending" in content:
            cases += _scanned(path, content["file_ending"], wanted, num_channels, faults)
        elif wanted == "training":
            raise DataError(f'{path}: expected "training" pairs (MSD) or "file_ending" (nnU-Net v2), got neither')
    return Listing(cases, class_names, num_channels, ignore_index)


def _classes(path: Path, labels: dict[str, Any]) -> tuple[dict[int, str], int | None]:
    """MSD writes {"1": "liver"}, nnU-Net v2 {"liver": 1}."""
    numbers: dict[int, str] = {}
    for key, value in labels.items():
        if isinstance(value, (list, tuple)):
            raise DataError(f"{path}: expected one number for label {key!r}, got the region {value}")
        # Number first where the key is one, unless the value is a number too: then the key is a name that looks so.
        name, number = (value, key) if str(key).isdigit() and isinstance(value, str) else (key, value)
        try:
            index = int(number)
        except (TypeError, ValueError):
            raise DataError(f"{path}: expected a number for label {key!r}, got {value!r}") from None
        if index in numbers:
            raise DataError(f"{path}: expected every label number once, got {index} twice")
        numbers[index] = str(name)
    ignore = next((number for number, name in numbers.items() if name == "ignore"), None)
    if ignore is not None:
        del numbers[ignore]
    if sorted(numbers) != list(range(len(numbers))) or len(numbers) < 2:
        raise DataError(f"{path}: expected label numbers 0, 1, … without a gap, at least two, got {sorted(numbers)}")
    return dict(sorted(numbers.items())), ignore


def _inside(path: Path, entry: object) -> Path:
    """The file a dataset.json names, refused when it points out of the data set's folder."""
    if not isinstance(entry, (str, os.PathLike)):
        raise DataError(f"{path}: expected file names, got {entry!r}")
    root = os.path.abspath(path.parent)
    target = os.path.abspath(os.path.join(root, os.fspath(entry)))
    if os.path.commonpath([root, target]) != root or target == root:
        raise DataError(f"{path}: expected files inside {path.parent}, got {entry!r}")
    return path.parent / os.path.relpath(target, root)


def _present(path: Path, file: Path) -> Path:
    if not file.is_file():
        raise DataError(f"{file}: expected this file, named by {path}, got nothing there")
    return file


def _channel_file(image: Path, channel: int) -> Path:
    """NAME.nii.gz → NAME_0001.nii.gz."""
    name = stem(image)
    return image.with_name(f"{name}_{channel:04d}{image.name[len(name) :]}")


def _listed_pairs(
    path: Path, entries: Sequence[Any], part: str, num_channels: int, faults: list[Fault] | None
) -> list[Case]:
    def case(entry: Any) -> Case:
        image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (entry, None)
        if part == "training" and label is None:
            raise DataError(f'{path}: expected "image" and "label" in every training entry, got {entry!r}')
        file = _inside(path, image)
        label_file = None if label is None else _present(path, _inside(path, label))
        files = [file]
        if not file.is_file() and _channel_file(file, 0).is_file():
            # nnU-Net v1 lists NAME.nii.gz and stores one file a channel.
            files = [_present(path, _channel_file(file, c)) for c in range(num_channels)]
        name = stem(file)
        return Case(name, name, _present(path, files[0]), label_file, tuple(files[1:]))

    def name(entry: Any) -> str:
        image = entry.get("image") if isinstance(entry, dict) else entry
        return stem(Path(image)) if isinstance(image, str) else repr(image)

    return [found for entry in entries for found in attempted(partial(case, entry), name(entry), faults)]


def _listed_by_name(path: Path, entries: dict[str, Any], faults: list[Fault] | None) -> list[Case]:
    def case(name: str, entry: Any) -> Case:
        if not isinstance(entry, dict) or not isinstance(entry.get("images"), list) or not entry["images"]:
            raise DataError(f'{path}: expected "images" and "label" for {name!r}, got {entry!r}')
        files = [_present(path, _inside(path, image)) for image in entry["images"]]
        label = _present(path, _inside(path, entry.get("label")))
        return Case(name, name, files[0], label, tuple(files[1:]))

    return [found for name, entry in entries.items() for found in attempted(partial(case, name, entry), name, faults)]


def _scanned(path: Path, ending: object, part: str, num_channels: int, faults: list[Fault] | None) -> list[Case]:
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DataError(f'{path}: expected "file_ending" such as ".nii.gz", got {ending!r}')
    folder = path.parent / ("imagesTr" if part == "training" else "imagesTs")
    label_folder = path.parent / ("labelsTr" if part == "training" else "labelsTs")
    if not folder.is_dir():
        if part == "test":
            return []
        raise DataError(f"{folder}: expected this folder of an nnU-Net data set, got nothing there")

    def case(file: Path) -> Case:
        base = file.name[: -len(ending)]
        if base[-5:-4] != "_" or not base[-4:].isdigit():
            raise DataError(f"{file}: expected a name ending in _0000{ending} (channel number), got none")
        if base[-4:] != "0000":
            raise DataError(f"{file}: expected also channel {base[:-5]}_0000{ending}, got nothing there")
        name = base[:-5]
        more = [folder / f"{name}_{c:04d}{ending}" for c in range(1, num_channels)]
        for other in more:
            _present(path, other)
        if (folder / f"{name}_{num_channels:04d}{ending}").is_file():
            raise DataError(f"{file}: expected {num_channels} channels as {path} says, got also {num_channels:04d}")
        label = label_folder / f"{name}{ending}"
        if part == "training":
            _present(path, label)
        return Case(name, name, file, label if label.is_file() else None, tuple(more))

    files = sorted(p for p in folder.iterdir() if p.name.endswith(ending) and not p.name.startswith("."))
    names = {file.name for file in files}
    cases = []
    for file in files:
        base = file.name[: -len(ending)]
        if base[-5:-4] == "_" and base[-4:].isdigit() and base[-4:] != "0000" and f"{base[:-5]}_0000{ending}" in names:
            continue  # a further channel
        cases += attempted(partial(case, file), base, faults)
    return cases
