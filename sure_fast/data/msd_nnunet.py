"""The layout with a `dataset.json`: Medical Segmentation Decathlon, MONAI, nnU-Net v1 and nnU-Net v2."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sure_fast.data.cases import Case, is_image_file, is_picture, stem
from sure_fast.data.errors import DataError, Fault
from sure_fast.data.listing import PASSED_OVER, Listing, attempted, channel_of, listed, same_text, tell
from sure_fast.data.pictures import stored_channels


def list_msd_nnunet(root: Path, part: str, faults: list[Fault] | None = None) -> Listing:
    """Cases named by root/dataset.json; every file it names must lie inside `root` and be there.

    Where it names none but a `file_ending` (nnU-Net v2), the files of imagesTr and labelsTr: each must belong to a
    case, and their number must be that of `numTraining`.
    """
    path = root / "dataset.json"
    if not path.is_file():
        raise DataError(f"{path}: expected this file for layout msd_nnunet, got nothing there")
    content = _content(path)
    listing = _classes(path, content["labels"])
    channels = content.get("channel_names", content.get("modality"))
    if not isinstance(channels, (dict, list)) or not channels:
        raise DataError(f'{path}: expected "channel_names" or "modality" with at least one channel, got {channels!r}')
    listing.num_channels = len(channels)
    listing.channel_names = tuple(map(str, channels if isinstance(channels, list) else channels.values()))
    for wanted in ("training", "test") if part == "all" else (part,):
        if wanted == "training" and isinstance(content.get("dataset"), dict):
            listed = _listed_by_name(path, content["dataset"], faults)
            listing.notes += _number_noted(path, content, len(listed))
        elif isinstance(content.get(wanted), list) and (content[wanted] or "file_ending" not in content):
            listed = _listed_pairs(path, content[wanted], wanted, len(channels), faults)
            if wanted == "training":
                listed += _validation(path, content, len(channels), faults)
                listing.notes += _number_noted(path, content, len(content["training"]), len(listed))
                if any(isinstance(entry, dict) and "fold" in entry for entry in content["training"]):
                    listing.notes.append(f'{path}: the "fold" of its entries is not read; give --fold or --split')
        elif "file_ending" in content:
            before = len(faults or ())
            listed = _scanned(path, content["file_ending"], wanted, len(channels), faults, listing.notes)
            if wanted == "training":
                _check_number(path, content, [*listed, *(faults or ())[before:]])
        elif wanted == "training":
            raise DataError(f'{path}: expected "training" pairs (MSD) or "file_ending" (nnU-Net v2), got neither')
        else:
            listed = []
        listing.cases += listed
    return listing


def _content(path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
        if twice is not None:
            raise ValueError(f"the key {twice!r} twice")
        return dict(pairs)

    try:
        # Bytes: a byte order mark tells the encoding.
        content = json.loads(path.read_bytes(), object_pairs_hook=once)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected readable JSON, got {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        got = type(content).__name__ if not isinstance(content, dict) else repr(content.get("labels"))
        raise DataError(f'{path}: expected an object with "labels", numbers with names, got {got:.80}')
    return content


def _classes(path: Path, labels: dict[str, Any]) -> Listing:
    """MSD writes {"1": "liver"}, nnU-Net v2 {"liver": 1}."""
    numbers: dict[int, str] = {}
    regions: list[str] = []
    for key, value in labels.items():
        if isinstance(value, (list, tuple)):
            regions.append(f"{key!r}, got the region {list(value)}")
            continue
        # Number first where the key is one, unless the value is a number too: then the key is a name that looks so.
        name, number = (value, key) if _is_number(key) and isinstance(value, str) and not _is_number(value) else (
            key, value)  # fmt: skip
        try:
            index = int(number)
            if isinstance(number, bool) or index != float(number):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise DataError(f"{path}: expected a number for label {key!r}, a whole one, got {value!r}") from None
        if index in numbers:
            raise DataError(f"{path}: expected every label number once, got {index} twice")
        if name in numbers.values():
            raise DataError(f"{path}: expected every label name once, got {name!r} twice")
        if str(name) != "ignore" and str(name).lower() in ("ignore", "ignored", "void", "unlabeled", "unlabelled"):
            raise DataError(
                f"{path}: expected 'ignore' for what is not annotated, or another name for a class, got {name!r}"
            )
        numbers[index] = str(name)
    ignore = next((number for number, name in numbers.items() if name == "ignore"), None)
    if ignore is not None:
        del numbers[ignore]
    return Listing([], dict(sorted(numbers.items())), ignore_index=ignore, regions=tuple(regions), source=path)


def _is_number(text: object) -> bool:
    return isinstance(text, str) and text.strip().lstrip("-").isdigit()


def _number_noted(path: Path, content: dict[str, Any], *counts: int) -> list[str]:
    """A list is what counts, whatever `numTraining` says beside it."""
    wanted = content.get("numTraining")
    if not isinstance(wanted, int) or wanted in counts:
        return []
    return [f"{path}: lists {counts[0]} training cases, and says numTraining {wanted}; those of the list are used"]


def _check_number(path: Path, content: dict[str, Any], listed: Sequence[Case | Fault]) -> None:
    """Cases that cannot be used count too: they are told apart."""
    wanted = content.get("numTraining")
    names = {entry.name if isinstance(entry, Case) else entry.case for entry in listed}
    count = len({channel[0] if (channel := channel_of(name)) else name for name in names})
    if isinstance(wanted, int) and wanted != count:
        raise DataError(f"{path}: expected the {wanted} training cases of numTraining, got {count} in imagesTr")


def _inside(path: Path, entry: object) -> Path:
    """The file a dataset.json names, refused when it points out of the data set's folder."""
    if not isinstance(entry, (str, os.PathLike)):
        raise DataError(f"{path}: expected file names, got {entry!r}")
    root = os.path.abspath(path.parent)
    name = os.fspath(entry)
    if "\\" in name and not os.path.exists(os.path.join(root, name)):
        name = name.replace("\\", "/")  # written on Windows
    target = os.path.abspath(os.path.join(root, name))
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


def _files_of(path: Path, file: Path, num_channels: int) -> tuple[str, list[Path]]:
    """The name of a case and its channel files, of the one that a list names.

    nnU-Net v1 lists NAME.nii.gz and stores NAME_0000.nii.gz, NAME_0001.nii.gz, …; a list may also name the first.
    """
    name = stem(file)
    if not file.is_file() and _channel_file(file, 0).is_file():
        return name, [_present(path, _channel_file(file, c)) for c in range(num_channels)]
    channel = channel_of(name)
    if channel is None or channel[1] != 0:
        return name, [_present(path, file)]
    whole = file.with_name(channel[0] + file.name[len(name) :])
    if num_channels > 1 and not _channel_file(whole, 1).is_file():
        return channel[0], [_present(path, file)]  # one file that holds them all
    return channel[0], [_present(path, _channel_file(whole, c)) for c in range(num_channels)]


def _validation(path: Path, content: dict[str, Any], num_channels: int, faults: list[Fault] | None) -> list[Case]:
    """The cases of MONAI's "validation" list, which validate."""
    entries = content.get("validation", [])
    if not isinstance(entries, list):
        raise DataError(f'{path}: expected a list in "validation", got {type(entries).__name__}')
    cases = _listed_pairs(path, entries, "validation", num_channels, faults)
    return [replace(case, part="val") for case in cases]


def _listed_pairs(
    path: Path, entries: Sequence[Any], part: str, num_channels: int, faults: list[Fault] | None
) -> list[Case]:
    def case(entry: Any) -> Case:
        image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (entry, None)
        if part != "test" and label is None:
            raise DataError(f'{path}: expected "image" and "label" in every {part} entry, got {entry!r}')
        if isinstance(image, list) and image:  # MONAI: one file a channel
            files = [_present(path, _inside(path, file)) for file in image]
            channel = channel_of(stem(files[0]))
            name = channel[0] if channel else stem(files[0])
        else:
            name, files = _files_of(path, _inside(path, image), num_channels)
        label_file = None if label is None else _present(path, _inside(path, label))
        return Case(name, name, files[0], label_file, tuple(files[1:]))

    def name(entry: Any) -> str:
        image = entry.get("image") if isinstance(entry, dict) else entry
        return stem(Path(image)) if isinstance(image, str) else repr(image)

    return [pair for entry in entries for pair in attempted(partial(case, entry), name(entry), faults)]


def _listed_by_name(path: Path, entries: dict[str, Any], faults: list[Fault] | None) -> list[Case]:
    def case(name: str, entry: Any) -> Case:
        if not isinstance(entry, dict) or not isinstance(entry.get("images"), list) or not entry["images"]:
            raise DataError(f'{path}: expected "images" and "label" for {name!r}, got {entry!r}')
        files = [_present(path, _inside(path, image)) for image in entry["images"]]
        label = _present(path, _inside(path, entry.get("label")))
        return Case(name, name, files[0], label, tuple(files[1:]))

    return [pair for name, entry in entries.items() for pair in attempted(partial(case, name, entry), name, faults)]


def _ending_with(
    path: Path, folder: Path, ending: str, faults: list[Fault] | None, notes: list[str]
) -> dict[str, Path]:
    """The files of a folder by name without the ending, which may be written in capitals.

    An image of another ending is a fault: it would be left out without a word. Other files are noted.
    """
    others = []
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.is_dir():
            continue
        if file.name.lower().endswith(ending.lower()):
            name = same_text(file.name[: -len(ending)])
            if name in files:
                raise DataError(f"{file}: expected one file of that name, got also {files[name].name}")
            files[name] = file
        elif is_image_file(file):
            tell(DataError(f"{file}: expected files ending in {ending} as {path} says"), stem(file), faults)
        elif not file.name.lower().endswith(PASSED_OVER):
            others.append(file.name)
    if others:
        notes.append(f"{folder}: {listed(others)} {'are' if len(others) > 1 else 'is'} not read")
    return files


def _scanned(
    path: Path, ending: object, part: str, num_channels: int, faults: list[Fault] | None, notes: list[str]
) -> list[Case]:
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DataError(f'{path}: expected "file_ending" such as ".nii.gz", got {ending!r}')
    folder = path.parent / ("imagesTr" if part == "training" else "imagesTs")
    label_folder = path.parent / ("labelsTr" if part == "training" else "labelsTs")
    if not folder.is_dir():
        if part == "test":
            return []
        raise DataError(f"{folder}: expected this folder of an nnU-Net data set, got nothing there")
    files = _ending_with(path, folder, ending, faults, notes)
    labels = _ending_with(path, label_folder, ending, faults, notes) if label_folder.is_dir() else {}

    def case(base: str) -> Case:
        file, channel = files[base], channel_of(base)
        if channel is None:
            raise DataError(f"{file}: expected a name ending in _0000{ending} (channel number), got none")
        name, number = channel
        if number != 0:
            raise DataError(f"{file}: expected also channel {name}_0000{ending}, got nothing there")
        others = {stem for stem in files if channel_of(stem) and stem.rpartition("_")[0] == name} - {base}
        more = [files.get(f"{name}_{c:04d}", folder / f"{name}_{c:04d}{ending}") for c in range(1, num_channels)]
        if num_channels > 1 and not others and is_picture(file) and stored_channels(file) == num_channels:
            more = []  # a coloured picture is one file
        for other in more:
            _present(path, other)
        extra = sorted(others - {f"{name}_{c:04d}" for c in range(num_channels)})
        if extra:
            raise DataError(f"{file}: expected {num_channels} channels as {path} says, got also {listed(extra)}")
        label = labels.get(name)
        if part == "training" and label is None:
            _present(path, label_folder / f"{name}{ending}")
        return Case(name, name, file, label, tuple(more))

    cases, named = [], set()
    for base in sorted(files):
        channel = channel_of(base)
        named.add(channel[0] if channel else base)
        if channel and channel[1] != 0 and f"{channel[0]}_0000" in files:
            continue  # a further channel
        cases += attempted(partial(case, base), base, faults)
    for name in sorted(set(labels) - named):
        error = DataError(f"{labels[name]}: expected the image {name}_0000{ending} in {folder}, got nothing there")
        if not any(fault.case.startswith(f"{name}_") for fault in faults or ()):  # told already: of another ending
            tell(error, name, faults)
    return cases
