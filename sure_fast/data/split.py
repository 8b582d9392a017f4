"""A deterministic split by group."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sure_fast.data.cases import Case
from sure_fast.data.errors import DataError


class Split(NamedTuple):
    """Three lists of cases, each sorted by name, that share no group."""

    train: list[Case]
    val: list[Case]
    test: list[Case]


def split_cases(cases: Sequence[Case], fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> Split:
    """Split cases into train, validation and test, keeping every group (patient) whole.

    Cases that their data set names for the test (`Case.part`) are the test cases, whatever its fraction. Cases that
    their data set names for validation are the validation cases, whatever its fraction; the
    others are cut between train and test.

    Groups are ordered by SHA-256 of seed and group name, and cut at the fractions of the number of groups. So the
    split depends on the names and the seed alone: not on the order of the list, the platform or a random state.

    Args:
        cases: at least one group for each fraction above 0.
        fractions: train, val, test; each in [0, 1], sum 1, train above 0.
        seed: any integer; another gives another split.

    Returns:
        `Split(train, val, test)`; a part whose fraction is above 0 is never empty.

    Raises:
        DataError: fractions that are none, two cases of one name, or fewer groups than parts.

    Example:
        >>> from pathlib import Path
        >>> cases = [Case(f"c{i}", f"patient{i // 2}", Path(f"c{i}.png")) for i in range(20)]
        >>> [len(part) for part in split_cases(cases, (0.6, 0.2, 0.2))]
        [12, 4, 4]
    """
    shares = [float(f) for f in fractions]
    if len(shares) != 3 or not all(0 <= f <= 1 for f in shares) or abs(sum(shares) - 1) > 1e-6 or shares[0] <= 0:
        raise DataError(f"fractions: expected train, val, test in [0, 1] with sum 1 and train > 0, got {fractions!r}")
    _check_names(cases)
    tested = [case for case in cases if case.part == "test"]
    if tested:
        whole = shares[0] + shares[1]
        if not whole:
            raise DataError(
                f"fractions: expected a share for training beside cases named for the test, got {fractions}"
            )
        others = split_cases([c for c in cases if c.part != "test"], [shares[0] / whole, shares[1] / whole, 0.0], seed)
        split = Split(others.train, others.val, sorted([*others.test, *tested], key=lambda case: case.name))
        _check_groups(split)
        return split
    named = [case for case in cases if case.part == "val"]
    if named:
        others = split_cases([case for case in cases if case.part != "val"], _without_val(shares), seed)
        split = Split(others.train, sorted(named, key=lambda case: case.name), others.test)
        _check_groups(split)
        return split
    groups = _ordered_groups(cases, seed)
    parts = sum(f > 0 for f in shares)
    if len(groups) < parts:
        raise DataError(f"cases: expected at least {parts} cases or patients to split as {shares}, got {len(groups)}")
    counts = _counts(len(groups), shares)
    part_of = {}
    start = 0
    for part, count in enumerate(counts):
        part_of.update(dict.fromkeys(groups[start : start + count], part))
        start += count
    return _as_split(cases, part_of)


def fold_cases(cases: Sequence[Case], fold: int, folds: int, test: float = 0.0, seed: int = 0) -> Split:
    """One of several folds: every group (patient) validates in exactly one of them.

    Groups are ordered as by `split_cases`. The share `test` of them is set aside first, the same in every fold, as the
    test cases; the others are dealt in turn into `folds` parts, of which the `fold`-th validates and the others train.

    Args:
        cases: at least `folds` groups beside those of the test.
        fold, folds: 1 <= fold <= folds, 2 <= folds.
        test: share of the groups, in [0, 1).
        seed: any integer; another gives other folds.

    Returns:
        `Split(train, val, test)`, the last empty where `test` is 0.

    Raises:
        DataError: numbers out of range, two cases of one name, or fewer groups than folds.

    Example:
        >>> from pathlib import Path
        >>> cases = [Case(f"c{i}", f"c{i}", Path(f"c{i}.png")) for i in range(10)]
        >>> sorted(case.name for fold in range(1, 6) for case in fold_cases(cases, fold, 5).val) == [
        ...     case.name for case in cases
        ... ]
        True
    """
    if not (folds >= 2 and 1 <= fold <= folds and 0 <= test < 1):
        raise DataError(f"fold: expected 1 <= fold <= folds, 2 <= folds and 0 <= test < 1, got {fold}/{folds}, {test}")
    _check_names(cases)
    groups = _ordered_groups(cases, seed)
    aside = _counts(len(groups), [1 - test, test])[1] if test and groups else 0
    if len(groups) - aside < folds:
        raise DataError(f"fold: expected at least {folds} cases or patients to fold, got {len(groups) - aside}")
    part_of = dict.fromkeys(groups[:aside], 2)
    part_of.update({group: int(k % folds == fold - 1) for k, group in enumerate(groups[aside:])})
    return _as_split(cases, part_of)


def shared_groups(split: Split) -> list[str]:
    """Groups (patients) that are in more than one part, sorted."""
    seen = [{case.group for case in part} for part in split]
    return sorted((seen[0] & seen[1]) | (seen[0] & seen[2]) | (seen[1] & seen[2]))


def _check_groups(split: Split) -> None:
    shared = shared_groups(split)
    if shared:
        raise DataError(f"cases: expected every patient in one part, got {shared[0]!r} in two")


def _check_names(cases: Sequence[Case]) -> None:
    names = [case.name for case in cases]
    if len(set(names)) != len(names):
        twice = next(n for n in sorted(set(names)) if names.count(n) > 1)
        raise DataError(f"cases: expected every name once, got {twice!r} {names.count(twice)} times")


def _without_val(shares: Sequence[float]) -> list[float]:
    whole = shares[0] + shares[2]
    return [shares[0] / whole, 0.0, shares[2] / whole]


def _ordered_groups(cases: Sequence[Case], seed: int) -> list[str]:
    return sorted({case.group for case in cases}, key=lambda g: hashlib.sha256(f"{seed}:{g}".encode()).digest())


def _as_split(cases: Sequence[Case], part_of: Mapping[str, int]) -> Split:
    lists: list[list[Case]] = [[], [], []]
    for case in sorted(cases, key=lambda c: c.name):
        lists[part_of[case.group]].append(case)
    return Split(*lists)


def _counts(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers near total·share that sum to total, at least 1 where the share is above 0 (largest remainder)."""
    counts = [max(math.floor(total * f + 1e-9), int(f > 0)) for f in shares]
    while sum(counts) > total:  # the floor of 1 for a small share takes from the largest part
        counts[counts.index(max(counts))] -= 1
    while sum(counts) < total:
        rest = [total * f - n if f > 0 else -math.inf for f, n in zip(shares, counts, strict=True)]
        counts[rest.index(max(rest))] += 1
    return counts
