"""What a layout found, and what the readers of layouts share."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sure_fast.data.cases import Case, is_image_file, stem
from sure_fast.data.errors import DataError, Fault

PASSED_OVER = (".txt", ".csv", ".tsv", ".json", ".md", ".xml", ".ini", ".db", ".cfg", ".yaml", ".yml", ".pdf", ".xlsx")
"""Files beside images of which nobody expects that they are read."""


@dataclass
class Listing:
    """What a layout found: its cases, and what it says of them (None: it does not say)."""

    cases: list[Case]
    class_names: dict[int, str] | None
    """Stored label value to name; numbers may have gaps, which a label map closes."""
    num_channels: int | None = None
    ignore_index: int | None = None
    regions: tuple[str, ...] = ()
    """Labels that are unions of others."""
    source: Path | None = None
    """The file that says so."""
    notes: list[str] = field(default_factory=list)
    channel_names: tuple[str, ...] | None = None


def attempted(make: Callable[[], Case], name: str, faults: list[Fault] | None) -> list[Case]:
    """The case, or, where it is faulty, none and its fault; without a list of faults the error."""
    try:
        return [make()]
    except DataError as error:
        tell(error, name, faults)
        return []


def tell(error: DataError, name: str, faults: list[Fault] | None) -> None:
    """Keeps the error as the fault of a case; raises it without a list of faults."""
    if faults is None:
        raise error
    faults.append(Fault(name, str(error)))


def by_stem(folder: Path, notes: list[str] | None = None) -> dict[str, Path]:
    """The images of a folder by name without suffix.

    Raises:
        DataError: two files of one name; a link to nowhere.
    """
    files: dict[str, Path] = {}
    others: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() or not is_image_file(path):
            if not path.name.lower().endswith(PASSED_OVER):
                others.append(path.name + ("/" if path.is_dir() else ""))
            continue
        if not path.is_file():
            raise DataError(f"{path}: expected a file, got a link to nothing")
        name = same_text(stem(path))
        if name in files:
            raise DataError(f"{path}: expected one file of that name, got also {files[name].name}")
        files[name] = path
    if notes is not None and others:
        notes.append(f"{folder}: {listed(others)} {'are' if len(others) > 1 else 'is'} not read")
    return files


def same_text(name: str) -> str:
    """One spelling of letters with accents, which a Mac stores in two parts."""
    return unicodedata.normalize("NFC", name)


def listed(names: Iterable[object], most: int = 4) -> str:
    """The first few of them."""
    every = [str(name) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def channel_of(name: str) -> tuple[str, int] | None:
    """The case and the number of a channel that is a file of its own, named as nnU-Net does; None of another name.

    Example:
        >>> channel_of("liver_007_0001"), channel_of("liver_007")
        (('liver_007', 1), None)
    """
    base, _, number = name.rpartition("_")
    return (base, int(number)) if base and len(number) == 4 and number.isascii() and number.isdigit() else None


def check_channels(files: Sequence[Path], numbers: Sequence[int]) -> None:
    """DataError where the channel files of a case leave one out."""
    missing = [number for number in range(max(numbers) + 1) if number not in numbers]
    if missing:
        raise DataError(
            f"{files[0]}: expected the channels 0000 to {max(numbers):04d} of the case, "
            f"got no {', '.join(f'{number:04d}' for number in missing)}"
        )
