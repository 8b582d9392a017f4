"""Every layout is found by itself and read; what does not fit together is refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import data_files as files
import numpy as np
import pytest
import torch

from sure_fast.data import DataError, discover, load_case


def refused(match, call, *args, **kwargs):
    with pytest.raises(DataError, match=match) as info:
        call(*args, **kwargs)
    assert "\n" not in str(info.value)
    assert isinstance(info.value, ValueError)


def test_decathlon(tmp_path):
    cases = discover(files.msd(tmp_path))
    assert cases.info.layout == "msd_nnunet"
    assert cases.info.class_names == {0: "background", 1: "anterior", 2: "posterior"}
    assert (cases.info.num_channels, cases.info.num_classes, cases.info.ignore_index) == (1, 3, None)
    assert [c.name for c in cases] == [f"case_{i:02d}" for i in range(4)]
    assert [c.group for c in cases] == [c.name for c in cases]
    sample = load_case(cases[1])
    assert sample.image.dtype == torch.float32
    assert sample.image.shape == (1, 12, 10, 6)
    np.testing.assert_array_equal(sample.image[0].numpy(), files.volume(seed=1))
    assert sample.label.dtype == torch.int64
    np.testing.assert_array_equal(sample.label.numpy(), files.label_of())
    assert sample.spacing_mm == (1.5, 1.25, 5.0)
    assert sample.orientation == "LPS"
    np.testing.assert_array_equal(sample.affine, files.AFFINE)


def test_decathlon_channels_last(tmp_path):
    files.msd(tmp_path, cases=1, image_shape=(12, 10, 6, 2), modality={"0": "FLAIR", "1": "T1w"})
    (case,) = discover(tmp_path)
    image = load_case(case).image
    assert image.shape == (2, 12, 10, 6)
    np.testing.assert_array_equal(image[1].numpy(), files.volume((12, 10, 6, 2))[..., 1])


def test_decathlon_test_part(tmp_path):
    files.save_volume(tmp_path / "imagesTs" / "case_90.nii.gz", files.volume())
    files.msd(tmp_path, test=["./imagesTs/case_90.nii.gz"])
    (case,) = discover(tmp_path, part="test")
    assert case.name == "case_90"
    assert load_case(case).label is None
    assert len(discover(tmp_path, part="all", require_labels=False)) == 5


def test_nnunet_v2(tmp_path):
    cases = discover(files.nnunet(tmp_path))
    assert cases.info.layout == "msd_nnunet"
    assert cases.info.class_names == {0: "background", 1: "anterior", 2: "posterior"}
    assert [c.name for c in cases] == ["case_00", "case_01", "case_02"]
    sample = load_case(cases[2])
    assert sample.image.shape == (2, 12, 10, 6)
    np.testing.assert_array_equal(sample.image[0].numpy(), files.volume(seed=20))
    np.testing.assert_array_equal(sample.image[1].numpy(), files.volume(seed=21))


def test_nnunet_ignore_label(tmp_path):
    files.nnunet(tmp_path, cases=1, labels={"background": 0, "heart": 1, "ignore": 2})
    (case,) = cases = discover(tmp_path)
    assert (cases.info.num_classes, cases.info.ignore_index) == (2, 2)
    assert load_case(case).label.max() == 2


def test_nnunet_v1_lists_names_without_channel(tmp_path):
    files.nnunet(
        tmp_path,
        cases=1,
        labels={"0": "background", "1": "a", "2": "b"},
        training=[{"image": "./imagesTr/case_00.nii.gz", "label": "./labelsTr/case_00.nii.gz"}],
    )
    (case,) = discover(tmp_path)
    assert [p.name for p in case.channel_files] == ["case_00_0000.nii.gz", "case_00_0001.nii.gz"]


def test_nnunet_dataset_entry(tmp_path):
    entry = {
        "images": ["imagesTr/case_00_0000.nii.gz", "imagesTr/case_00_0001.nii.gz"],
        "label": "labelsTr/case_00.nii.gz",
    }
    files.nnunet(tmp_path, cases=2, dataset={"first": entry})
    (case,) = discover(tmp_path)
    assert case.name == "first"
    assert load_case(case).image.shape[0] == 2


@pytest.mark.parametrize("folder", [".", "training"])
def test_acdc(tmp_path, folder):
    cases = discover(files.acdc(tmp_path / folder) and tmp_path)
    assert cases.info.layout == "acdc"
    assert cases.info.class_names[2] == "myocardium"
    assert len(cases) == 6
    assert {c.group for c in cases} == {"patient001", "patient002", "patient003"}
    assert all(c.name.startswith(c.group) for c in cases)
    sample = load_case(cases[0])
    assert sample.label.max() == 3
    assert sample.spacing_mm == (1.5, 1.25, 5.0)


def test_acdc_parts(tmp_path):
    files.acdc(tmp_path / "training", (1, 2))
    files.acdc(tmp_path / "testing", (101,))
    assert {c.group for c in discover(tmp_path)} == {"patient001", "patient002"}
    assert {c.group for c in discover(tmp_path, part="test")} == {"patient101"}
    assert len(discover(tmp_path, part="all")) == 6


def test_acdc_without_truth(tmp_path):
    files.acdc(tmp_path)
    (tmp_path / "patient002" / "patient002_frame12_gt.nii.gz").unlink()
    refused(r"patient002_frame12\.nii\.gz: expected a label", discover, tmp_path)


@pytest.mark.parametrize("labels", ["masks", "labels"])
def test_folders_of_pictures(tmp_path, labels):
    cases = discover(
        files.fundus(tmp_path, labels=labels), label_map={0: 2, 128: 1, 255: 0}, class_names=["bg", "disc", "cup"]
    )
    assert cases.info.layout == "folders"
    assert cases.info.class_names == {0: "bg", 1: "disc", 2: "cup"}
    assert cases.info.num_channels == 3
    sample = load_case(cases[0])
    assert sample.image.shape == (3, 20, 24)
    assert torch.bincount(sample.label.flatten()).tolist() == [20 * 24 - 100, 84, 16]
    assert (sample.affine, sample.orientation, sample.spacing_mm) == (None, None, (1.0, 1.0))


def test_folders_grey_png_and_suffix(tmp_path):
    for i in range(2):
        files.save_picture(tmp_path / "images" / f"a{i}.png", np.full((8, 9), 7 + i, dtype=np.uint8))
        files.save_picture(tmp_path / "labels" / f"a{i}_mask.png", np.eye(8, 9, dtype=np.uint8))
    (tmp_path / "images" / "._a0.png").write_bytes(b"resource fork")
    cases = discover(tmp_path)
    assert (len(cases), cases.info.num_channels, cases.info.num_classes) == (2, 1, 2)
    assert load_case(cases[1]).image.unique().tolist() == [8.0]


def test_folders_nifti_given_apart(tmp_path):
    files.save_volume(tmp_path / "scans" / "x.nii.gz", files.volume())
    files.save_volume(tmp_path / "truth" / "x.nii.gz", files.label_of())
    (case,) = cases = discover(tmp_path, images="scans", labels=tmp_path / "truth")
    assert cases.info.num_classes == 3
    assert load_case(case).spacing_mm == (1.5, 1.25, 5.0)


def test_images_alone(tmp_path):
    path = files.save_volume(tmp_path / "x.nii.gz", files.volume())
    for root in (tmp_path, path):
        (case,) = discover(root, require_labels=False)
        assert (case.name, load_case(case).label) == ("x", None)
        refused(str(root), discover, root)


def test_forced_layout_wins(tmp_path):
    files.msd(tmp_path, cases=2)
    (tmp_path / "imagesTr").rename(tmp_path / "images")
    (tmp_path / "labelsTr").rename(tmp_path / "labels")
    refused("case_00.nii.gz: expected this file", discover, tmp_path)
    assert discover(tmp_path, layout="folders").info.layout == "folders"


def test_bad_arguments(tmp_path):
    files.msd(tmp_path)
    refused("layout: expected 'auto' or one of .* got 'dicom'", discover, tmp_path, "dicom")
    refused("part: expected", discover, tmp_path, part="val")
    refused("images, labels: expected only with layout 'folders'", discover, tmp_path, "acdc", images="a")
    refused("label_map: expected whole numbers", discover, tmp_path, label_map={"x": 1})
    refused("label_map: expected class numbers", discover, tmp_path, label_map={0: 0, 1: 2})
    refused("class_names: expected names", discover, tmp_path, class_names=["a", "b"])
    refused(r"nowhere: expected a folder .* nothing there", discover, tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for layout in ("auto", "folders", "msd_nnunet", "acdc", "refuge"):
        for file in (tmp_path / "file", Path(os.devnull)):
            refused(r": expected a folder with a data set, got a file$", discover, file, layout=layout)
    refused("test.*got none", discover, tmp_path, part="test")


def test_empty_and_foreign_folder(tmp_path):
    refused("expected dataset.json, .* got an empty folder", discover, tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    refused("expected dataset.json, .* got notes.txt", discover, tmp_path)
    (tmp_path / "images").mkdir()
    refused("images: expected NIfTI or PNG/JPEG images, got none", discover, tmp_path)


@pytest.mark.parametrize("outside", ["../secret.nii.gz", "imagesTr/../../secret.nii.gz", "/etc/hosts"])
@pytest.mark.parametrize("key", ["image", "label"])
def test_dataset_json_pointing_outside(tmp_path, outside, key):
    files.save_volume(tmp_path / "secret.nii.gz", files.volume())
    root = files.msd(tmp_path / "set", cases=1)
    content = json.loads((root / "dataset.json").read_text())
    content["training"][0][key] = outside
    (root / "dataset.json").write_text(json.dumps(content))
    refused(r"dataset\.json: expected files inside", discover, root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["background", "heart"]}, '"labels"'),
        ({"labels": {"0": "background", "2": "heart"}}, "without a gap"),
        ({"labels": {"background": 0}}, "at least two"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, "region"),
        ({"labels": {"background": 0, "heart": "one"}}, "expected a number for label 'heart'"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "1 twice"),
        ({"modality": {}}, "channel"),
        ({"training": None}, "training"),
        ({"training": [{"image": "imagesTr/case_00.nii.gz"}]}, '"image" and "label"'),
        ({"training": [{"image": 3, "label": 4}]}, "expected file names, got 3"),
        ({"training": []}, "got none"),
        ({"training": [{"image": "imagesTr/case_77.nii.gz", "label": "labelsTr/case_00.nii.gz"}]}, "case_77.nii.gz"),
    ],
)
def test_dataset_json_faults(tmp_path, changes, message):
    refused(message, discover, files.msd(tmp_path, cases=1, **changes))


def test_dataset_json_not_json(tmp_path):
    (tmp_path / "dataset.json").write_text('{"labels": ')
    refused(r"dataset\.json: expected readable JSON", discover, tmp_path)
    (tmp_path / "dataset.json").write_bytes(b"\xff\xfe\x00")
    refused(r"dataset\.json: expected readable JSON", discover, tmp_path)


def test_nnunet_channel_faults(tmp_path):
    files.nnunet(tmp_path, cases=2)
    path = tmp_path / "imagesTr" / "case_01_0001.nii.gz"
    data = path.read_bytes()
    path.unlink()
    refused("case_01_0001.nii.gz: expected this file", discover, tmp_path)
    path.write_bytes(data)
    files.save_volume(tmp_path / "imagesTr" / "case_01_0002.nii.gz", files.volume())
    refused("expected 2 channels", discover, tmp_path)
    (tmp_path / "imagesTr" / "case_01_0002.nii.gz").unlink()
    (tmp_path / "imagesTr" / "case_01_0000.nii.gz").unlink()
    refused("expected also channel case_01_0000", discover, tmp_path)
    path.unlink()
    (tmp_path / "labelsTr" / "case_00.nii.gz").unlink()
    refused("labelsTr/case_00.nii.gz: expected this file", discover, tmp_path)


def test_folder_pairs_must_match(tmp_path):
    files.fundus(tmp_path)
    (tmp_path / "masks" / "g0001.bmp").unlink()
    mapping = {0: 2, 128: 1, 255: 0}
    refused(r"g0001\.jpg: expected a label", discover, tmp_path, label_map=mapping)
    files.save_picture(tmp_path / "masks" / "g0001.png", np.zeros((20, 24), dtype=np.uint8))
    files.save_picture(tmp_path / "masks" / "other.png", np.zeros((20, 24), dtype=np.uint8))
    refused(r"other\.png: expected an image", discover, tmp_path, label_map=mapping)
    (tmp_path / "masks" / "other.png").unlink()
    files.save_picture(tmp_path / "masks" / "g0001_mask.png", np.zeros((20, 24), dtype=np.uint8))
    refused(r"g0001\.jpg: expected one label", discover, tmp_path, label_map=mapping)


def test_grey_levels_need_a_map(tmp_path):
    files.fundus(tmp_path)
    refused(r"masks: expected .* got the values 0, 128, 255; give label_map", discover, tmp_path)
    cases = discover(tmp_path, label_map={0: 1, 255: 0})
    refused(r"g0000\.bmp: expected the values \[0, 255\] of label_map, got 128", load_case, cases[0])
