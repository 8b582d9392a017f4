"""review.csv: the order of the cases, their regions and places, and what they are held against."""

from __future__ import annotations

import csv
import json
import math

import nibabel as nib
import numpy as np
import pytest

from sure_fast.data import save_nifti
from sure_fast.engine import review

AFFINE = np.array([[0, -2.0, 0, 10], [1.0, 0, 0, -20], [0, 0, 4.0, 30], [0, 0, 0, 1]])


def validation(uncertainties=(0.1, 0.2, 0.3, 0.4), level=0.5):
    cases = {f"v{k}": u for k, u in enumerate(uncertainties)}
    return review.Validation("abc", cases, dict.fromkeys(cases, 0.9), level)


def maps():
    """Two uncertain regions, of two and of three voxels; the larger is the less uncertain one."""
    segmentation, u = np.zeros((6, 5, 4), np.uint8), np.full((6, 5, 4), 0.1, np.float32)
    segmentation[2:4, 1:3, 1:3] = 1
    u[0, 0, :2] = 0.9
    u[4, 2:5, 3] = 0.6, 0.8, 0.7
    return segmentation, u


def test_the_largest_region_and_its_most_uncertain_voxel():
    row = review.row_of("a", *maps(), AFFINE, validation())
    assert row.region_size == pytest.approx(3 * 8 / 1000)  # voxels of 8 mm³
    assert row.region_uncertainty == pytest.approx(0.8)
    assert row.place == pytest.approx(tuple((AFFINE @ [4, 3, 3, 1])[:3]))


def test_without_an_uncertain_voxel_the_place_is_that_of_the_largest():
    row = review.row_of("a", *maps(), AFFINE, validation(level=0.95))
    assert (row.region_size, row.region_uncertainty) == (0, pytest.approx(0.9))
    assert row.place == pytest.approx(tuple((AFFINE @ [0, 0, 0, 1])[:3]))


def test_of_a_picture_column_and_row():
    row = review.row_of("a", *(x[..., 3] for x in maps()), None, validation())
    assert row.place == (3.0, 4.0)
    assert row.region_size == 3


@pytest.mark.parametrize(("u", "wanted"), [(0.0, 0), (0.25, 50), (0.3, 62.5), (1.0, 100), (math.nan, math.nan)])
def test_percentile(u, wanted):
    assert validation((*validation().case_uncertainty.values(), math.nan)).percentile(u) == pytest.approx(
        wanted, nan_ok=True
    )
    assert math.isnan(validation(()).percentile(u))


def rows_of(folder):
    with open(folder / review.TABLE, newline="") as file:
        return list(csv.DictReader(file))


def test_the_most_uncertain_case_is_first(tmp_path):
    rows = [review.Row(name, u, 50.0, 1.0, 0.7, (1.0, 2.0, 3.0)) for name, u in (("a", 0.1), ("b", 0.3), ("c", 0.3))]
    assert [row.case for row in review.write(tmp_path, rows)] == ["b", "c", "a"]
    first = rows_of(tmp_path)[0]
    assert first == {"case": "b", "case_uncertainty": "0.3", "percentile": "50.0", "region_ml": "1.0",
                     "region_uncertainty": "0.7", "x_mm": "1.0", "y_mm": "2.0", "z_mm": "3.0"}  # fmt: skip
    picture = review.Row("p", 0.9, math.nan, 5.0, 0.95, (1.0, 2.0))
    review.write(tmp_path, [*rows, picture])
    assert list(rows_of(tmp_path)[0].values()) == ["p", "0.9", "", "", "0.95", "", "", ""]
    review.write(tmp_path, [picture])
    assert list(rows_of(tmp_path)[0].items())[3:] == [
        ("region_px", "5.0"), ("region_uncertainty", "0.95"), ("column", "1.0"), ("row", "2.0"),
    ]  # fmt: skip


def test_files_give_what_the_arrays_give(tmp_path):
    segmentation, u = maps()
    save_nifti(tmp_path / "s.nii.gz", segmentation, AFFINE)
    save_nifti(tmp_path / "u.nii.gz", u, AFFINE)
    found = review.row_of_files("a", tmp_path / "s.nii.gz", tmp_path / "u.nii.gz", validation())
    wanted = review.row_of("a", segmentation, u, AFFINE, validation())
    assert found.place == pytest.approx(wanted.place)
    assert found[1:5] == pytest.approx(wanted[1:5])


def test_what_is_known_of_the_validation_cases_is_of_the_same_weights(tmp_path):
    nothing, reason = review.read(tmp_path, "abc")
    assert (nothing.case_uncertainty, nothing.level) == ({}, review.LEVEL)
    assert reason.endswith("is not there")
    known = validation((0.1, math.nan))
    known.write(tmp_path)
    found, reason = review.read(tmp_path, "abc")
    assert reason is None
    assert found.percentile(0.2) == 100
    assert math.isnan(found.case_uncertainty["v1"])
    assert review.read(tmp_path, "other")[1].endswith("is of other weights")
    for damaged in ("{", "[]", json.dumps({"checkpoint": "abc", "level": 1, "dice": {}, "case_uncertainty": 3})):
        (tmp_path / review.VALIDATION).write_text(damaged)
        assert review.read(tmp_path, "abc")[1].endswith("is damaged")


def test_viewers_are_told_range_and_kind(tmp_path):
    header = nib.load(save_nifti(tmp_path / "u.nii.gz", np.zeros((2, 2, 2)), shown=(0, 1), description="u")).header
    assert (header["cal_min"], header["cal_max"], header["descrip"]) == (0, 1, b"u")
    assert nib.load(save_nifti(tmp_path / "s.nii", np.zeros((2, 2, 2)), labels=True)).header["intent_code"] == 1002
    for wrong in ("x" * 80, "ü"):
        with pytest.raises(ValueError, match="description: expected at most 79 ASCII characters"):
            save_nifti(tmp_path / "w.nii", np.zeros((2, 2, 2)), description=wrong)
    assert not (tmp_path / "w.nii").exists()
