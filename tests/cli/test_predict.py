"""Predicting a folder: what is there already, what cannot be read, and how channels are found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from sure_fast import predict
from sure_fast.data import DataError
from sure_fast.engine import run as training
from sure_fast.engine.config import ConfigError, make
from sure_fast.engine.signals import RunFailure

pytestmark = pytest.mark.slow
OPTIONS = {"quick": True, "epochs": "1", "preset": "evidential", "channels": "2,4,8", "batch_size": "2"}


def volume(path, seed=0, shape=(16, 16, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    return path


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory):
    """A run on nnU-Net's layout with two channels."""
    root = tmp_path_factory.mktemp("channels")
    for k in range(4):
        for channel in range(2):
            volume(root / f"data/imagesTr/c{k}_{channel:04}.nii.gz", seed=2 * k + channel)
        label = np.zeros((16, 16, 8), np.uint8)
        label[4:12, 4:12, 2:6] = 1
        (root / "data/labelsTr").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(label, np.diag([1.0, 2.0, 3.0, 1.0])), root / f"data/labelsTr/c{k}.nii.gz")
    (root / "data/dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "A", "1": "B"},
                "labels": {"background": 0, "x": 1},
                "numTraining": 4,
                "file_ending": ".nii.gz",
            }
        )
    )
    training.train(make({**OPTIONS, "data": str(root / "data")}), root / "run", progress=False)
    return root / "run"


@pytest.fixture(scope="module")
def one_channel(tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    training.train(make({**OPTIONS, "phantom_cases": "4"}), root / "run", progress=False)
    return root / "run"


def run(checkpoint, source, output, *more):
    predict.main(["--checkpoint", str(checkpoint), "--input", str(source), "--output", str(output), *more])


def written(output):
    return sorted(path.name for path in output.iterdir())


def test_files_of_channels_are_one_image(two_channels, tmp_path):
    for k in range(2):
        for channel in range(2):
            volume(tmp_path / f"in/scan {k}_{channel:04}.nii.gz", seed=9 * k + channel)
    run(two_channels, tmp_path / "in", tmp_path / "out")
    names = [f"scan {k}_{kind}.nii.gz" for k in range(2) for kind in ("segmentation", "uncertainty")]
    assert written(tmp_path / "out") == ["predictions.json", "review.csv", *names, "validation.json"]
    run(two_channels, tmp_path / "in/scan 1_0000.nii.gz", tmp_path / "single")
    for kind in ("segmentation", "uncertainty"):
        one, other = (nib.load(tmp_path / f"{f}/scan 1_{kind}.nii.gz").get_fdata() for f in ("out", "single"))
        assert np.array_equal(one, other)
    (tmp_path / "in/scan 0_0001.nii.gz").unlink()
    with pytest.raises(RunFailure, match="1 of 2 images could not be segmented"):
        run(two_channels, tmp_path / "in", tmp_path / "part")
    assert written(tmp_path / "part") == ["predictions.json", "review.csv", *names[2:], "validation.json"]
    with pytest.raises(DataError, match=r"scan 0_0000.nii.gz: expected 2 channels, got 1 in 1 file"):
        run(two_channels, tmp_path / "in/scan 0_0000.nii.gz", tmp_path / "lone")
    assert not (tmp_path / "lone").exists()


def test_a_bad_file_leaves_the_others(one_channel, tmp_path, capsys):
    for k in range(3):
        volume(tmp_path / f"in/c{k}.nii.gz", seed=k)
    bad = tmp_path / "in/c1.nii.gz"
    bad.write_bytes(bad.read_bytes()[:300])
    command = [sys.executable, "-m", "sure_fast.predict", "--checkpoint", one_channel, "--input", tmp_path / "in"]
    done = subprocess.run([*command, "--output", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "not segmented: " in done.stdout
    assert str(bad) in done.stdout
    assert done.stderr.strip() == "sure_fast.predict: error: 1 of 3 images could not be segmented"
    assert written(tmp_path / "out") == [
        *(f"c{k}_{kind}.nii.gz" for k in (0, 2) for kind in ("segmentation", "uncertainty")),
        "predictions.json",
        "review.csv",
        "validation.json",
    ]
    volume(bad, seed=1)
    run(one_channel, tmp_path / "in", tmp_path / "out")
    assert (
        "3 images (2 were there already): NAME_segmentation.nii.gz, NAME_uncertainty.nii.gz" in capsys.readouterr().out
    )


def test_started_again_only_what_is_missing_or_older_is_done(one_channel, tmp_path, monkeypatch):
    for k in range(2):
        volume(tmp_path / f"in/c{k}.nii.gz", seed=k)
    run(one_channel, tmp_path / "in", tmp_path / "out")
    asked = []
    done = predict._predict
    monkeypatch.setattr(predict, "_predict", lambda case, *rest: (asked.append(case.name), done(case, *rest)))
    run(one_channel, tmp_path / "in", tmp_path / "out")
    assert asked == []
    (tmp_path / "out/c1_uncertainty.nii.gz").unlink()
    volume(tmp_path / "in/c0.nii.gz", seed=7)
    run(one_channel, tmp_path / "in", tmp_path / "out")
    assert asked == ["c0", "c1"]
    run(one_channel, tmp_path / "in", tmp_path / "out", "--overwrite")
    assert asked == ["c0", "c1"] * 2
    run(one_channel, tmp_path / "in", tmp_path / "out", "--probabilities")
    assert asked == ["c0", "c1"] * 3


def test_an_image_of_the_same_name_is_another_image(one_channel, tmp_path):
    """However old it is; the folder then tells where the images are that it is of."""
    volume(tmp_path / "a/c0.nii.gz", seed=0)
    volume(tmp_path / "b/c0.nii.gz", seed=1)
    os.utime(tmp_path / "b/c0.nii.gz", (1e9, 1e9))
    for source in ("a", "b"):
        run(one_channel, tmp_path / source, tmp_path / source / "out")
        run(one_channel, tmp_path / source, tmp_path / "out")
        for kind in ("segmentation", "uncertainty"):
            one, other = (
                nib.load(f / f"c0_{kind}.nii.gz").get_fdata() for f in (tmp_path / "out", tmp_path / source / "out")
            )
            assert np.array_equal(one, other)
        assert json.loads((tmp_path / "out/predictions.json").read_text())["input"] == str(tmp_path / source)
    shutil.move(tmp_path / "b", tmp_path / "moved")
    before = (tmp_path / "out/c0_uncertainty.nii.gz").stat().st_mtime_ns
    run(one_channel, tmp_path / "moved", tmp_path / "out")
    assert (tmp_path / "out/c0_uncertainty.nii.gz").stat().st_mtime_ns == before


@pytest.mark.parametrize("content", ["{'", "[]", "{}", '{"images": 3}'])
def test_a_damaged_manifest_is_named(content, one_channel, tmp_path):
    volume(tmp_path / "in/c0.nii.gz", seed=0)
    run(one_channel, tmp_path / "in", tmp_path / "out")
    (tmp_path / "out/predictions.json").write_text(content)
    with pytest.raises(ConfigError, match=r"predictions\.json: expected|holds predictions of other weights"):
        run(one_channel, tmp_path / "in", tmp_path / "out")
    run(one_channel, tmp_path / "in", tmp_path / "out", "--overwrite")
    run(one_channel, tmp_path / "in", tmp_path / "out")


def test_the_order_to_look_at_them_in_is_the_same_however_they_came_about(one_channel, tmp_path, capsys):
    for k in range(3):
        volume(tmp_path / f"in/c{k}.nii.gz", seed=k)
    run(one_channel, tmp_path / "in", tmp_path / "out")
    said = capsys.readouterr()
    assert "to look at first: c" in said.out
    assert "% of the validation cases" in said.out
    assert said.err == ""
    lines = (tmp_path / "out/review.csv").read_text().splitlines()
    assert lines[0] == "case,case_uncertainty,percentile,region_ml,region_uncertainty,x_mm,y_mm,z_mm"
    values = [float(line.split(",")[1]) for line in lines[1:]]
    assert values == sorted(values, reverse=True)
    (tmp_path / "out/c1_uncertainty.nii.gz").unlink()
    run(one_channel, tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/review.csv").read_text().splitlines() == lines
    capsys.readouterr()
    # a checkpoint that was taken out of its run knows no validation cases
    (tmp_path / "lone.pt").write_bytes((one_channel / "checkpoints/last.pt").read_bytes())
    run(tmp_path / "lone.pt", tmp_path / "in", tmp_path / "other")
    said = capsys.readouterr()
    assert "note: no percentile among the validation cases: " in said.err
    assert "% of the validation cases" not in said.out


def test_predictions_of_other_weights_and_other_files_are_kept(one_channel, tmp_path):
    volume(tmp_path / "in/c0.nii.gz")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    with pytest.raises(ConfigError, match="expected a new or empty folder"):
        run(one_channel, tmp_path / "in", tmp_path / "mine")
    run(one_channel, tmp_path / "in", tmp_path / "out")
    first = (tmp_path / "out/c0_uncertainty.nii.gz").read_bytes()
    training.train(make({**OPTIONS, "phantom_cases": "4", "seed": "5"}), tmp_path / "other", progress=False)
    with pytest.raises(ConfigError, match="holds predictions of other weights"):
        run(tmp_path / "other", tmp_path / "in", tmp_path / "out")
    run(tmp_path / "other", tmp_path / "in", tmp_path / "out", "--overwrite")
    assert (tmp_path / "out/c0_uncertainty.nii.gz").read_bytes() != first


def test_probabilities(one_channel, tmp_path):
    volume(tmp_path / "in/c0.nii.gz")
    run(one_channel, tmp_path / "in", tmp_path / "out", "--probabilities")
    found, segmentation, uncertainty = (
        nib.load(tmp_path / f"out/c0_{kind}.nii.gz") for kind in ("probabilities", "segmentation", "uncertainty")
    )
    p = found.get_fdata()
    assert p.shape == (16, 16, 8, 4)
    assert np.allclose(p.sum(-1), 1, atol=1e-6)
    assert np.array_equal(p.argmax(-1), segmentation.get_fdata())
    assert np.allclose(found.affine, uncertainty.affine)
    # p = α / A and u = C / A with α >= 1: no p is below u / C
    assert (p >= uncertainty.get_fdata()[..., None] / 4 - 1e-6).all()


def test_pictures_and_their_probabilities(tmp_path):
    generator = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for k in range(4):
        mask = np.zeros((32, 24), np.uint8)
        mask[8:20, 6:18] = 1
        image = (mask * 90 + generator.normal(80, 9, mask.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / f"data/images/p{k}.png")
        Image.fromarray(mask).save(tmp_path / f"data/masks/p{k}.png")
    training.train(make({**OPTIONS, "data": str(tmp_path / "data")}), tmp_path / "run", progress=False)
    run(tmp_path / "run", tmp_path / "data/images", tmp_path / "out", "--probabilities")
    assert np.load(tmp_path / "out/p0_probabilities.npz")["probabilities"].shape == (2, 32, 24)
    assert np.asarray(Image.open(tmp_path / "out/p0_segmentation.png")).shape == (32, 24)


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_the_folder_of_the_images_is_no_output(one_channel, tmp_path, flags):
    """A segmentation that was there, such as one made by hand, would be replaced, and predictions be predicted on."""
    volume(tmp_path / "in/images/a.nii.gz")
    by_hand = volume(tmp_path / "in/images/a_segmentation.nii.gz").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "in/images")
    for source in (tmp_path / "in/images", tmp_path / "in"):
        with pytest.raises(ConfigError, match=r"output .*: expected another folder than that of the images"):
            run(one_channel, source, tmp_path / "link", *flags)
    assert written(tmp_path / "in/images") == ["a.nii.gz", "a_segmentation.nii.gz"]
    assert (tmp_path / "in/images/a_segmentation.nii.gz").read_bytes() == by_hand


def test_a_slice_for_a_network_of_volumes(one_channel, tmp_path):
    volume(tmp_path / "slice.nii.gz", shape=(16, 16))
    with pytest.raises(DataError, match=r"slice\.nii\.gz: expected 3 spatial axes, for voxels ordered as ..., got 2"):
        run(one_channel, tmp_path / "slice.nii.gz", tmp_path / "out")
    assert not (tmp_path / "out").exists()
