"""The split depends on names and seed alone and keeps patients whole."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sure_fast.data import Case, DataError, split_cases


def cases_of(groups, per_group=2):
    return [Case(f"p{g:03d}_f{f}", f"p{g:03d}", Path(f"{g}_{f}.png")) for g in range(groups) for f in range(per_group)]


def names(split):
    return [[case.name for case in part] for part in split]


def test_sizes_and_disjoint():
    split = split_cases(cases_of(50), (0.7, 0.1, 0.2))
    assert [len(part) for part in split] == [70, 10, 20]
    groups = [{case.group for case in part} for part in split]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 50


def test_order_of_listing_does_not_matter():
    cases = cases_of(20)
    shuffled = cases.copy()
    random.Random(3).shuffle(shuffled)
    assert names(split_cases(cases)) == names(split_cases(shuffled))


def test_known_split():
    # Written down once: another platform or version must give the same.
    assert names(split_cases(cases_of(8, 1), (0.5, 0.25, 0.25), seed=7)) == [
        ["p003_f0", "p004_f0", "p006_f0", "p007_f0"],
        ["p001_f0", "p002_f0"],
        ["p000_f0", "p005_f0"],
    ]


def test_seed_changes_it():
    cases = cases_of(30)
    assert names(split_cases(cases, seed=0)) != names(split_cases(cases, seed=1))


def test_small_numbers():
    assert [len(p) for p in split_cases(cases_of(3, 1))] == [1, 1, 1]
    assert [len(p) for p in split_cases(cases_of(4, 1), (0.97, 0.01, 0.02))] == [2, 1, 1]
    assert [len(p) for p in split_cases(cases_of(4, 1), (0.75, 0, 0.25))] == [3, 0, 1]
    assert [len(p) for p in split_cases(cases_of(1, 1), (1, 0, 0))] == [1, 0, 0]


def test_too_few():
    with pytest.raises(DataError, match=r"cases: expected at least 3 cases or patients to split .* got 2"):
        split_cases(cases_of(2, 5))
    with pytest.raises(DataError, match="got 0"):
        split_cases([])


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.5, 0.2, 0.2), (0, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"),) * 3]
)
def test_bad_fractions(fractions):
    with pytest.raises(DataError, match="fractions: expected"):
        split_cases(cases_of(9), fractions)


def test_same_name_twice():
    with pytest.raises(DataError, match="'p000_f0' 2 times"):
        split_cases(cases_of(4) + cases_of(1))
