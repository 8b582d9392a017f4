"""Which classes a data set has: what its labels are called, and which stored values stand for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sure_fast.data.cases import Case
from sure_fast.data.errors import DataError
from sure_fast.data.listing import Listing, listed
from sure_fast.data.reading import read_label

GREY_LEVELS = 32
"""From this many values on, masks that do not start as class numbers do are pictures."""


LEFT_OUT = -1
"""In a label map: what is not annotated."""


class Found(NamedTuple):
    """What the masks of a folder hold."""

    folder: str
    counts: dict[int, int]
    """Pixels by value, sorted."""


class Classes(NamedTuple):
    """Names by class number, and how stored values become class numbers."""

    names: dict[int, str]
    label_map: dict[int, int] | None
    ignore_index: int | None


def checked_map(label_map: Mapping[int, int] | None) -> dict[int, int] | None:
    """A label map as whole numbers whose classes have no gap; DataError where it is none."""
    if label_map is None:
        return None
    try:
        mapping = {int(stored): int(number) for stored, number in label_map.items()}  # YAML may give text keys
    except (TypeError, ValueError, AttributeError):
        raise DataError(f"label_map: expected whole numbers to whole numbers, got {label_map!r}") from None
    numbers = sorted(set(mapping.values()) - {LEFT_OUT})
    if numbers != list(range(len(numbers))) or len(numbers) < 2:
        raise DataError(
            f"label_map: expected class numbers 0, 1, … without a gap, at least two, and {LEFT_OUT} for what is not "
            f"annotated, got {sorted(set(mapping.values()))}"
        )
    return mapping


def classes_of(
    listing: Listing,
    mapping: dict[int, int] | None,
    given: Sequence[str] | Mapping[int, str] | None,
    like: Mapping[int, str] | None,
    scan: Callable[[], Found],
) -> Classes:
    """The classes of a data set.

    Args:
        listing: what the layout says: names of stored values, which of them is ignored.
        mapping: the label map that is given. given: names that are given.
        like: names that are taken where nothing is given and the layout has none, if the number of classes is theirs.
        scan: reads the masks, when the layout says nothing: the folder they are in, and the values they hold.

    Raises:
        DataError: names or values that are no classes, saying what to give.
    """
    ignore, numbers = listing.ignore_index, 0
    if mapping is not None:
        numbers = len(set(mapping.values()) - {LEFT_OUT})
        if ignore is not None:
            mapping = {ignore: LEFT_OUT, **mapping}  # it stays ignored, if the map makes no class of it
        # what is left out is a number behind the classes
        ignore = max(ignore or 0, numbers) if LEFT_OUT in mapping.values() else None
        if ignore is not None:
            mapping = {stored: ignore if number == LEFT_OUT else number for stored, number in mapping.items()}
    if given is not None:
        return _given(listing, mapping, ignore, given, numbers, scan)
    if mapping is not None:
        of_network = like is not None and len(like) == numbers and listing.class_names is None
        names = dict(like) if of_network and like is not None else _mapped_names(listing, mapping, numbers)
        return Classes(names, mapping, ignore)
    if listing.class_names is None:
        masks = scan()
        if like is not None and set(masks.counts) <= set(like):
            return Classes(dict(like), None, None)
        count, binary = _scanned(masks)
        return Classes(dict(like) if like is not None and len(like) == count else plain_names(count), binary, None)
    stored = sorted(listing.class_names)
    if listing.regions:
        raise DataError(
            f"{listing.source}: expected one number for label {listing.regions[0]}; classes that overlap are not "
            "trained: give label_map (--label-map) to train the stored numbers as classes"
        )
    if stored != list(range(len(stored))) or len(stored) < 2:
        raise DataError(
            f"{listing.source}: expected label numbers 0, 1, … without a gap, at least two, got {stored}{_hint(stored)}"
        )
    return Classes(dict(sorted(listing.class_names.items())), None, ignore)


def plain_names(count: int) -> dict[int, str]:
    return {0: "background"} | {c: f"class {c}" for c in range(1, count)}


def _given(
    listing: Listing,
    mapping: dict[int, int] | None,
    ignore: int | None,
    given: Sequence[str] | Mapping[int, str],
    numbers: int,
    scan: Callable[[], Found],
) -> Classes:
    names = dict(given.items()) if isinstance(given, Mapping) else dict(enumerate(given))
    try:
        names = {int(number): str(name) for number, name in names.items()}
    except (TypeError, ValueError):
        raise DataError(f"class_names: expected class numbers with names, got {given!r}") from None
    wanted = numbers if mapping is not None else len(listing.class_names or names)
    if sorted(names) != list(range(wanted)) or wanted < 2:
        raise DataError(f"class_names: expected names of the classes 0 … {max(wanted, 2) - 1}, got {names}")
    if mapping is None and listing.class_names is None:
        masks = scan()
        if not set(masks.counts) <= set(names):
            count, mapping = _scanned(masks)
            if count > wanted:
                raise DataError(f"{masks.folder}: expected class numbers below {wanted}, got {listed(masks.counts)}")
    return Classes(dict(sorted(names.items())), mapping, ignore)


def _mapped_names(listing: Listing, mapping: Mapping[int, int], count: int) -> dict[int, str]:
    """The names of the stored values that become a class; the plain ones where there are none."""
    stored = listing.class_names or {}
    names = plain_names(count)
    for number in names:
        merged = [stored[value] for value in sorted(mapping) if mapping[value] == number and value in stored]
        if merged:
            names[number] = " or ".join(merged)
    return names


def _scanned(masks: Found) -> tuple[int, dict[int, int] | None]:
    """Number of classes in masks, and the map of masks of two values such as 0 and 255."""
    folder, values = masks.folder, list(masks.counts)
    if not values:
        return 2, None  # images alone, to predict on: the checkpoint knows its classes
    grey = len(values) >= GREY_LEVELS and (values != list(range(len(values))) or _is_grey(masks.counts))
    if len(values) >= 2 and values == list(range(len(values))) and not grey:
        return len(values), None
    if len(values) == 2 and values[0] == 0:
        return 2, {0: 0, values[1]: 1}
    if grey:
        raise DataError(
            f"{folder}: expected masks of class numbers 0, 1, … or of two values, got {len(values)} grey values "
            f"between {values[0]} and {values[-1]}, as soft edges or lossy compression leave them; threshold the "
            "masks, or give label_map (--label-map) for every value"
        )
    raise DataError(
        f"{folder}: expected masks of class numbers 0, 1, … without a gap, or of two values of which one is 0, "
        f"got the values {listed(values, 8)}{_hint(values)}"
    )


def _is_grey(counts: Mapping[int, int]) -> bool:
    """Whether values without a gap are those of a mask with soft edges: more pixels near the top than between."""
    top = max(counts)
    if top >= 255:
        return True
    high = sum(number for value, number in counts.items() if value >= 0.9 * top)
    return high > sum(number for value, number in counts.items() if 0 < value < 0.9 * top)


def _hint(stored: Sequence[int]) -> str:
    """The label map that would do, as it is typed."""
    if len(stored) < 2:
        return ""
    classes = [value for value in stored if value >= 0]
    classes = classes if len(classes) > 1 else list(stored)  # a negative value is seldom a class
    pairs = ",".join(f"{value}:{classes.index(value) if value in classes else LEFT_OUT}" for value in stored)
    return f"; give label_map, such as --label-map={pairs}; {LEFT_OUT} is for what is not annotated"


def values_in(read: Callable[[Callable[[Case], object]], Sequence[Case]]) -> Found:
    """The folder of the masks, and how many pixels have which value.

    Args:
        read: calls a function on every labelled case and returns those for which it raised no DataError.
    """
    counts: Counter[int] = Counter()

    def look(case: Case) -> None:
        if case.label is not None:
            values, numbers = np.unique(read_label(case.label)[0], return_counts=True)
            counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))

    sound = read(look)
    folders = [case.label.parent for case in sound if case.label is not None]
    return Found(str(folders[0]) if folders else "", dict(sorted(counts.items())))
