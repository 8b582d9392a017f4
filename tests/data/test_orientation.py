"""Voxel orders: brought to one and back without a voxel moving in mm, whatever the file's."""

from __future__ import annotations

import itertools

import data_files as files
import nibabel
import numpy as np
import pytest
import torch

from sure_fast.data import (
    Case,
    CaseList,
    DataError,
    DatasetInfo,
    SegmentationDataset,
    discover,
    load_case,
    read_image,
    save_nifti,
)
from sure_fast.data.orientation import most_common, order, reorder, reorient, reorient_affine
from sure_fast.data.prepared import DiskCache
from sure_fast.data.screening import notes_of_all, screen

SIX = ("RAS", "LPS", "PIR", "SAL", "ASR", "ILP")
EVERY = ["".join(codes) for axes in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*axes)]


def stored_as(codes, array, affine=files.AFFINE):
    image = nibabel.Nifti1Image(array, affine)
    start = nibabel.io_orientation(affine)
    return image.as_reoriented(nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(codes)))


def write(root, orientations, shape=(12, 10, 6)):
    for k, codes in enumerate(orientations):
        for folder, array in (("images", files.volume(shape, k)), ("labels", files.label_of(shape))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(stored_as(codes, array), root / folder / f"c{k}.nii.gz")
    return root


@pytest.mark.parametrize("source", EVERY[::5])
@pytest.mark.parametrize("target", EVERY[::7])
def test_there_and_back(source, target):
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    turned = reorient(array, source, target)
    np.testing.assert_array_equal(reorient(turned, target, source), array)
    assert turned.shape[1:] == reorder((3, 4, 5), source, target)
    affine = files.AFFINE
    moved = reorient_affine(affine, (3, 4, 5), source, target)
    # Every voxel lies in mm where it lay.
    for index in itertools.product(*map(range, turned.shape[1:])):
        place = np.argwhere(array[0] == turned[0][index])[0]
        np.testing.assert_allclose(moved @ [*index, 1], affine @ [*place, 1], atol=1e-9)


@pytest.mark.parametrize("codes", SIX)
def test_a_case_comes_in_the_orientation_of_its_data_set(tmp_path, codes):
    cases = discover(write(tmp_path, ["LPS", codes]))
    whole = load_case(cases[0])
    np.testing.assert_array_equal(load_case(cases[1]).image[0].shape, stored_as(codes, files.volume()).shape)
    assert load_case(cases[1]).orientation == codes
    sample = load_case(cases.with_info(orientation="LPS")[1])
    np.testing.assert_array_equal(sample.image[0].numpy(), files.volume(seed=1))
    np.testing.assert_array_equal(sample.label.numpy(), whole.label.numpy())
    np.testing.assert_allclose(sample.affine, files.AFFINE)
    assert sample.spacing_mm == whole.spacing_mm
    assert (sample.orientation, sample.stored_orientation) == ("LPS", codes)
    # A prediction goes back to the grid of the file.
    out = save_nifti(tmp_path / "out.nii", sample.as_stored(sample.image[0].numpy()), sample.stored_affine)
    np.testing.assert_array_equal(read_image(out)[0], read_image(cases[1].image)[0])
    np.testing.assert_allclose(nibabel.load(out).affine, nibabel.load(cases[1].image).affine)


def test_crops_do_not_depend_on_the_orientation_of_the_files(tmp_path):
    same = discover(write(tmp_path / "a", ["LPS"] * 6)).with_info(orientation="LPS")
    mixed = discover(write(tmp_path / "b", SIX)).with_info(orientation="LPS")
    for cache in ("memory", "none"):
        a, b = (SegmentationDataset(cases, (8, 6, 4), augment="mirror", cache=cache) for cases in (same, mixed))
        for k in range(6):
            assert torch.equal(a[k]["image"], b[k]["image"])
            assert torch.equal(a[k]["label"], b[k]["label"])
    caches = DiskCache(tmp_path / "cache", 3)
    assert caches.key(mixed[0]) != caches.key(mixed.with_info(orientation="RAS")[0])


def test_slices(tmp_path):
    cases = []
    for name, codes in (("a", "LPS"), ("b", "PLS"), ("c", "SLP")):
        affine = stored_as(codes, np.zeros((4, 4, 4), np.float32), np.diag([-2.0, -3.0, 4.0, 1])).affine
        path = files.save_volume(tmp_path / f"{name}.nii", np.arange(20, dtype=np.float32).reshape(4, 5), affine)
        cases.append(Case(name, name, path))
    assert [load_case(case).orientation for case in cases] == ["LP", "PL", "SL"]
    info = DatasetInfo("folders", {0: "a", 1: "b"}, 1, orientation="LP")
    listed = CaseList(cases, info).with_info()
    sample = load_case(listed[1])
    np.testing.assert_array_equal(sample.image[0], np.arange(20).reshape(4, 5).T)
    assert sample.spacing_mm == (2.0, 3.0)
    with pytest.raises(DataError, match=r"c\.nii: orientation: expected voxels that can be brought to LP, got SL"):
        load_case(listed[2])


def test_pictures_have_none(tmp_path):
    path = files.save_picture(tmp_path / "a.png", np.arange(20, dtype=np.uint8).reshape(4, 5))
    sample = load_case(Case("a", "a", path))
    assert sample.orientation is sample.stored_orientation is None
    array = np.zeros((4, 5))
    assert sample.as_stored(array) is array


def test_which_one(tmp_path):
    assert most_common(["RAS", "LPS", "RAS", None]) == "RAS"
    assert most_common(["RAS", "LPS"]) == "LPS"
    assert most_common(["RAS", "LPS"], ["RAS", "RAS", "LPS"]) == "RAS"
    assert most_common([None]) is None
    with pytest.raises(DataError, match="got RAX"):
        order("RAX", "RAS")


def test_what_is_mixed_is_noted(tmp_path):
    def info(orientation, **prepared):
        return DatasetInfo("folders", {0: "a", 1: "b"}, 1, orientation=orientation, **prepared)

    found = screen(discover(write(tmp_path / "a", ["LPS", "LPS", "PIR", "RAS"])))
    assert found.oriented("c2", "LPS") == ((12, 10, 6), (1.5, 1.25, 5.0))
    (note,) = notes_of_all(found, ["c0", "c1", "c2", "c3"], info("LPS"))
    assert note.reason.startswith(
        "2 of 4 cases are stored in another orientation (PIR 1, RAS 1) and are brought to LPS"
    )
    assert notes_of_all(found, ["c0", "c1"], info("LPS")) == []
    for k, spacing in enumerate((1.0, 1.05, 1.3)):
        for folder, array in (("images", files.volume()), ("labels", files.label_of())):
            files.save_volume(tmp_path / "b" / folder / f"c{k}.nii", array, np.diag([spacing, 1, 5, 1]))
    found = screen(discover(tmp_path / "b"))
    assert notes_of_all(found, ["c0", "c1"], info("RAS")) == []
    (note,) = notes_of_all(found, ["c0", "c1", "c2"], info("RAS"))
    assert note.reason.startswith("the voxel size differs among the cases, 1 to 1.3 mm along axis 0; they are not")
    (note,) = notes_of_all(found, ["c0", "c1", "c2"], info("RAS", spacing=(1.05, 1.0, 5.0)))
    assert "along axis 0; they are resampled to 1.05x1x5 mm for the network" in note.reason
    assert notes_of_all(found, ["c0", "c1", "c2"], info("RAS", slice_axis=0)) == []
