"""Which cases are of one patient: by a pattern, and whether their names look as if several were."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sure_fast.data.cases import Case
from sure_fast.data.errors import DataError

VIEWS = (
    "slice",
    "frame",
    "visit",
    "scan",
    "image",
    "img",
    "im",
    "view",
    "time",
    "day",
    "part",
    "crop",
    "patch",
    "tile",
)
"""What the number behind it counts within a patient."""
DEEPEST = 4
"""Numbers of a name that are tried as the end of the patient's part."""


def group_cases(cases: Sequence[Case], pattern: str) -> list[Case]:
    """The cases with `group` set by a regular expression, searched for in their names.

    Args:
        cases: of any groups, which are replaced.
        pattern: its first capture group, or the whole match where it has none, is the patient.

    Returns:
        The same cases in their order.

    Raises:
        DataError: no regular expression; a name in which it is not found, or finds nothing.

    Example:
        >>> from pathlib import Path
        >>> [case.group for case in group_cases([Case("p07_s1", "p07_s1", Path("p07_s1.png"))], r"^(p\\d+)_")]
        ['p07']
    """
    expression = compiled(pattern)
    grouped = []
    for case in cases:
        match = expression.search(case.name)
        group = match and (match.group(1) if expression.groups else match.group())
        if not group:
            raise DataError(f"group: expected {pattern!r} to find a patient in every name, got none in {case.name!r}")
        grouped.append(replace(case, group=group))
    return grouped


def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression; DataError where it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise DataError(f"group: expected a regular expression, got {pattern!r}: {error}") from None


class Suspicion(NamedTuple):
    """That names look like several files a patient."""

    pattern: str
    """To be given as `group`."""
    groups: int
    example: tuple[str, str]
    """Two names of what would be one patient."""


def suspect_groups(cases: Sequence[Case]) -> Suspicion | None:
    """Whether names look like several files a patient, such as patient03_slice012 and patient03_slice013.

    A name whose only number counts the cases, such as hippocampus_001, does not; nor do names of which no two share
    what stands before their last number. The shortest beginning that ends with a number and is shared by some names,
    but not by all, is taken for the patient. Cases of which the data set names the patient are not looked at.

    Returns:
        None where nothing is suspicious.
    """
    names = [case.name for case in cases if case.group == case.name]
    if len(names) < 2 or len(names) < len(cases):
        return None
    for numbers in range(1, DEEPEST + 1):
        pattern = "^" + r"\D*\d+" * numbers
        matches = [re.match(pattern, name) for name in names]
        if not all(matches):
            break
        shared = _shared(pattern, names, [match.group() for match in matches if match])
        # A letter right behind the number may belong to an identifier, such as 3f2a; then it must be the same in all.
        rests = {name[match.end() :][:1] for name, match in zip(names, matches, strict=True) if match}
        if shared and (rests <= set("-_. ") | {""} or len(rests) == 1):
            return shared
    for view in VIEWS:
        pattern = rf"(?i)^(.+?)[-_. ]*{view}[-_. ]*\d+$"
        views = [re.match(pattern, name) for name in names]
        if all(views):
            return _shared(pattern, names, [match.group(1) for match in views if match])
    return None


def _shared(pattern: str, names: Sequence[str], groups: Sequence[str]) -> Suspicion | None:
    """The suspicion that these groups are patients: more than one, and some of them with several names."""
    counts = Counter(groups)
    if not 1 < len(counts) < len(names):
        return None
    group = next(group for group in groups if counts[group] > 1)
    first, second = [name for name, of in zip(names, groups, strict=True) if of == group][:2]
    return Suspicion(pattern, len(counts), (first, second))
