"""Which case trains, validates and tests: by fractions, by fold, or by a file of names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sure_fast.data.cases import Case
from sure_fast.data.errors import DataError, Fault
from sure_fast.data.groups import group_cases, suspect_groups
from sure_fast.data.screening import DATA_SET
from sure_fast.data.split import Split, fold_cases, shared_groups, split_cases
from sure_fast.data.split_file import parse_fold, read_split


def assign(
    cases: Sequence[Case],
    *,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    group: str | None = None,
    split: str | os.PathLike[str] | None = None,
    fold: str | None = None,
) -> tuple[Split, list[Fault]]:
    """The split of a run, and what is to be known of it.

    Args:
        cases: of the whole data set.
        fractions: shares of training, validation and test; with `fold` only that of the test counts.
        seed: of the order in which groups are dealt out.
        group: regular expression that finds the patient in a name (`group_cases`).
        split: file of names (`read_split`); `fractions` and `seed` do not count then.
        fold: "K/N": the K-th of N folds validates (`fold_cases`), or the K-th entry of a split file of N.

    Returns:
        The split, and notes: names that look like several files a patient, cases that the file leaves out, patients
        that are in two parts of it.

    Raises:
        DataError: as the functions named above; with `group`, a split file that has a patient in two parts.
    """
    notes: list[str] = []
    if group is not None:
        cases = group_cases(cases, group)
    elif split is None:
        suspected = suspect_groups(cases)
        if suspected is not None:
            notes.append(
                f"names look like several files a patient, such as {' and '.join(suspected.example)}, and a patient "
                f"may be in training and test; if they are, give --group '{suspected.pattern}' "
                f"({suspected.groups} patients)"
            )
    if split is not None:
        chosen = read_split(split, cases, fold)
        shared = shared_groups(chosen)
        if shared and group is not None:
            raise DataError(f"split {Path(split)}: expected every patient in one part, got {shared[0]!r} in two")
        if shared:
            notes.append(f"{len(shared)} patients are in two parts of {Path(split)}, such as {shared[0]}")
        missing = len(cases) - sum(map(len, chosen))
        if missing:
            notes.append(f"{missing} of {len(cases)} cases are in no part of {Path(split)} and are left out")
    elif fold is not None:
        chosen = fold_cases(cases, *parse_fold(fold), test=float(fractions[2]), seed=seed)
    else:
        chosen = split_cases(cases, fractions, seed)
    return chosen, [Fault(DATA_SET, note) for note in notes]
