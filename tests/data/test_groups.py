"""Patients by pattern, splits by file and by fold: right, or refused in one line before anything else happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sure_fast.data import Case, DataError
from sure_fast.data.assigning import assign
from sure_fast.data.groups import group_cases, suspect_groups
from sure_fast.data.split import fold_cases, shared_groups, split_cases
from sure_fast.data.split_file import parse_fold, read_split


def of(*names, groups=None):
    return [Case(n, n if groups is None else groups[k], Path(f"{n}.png")) for k, n in enumerate(names)]


SLICES = of(*(f"patient{p:02d}_slice{s:03d}" for p in range(6) for s in range(4)))


def names(split):
    return [[case.name for case in part] for part in split]


def refused(match, call, *args, **options):
    with pytest.raises(DataError, match=match) as info:
        call(*args, **options)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("pattern", [r"^patient\d+", r"^(patient\d+)_", r"^(.*)_slice", r"\d+"])
def test_a_pattern_keeps_patients_together(pattern):
    grouped = group_cases(SLICES, pattern)
    assert len({case.group for case in grouped}) == 6
    assert [case.name for case in grouped] == [case.name for case in SLICES]
    split, notes = assign(SLICES, group=pattern)
    assert shared_groups(split) == []
    assert [len(part) for part in split] == [16, 4, 4]
    assert notes == []


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"group: expected a regular expression, got '\(': "),
        ("^case", "group: expected '.case' to find a patient in every name, got none in 'patient00_slice000'"),
        ("x*", "to find a patient in every name, got none in"),
        ("(x)?patient", "to find a patient in every name"),
    ],
)
def test_patterns_that_find_nobody(pattern, message):
    refused(message, assign, SLICES, group=pattern)


SUSPICIOUS = {
    "slices": [case.name for case in SLICES],
    "series": [f"SC-{kind}-{p:02d}-IM-0001-{k:04d}" for kind in ("HF-I", "N") for p in (1, 3) for k in (48, 68)],
    "frames": [f"case_{p:03d}_{frame}" for p in range(4) for frame in ("ED", "ES")],
    "sides": [f"{p:03d}_{side}" for p in range(4) for side in ("left", "right")],
    "sessions": [f"sub-{p:02d}_ses-{k}_T1w" for p in range(3) for k in range(2)],
    "short": [f"p{p}s{k}" for p in range(3) for k in range(3)],
    "a constant first": [f"study1_p{p}_{k}" for p in range(3) for k in range(3)],
    "visits of some": ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"],
    "words": [f"{who}_slice{k}" for who in ("smith", "jones") for k in range(3)],
}
HARMLESS = {
    "hippocampus": [f"hippocampus_{k:03d}" for k in range(9)],
    "fundus": [f"g{k:04d}" for k in range(9)],
    "a year": [f"BraTS20_Training_{k:03d}" for k in range(9)],
    "one scan each": [f"BraTS-GLI-{k:05d}-000" for k in range(9)],
    "kinds": [f"{kind}_{k}" for kind in ("healthy", "tumor") for k in range(4)],
    "identifiers": ["3f2a9c", "3fb8", "77aa1", "3f2b"],
    "words": ["anna", "bert", "carl"],
    "phantom": [f"phantom_{k:02d}" for k in range(9)],
    "one": ["p1_s1"],
}


@pytest.mark.parametrize("kind", SUSPICIOUS)
def test_names_that_look_like_several_files_a_patient(kind):
    cases = of(*SUSPICIOUS[kind])
    found = suspect_groups(cases)
    assert found is not None
    grouped = {case.name: case.group for case in group_cases(cases, found.pattern)}
    assert len(set(grouped.values())) == found.groups < len(cases)
    assert grouped[found.example[0]] == grouped[found.example[1]]
    _, (note,) = assign(cases, fractions=(0.5, 0.5, 0))
    assert f"--group '{found.pattern}'" in note.reason
    assert assign(cases, fractions=(0.5, 0.5, 0), group=found.pattern)[1] == []


@pytest.mark.parametrize("kind", HARMLESS)
def test_names_that_do_not(kind):
    assert suspect_groups(of(*HARMLESS[kind])) is None


def test_patients_that_the_data_set_names_are_not_suspected():
    assert suspect_groups(of("patient1_frame01", "patient1_frame12", groups=["patient1", "patient1"])) is None


@pytest.mark.parametrize("text", ["2", "0/5", "6/5", "1/1", "a/b", "2/5/1", "-1/5", "2.0/5", ""])
def test_folds_that_are_none(text):
    refused("fold: expected K/N with 1 <= K <= N and N >= 2, such as 2/5, got", parse_fold, text)


@pytest.mark.parametrize("test", [0.0, 0.25])
def test_every_patient_validates_once(test):
    cases = group_cases(SLICES, r"patient\d+") + of(*(f"x{k}" for k in range(7)))
    splits = [fold_cases(cases, fold, 4, test, seed=3) for fold in (1, 2, 3, 4)]
    validated = [name for split in splits for name in names(split)[1]]
    assert len(validated) == len(set(validated))
    aside = names(splits[0])[2]
    assert {tuple(names(split)[2]) for split in splits} == {tuple(aside)}
    assert sorted(validated + aside) == sorted(case.name for case in cases)
    assert bool(aside) == bool(test)
    for split in splits:
        assert shared_groups(split) == []
        assert sum(map(len, split)) == len(cases)
    assert names(fold_cases(cases[::-1], 1, 4, test, seed=3)) == names(splits[0])
    assert names(fold_cases(cases, 1, 4, test, seed=4)) != names(splits[0])


def test_too_few_for_so_many_folds():
    refused("fold: expected at least 5 cases or patients to fold, got 4", fold_cases, of("a", "b", "c", "d"), 1, 5)
    refused("fold: expected 1 <= fold <= folds", fold_cases, of("a", "b"), 3, 2)
    split, _ = assign(of(*"abcdefgh"), fractions=(0.5, 0.25, 0.25), fold="2/3")
    assert [len(part) for part in split] == [4, 2, 2]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


NAMED = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


@pytest.mark.parametrize(
    "content",
    [
        NAMED,
        "train: [a, b]\nval: [c]\ntest:\n  - d\n",
        {"training": ["b", "a"], "validation": ["c"], "test": ["d"]},
        {**NAMED, "data": "x", "skipped": [], "notes": [], "group": None, "split": None, "fold": None},
        {"train": ["a.nii.gz", "imagesTr/b_0000.nii.gz"], "val": ["c.PNG"], "test": [".\\x\\d.png"]},
        "\ufeff" + json.dumps(NAMED),
    ],
)
def test_split_files(tmp_path, content):
    path = write(tmp_path / "split.file", content)
    assert names(read_split(path, of(*"abcd"))) == [["a", "b"], ["c"], ["d"]]


def test_folds_of_nnunet(tmp_path):
    folds = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["b", "c"], "val": ["a"]}]
    path = write(tmp_path / "splits_final.json", folds)
    assert names(read_split(path, of(*"abc"), "2/2")) == [["b", "c"], ["a"], []]
    refused(r"splits_final\.json: expected --fold K/2 for a file of several folds, got none", read_split, path, of("a"))
    refused(r"fold: expected K/2 for the folds of .*, got '2/5'", read_split, path, of(*"abc"), "2/5")
    refused("fold: expected K/N", read_split, path, of(*"abc"), "3/2")
    refused("expected at least one fold", read_split, write(tmp_path / "e.json", []), of("a"), "1/2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["a", "z"]}, "expected names of cases in 'train', got 'z', which the data has not"),
        ({"train": ["a"], "val": ["a"]}, "expected every case in one part, got 'a' in 'val' and 'train'"),
        ({"train": ["a", "a"]}, "got 'a' in 'train' twice"),
        ({"train": ["a", "a.png"]}, "got 'a' in 'train' twice"),
        ({"train": [], "val": ["a"]}, "expected at least one case in 'train', got none"),
        ({"val": ["a"]}, "expected at least one case in 'train', got none"),
        ({"train": ["a"], "dev": ["b"]}, "expected the keys train, val and test, each once, got 'dev'"),
        ({"train": ["a"], "training": ["b"]}, "each once, got 'training'"),
        ({"train": "a"}, "expected a list of names in 'train', got 'a'"),
        ({"train": [["a"]]}, "expected a list of names in 'train'"),
        ("train", "expected lists train, val and test, got str"),
        ("{", "expected JSON or YAML"),
        ("", "expected lists train, val and test, got NoneType"),
    ],
)
def test_split_files_that_are_none(tmp_path, content, message):
    refused(rf"split\.json: .*{message}", read_split, write(tmp_path / "split.json", content), of("a", "b", "c"))


def test_split_files_and_the_rest(tmp_path):
    path = write(tmp_path / "s.json", {"train": ["pa"], "val": ["pb"]})
    message = r"s\.json: expected every patient in one part, got 'p' in two"
    refused(message, assign, of("pa", "pb"), split=path, group="p")
    write(path, NAMED)
    _, notes = assign(of(*"abcde", groups=[*"abcc", "e"]), split=path)
    assert [note.reason.split(" of ")[0] for note in notes] == ["1 patients are in two parts", "1"]
    assert "1 of 5 cases are in no part of" in notes[1].reason
    refused("fold: expected without a split file of one split", assign, of(*"abcd"), split=path, fold="1/2")
    refused(r"split .*gone\.json: cannot be read: No such file", assign, of(*"abcd"), split=tmp_path / "gone.json")


def test_validation_cases_that_the_data_set_names():
    cases = [*of(*"abcdef"), *(Case(n, n, Path(n), part="val") for n in "xy")]
    split = split_cases(cases, (0.5, 0.3, 0.2))
    assert names(split)[1] == ["x", "y"]
    assert [len(part) for part in split] == [4, 2, 2]
    twice = [Case("a", "p", Path("a")), Case("b", "q", Path("b")), Case("x", "p", Path("x"), part="val")]
    refused("expected every patient in one part, got 'p' in two", split_cases, twice, (0.5, 0, 0.5))
