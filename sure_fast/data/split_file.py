"""Splits that are given: a file of names, and folds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sure_fast.data.cases import Case, is_image_file, stem
from sure_fast.data.errors import DataError
from sure_fast.data.listing import same_text
from sure_fast.data.split import Split

PARTS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}
OTHER_KEYS = ("data", "skipped", "notes", "group", "split", "fold")
"""What the split.json of a run holds beside the parts."""


def parse_fold(text: str) -> tuple[int, int]:
    """The number of a fold and how many there are, of "2/5".

    Raises:
        DataError: anything else than whole numbers 1 <= K <= N with N >= 2.

    Example:
        >>> parse_fold("2/5")
        (2, 5)
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", str(text))
    fold, folds = (int(match.group(1)), int(match.group(2))) if match else (0, 0)
    if not 1 <= fold <= folds or folds < 2:
        raise DataError(f"fold: expected K/N with 1 <= K <= N and N >= 2, such as 2/5, got {text!r}")
    return fold, folds


def read_split(path: str | os.PathLike[str], cases: Sequence[Case], fold: str | None = None) -> Split:
    """The split that a file names.

    Args:
        path: JSON or YAML: {"train": [names], "val": [names], "test": [names]}, of which only "train" is needed, such
            as the split.json of a run; or nnU-Net's splits_final.json, a list of {"train": …, "val": …}, one per fold.
        cases: what can be named. A name may carry the suffix of its file; what is not named is left out.
        fold: "K/N", the K-th entry of a list of N, counted from 1; None for a file of one split.

    Returns:
        Parts sorted by name.

    Raises:
        DataError: unreadable; a name that no case has; a case in two parts, or twice; no training case; a fold that is
            not in the file, or none given although it holds several.
    """
    path = Path(path)
    parts = _chosen(path, _content(path), fold)
    by_name = {case.name: case for case in cases}
    part_of: dict[str, str] = {}
    lists: dict[str, list[Case]] = {"train": [], "val": [], "test": []}
    for part, names in parts.items():
        for entry in names:
            name = _name(entry, by_name)
            if name is None:
                raise DataError(f"{path}: expected names of cases in {part!r}, got {entry!r}, which the data has not")
            if name in part_of:
                where = "twice" if part_of[name] == part else f"and {part_of[name]!r}"
                raise DataError(f"{path}: expected every case in one part, got {name!r} in {part!r} {where}")
            part_of[name] = part
            lists[part].append(by_name[name])
    if not lists["train"]:
        raise DataError(f"{path}: expected at least one case in 'train', got none")
    return Split(*(sorted(lists[part], key=lambda case: case.name) for part in ("train", "val", "test")))


def _content(path: Path) -> Any:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"split {path}: cannot be read: {error.strerror or error}") from None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        import yaml

        try:
            return yaml.safe_load(raw)
        except yaml.YAMLError as error:
            raise DataError(f"split {path}: expected JSON or YAML, got {error}") from None


def _chosen(path: Path, content: Any, fold: str | None) -> dict[str, list[str]]:
    """Names by part, of the fold that is asked for."""
    if isinstance(content, list):
        if not content:
            raise DataError(f"split {path}: expected at least one fold, got an empty list")
        if fold is None:
            raise DataError(f"split {path}: expected --fold K/{len(content)} for a file of several folds, got none")
        number, folds = parse_fold(fold)
        if folds != len(content):
            raise DataError(f"fold: expected K/{len(content)} for the folds of {path}, got {fold!r}")
        content = content[number - 1]
    elif fold is not None:
        raise DataError(f"fold: expected without a split file of one split, got {fold!r} with {path}")
    if not isinstance(content, Mapping):
        raise DataError(f"split {path}: expected lists train, val and test, got {type(content).__name__}")
    parts: dict[str, list[str]] = {}
    for key, names in content.items():
        if key in OTHER_KEYS:
            continue
        if key not in PARTS or PARTS[key] in parts:
            raise DataError(f"split {path}: expected the keys train, val and test, each once, got {key!r}")
        if not isinstance(names, list) or not all(isinstance(name, (str, int)) for name in names):
            raise DataError(f"split {path}: expected a list of names in {key!r}, got {names!r:.80}")
        parts[PARTS[key]] = [str(name) for name in names]
    return parts


def _name(entry: str, known: Mapping[str, Case]) -> str | None:
    """The case that an entry names, which may be a file, or a name with nnU-Net's channel."""
    if entry in known:
        return entry
    file = Path(entry.replace("\\", "/"))
    bare = same_text(stem(file) if is_image_file(file) else file.name)
    for name in (bare, bare[:-5] if re.search(r"_\d{4}$", bare) else bare):
        if name in known:
            return name
    return None
