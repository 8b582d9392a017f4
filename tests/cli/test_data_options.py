"""What a run does with odd data: orientations, splits and patients, units, class names, noise that does not fit."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from PIL import Image

from sure_fast import evaluate, predict, train
from sure_fast.data import DataError
from sure_fast.engine.config import ConfigError, load_file, make
from sure_fast.engine.config import converted as convert_all

QUICK = ["--quick", "--preset", "evidential", "--epochs", "1", "--set", "network.channels=2,4,8", "--device", "cpu"]
SIX = ("RAS", "RAS", "RAS", "LPS", "PIR", "SAL", "ASR", "ILP")


def volumes(root, orientations, labels="labels"):
    """The same eight volumes, each stored in its orientation."""
    for k, codes in enumerate(orientations):
        label = np.zeros((16, 14, 12), np.uint8)
        label[3:9, 4:10, 2 : 6 + k % 4] = 1
        image = label * 100.0 + np.random.default_rng(k).normal(0, 10, label.shape)
        turn = nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
        )
        for folder, array in (("images", image.astype(np.float32)), (labels, label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            stored = nibabel.Nifti1Image(array, np.diag([1.0, 1.5, 2.0, 1.0])).as_reoriented(turn)
            nibabel.save(stored, root / folder / f"c{k}.nii.gz")
    return root


def slices(root, patients=5, each=4, name="patient{:02d}_slice{:03d}", top=255):
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for p in range(patients):
        for s in range(each):
            mask = np.zeros((24, 20), np.uint8)
            mask[6:16, 5 : 10 + s] = top
            noise = np.random.default_rng(10 * p + s).normal(60, 9, mask.shape)
            image = (mask / top * 90 + noise).clip(0, 255).astype(np.uint8)
            for folder, array in (("images", image), ("masks", mask)):
                Image.fromarray(array).save(root / folder / f"{name.format(p, s)}.png")
    return root


def patients(run, part):
    return {name.split("_")[0] for name in json.loads((run / "split.json").read_text())[part]}


@pytest.mark.slow
def test_orientations_do_not_matter(tmp_path, capsys):
    results, maps = [], []
    for name, orientations in (("same", ["RAS"] * 8), ("mixed", SIX)):
        data, run = volumes(tmp_path / name, orientations), tmp_path / f"{name}-run"
        train.main(["--data", str(data), "--output", str(run), *QUICK])
        told = capsys.readouterr().err
        assert ("5 of 8 cases are stored in another orientation (ASR 1, ILP 1, LPS 1, PIR 1, SAL 1)" in told) == (
            name == "mixed"
        )
        results.append(json.loads((run / "results.json").read_text()))
        evaluate.main(["--checkpoint", str(run), "--output", str(tmp_path / f"{name}-again"), "--device", "cpu"])
        again = json.loads((tmp_path / f"{name}-again/results.json").read_text())
        assert again["per_case"] == results[-1]["per_case"]
        out = tmp_path / f"{name}-out"
        predict.main(
            ["--checkpoint", str(run), "--input", str(data / "images"), "--output", str(out), "--probabilities"]
        )
        maps.append(out)
    assert results[0] == results[1]
    for k in range(8):
        source = nibabel.load(tmp_path / f"mixed/images/c{k}.nii.gz")
        for kind in ("segmentation", "uncertainty", "probabilities"):
            same, mixed = (nibabel.load(folder / f"c{k}_{kind}.nii.gz") for folder in maps)
            assert mixed.shape[:3] == source.shape
            np.testing.assert_allclose(mixed.affine, source.affine)
            np.testing.assert_array_equal(nibabel.as_closest_canonical(mixed).dataobj, same.dataobj)


@pytest.mark.slow
def test_patients_are_kept_together_in_every_way(tmp_path, capsys):
    data = slices(tmp_path / "data")
    common = ["--data", str(data), *QUICK]
    train.main([*common, "--output", str(tmp_path / "plain")])
    told = capsys.readouterr()
    (note,) = [line for line in told.err.splitlines() if "note" in line]
    assert r"names look like several files a patient" in note
    assert note.endswith(r"give --group '^\D*\d+' (5 patients)")
    assert "HD95 (px)" in told.out
    assert "NSD 1 px" in told.out
    assert "mm" not in told.out
    assert (tmp_path / "plain/results.csv").read_text().startswith("case,dice/class 1")
    rows = json.loads((tmp_path / "plain/results.json").read_text())["per_case"]
    assert {"hd95_px", "assd_px/class 1"} <= set(rows[0])
    assert not any("mm" in key for key in rows[0])

    run = tmp_path / "grouped"
    train.main([*common, "--output", str(run), "--group", r"^\D*\d+", "--fold", "2/5"])
    assert "note" not in capsys.readouterr().err
    assert patients(run, "train") & patients(run, "val") == set()
    assert (len(patients(run, "train")), len(patients(run, "val"))) == (4, 1)
    stored = load_file(str(run / "config.yaml"))
    assert (stored["data.group"], stored["data.fold"]) == (r"^\D*\d+", "2/5")
    split = json.loads((run / "split.json").read_text())
    assert (split["group"], split["fold"], split["test"]) == (r"^\D*\d+", "2/5", [])
    evaluate.main(["--checkpoint", str(run), "--device", "cpu"])
    assert "4 cases (val)" in capsys.readouterr().out
    (run / "results.json").unlink()
    train.main(["--resume", str(run)])
    assert json.loads((run / "split.json").read_text()) == split

    given = tmp_path / "again"
    train.main([*common, "--output", str(given), "--split", str(run / "split.json")])
    assert [patients(given, part) for part in ("train", "val")] == [patients(run, part) for part in ("train", "val")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--group", "("], "group: expected a regular expression"),
        (["--group", "^case"], "group: expected '.case' to find a patient in every name"),
        (["--fold", "6/5"], "fold: expected K/N"),
        (["--fold", "2/50"], "fold: expected at least 50 cases"),
        (["--split", "gone.json"], r"split gone\.json: cannot be read"),
        (["--split", "SPLIT"], "expected names of cases in 'train', got 'z'"),
        (["--split", "TWICE"], "expected every case in one part"),
        (["--split", "TRAIN", "--set", "run.patience=2"], "patience: expected 0 without validation cases, got 2"),
        (
            ["--split", "TRAIN", "--set", "run.weights=best"],
            "weights: expected last without validation cases, got best",
        ),
    ],
)
def test_wrong_splits_are_refused_before_anything_is_written(tmp_path, flags, message):
    data = slices(tmp_path / "data")
    first = "patient00_slice000"
    for name, content in (("SPLIT", {"train": ["z"]}), ("TWICE", {"train": [first], "val": [first]}),
                          ("TRAIN", {"train": [first]})):  # fmt: skip
        (tmp_path / name).write_text(json.dumps(content))
    flags = [str(tmp_path / flag) if flag.isupper() else flag for flag in flags]
    run = tmp_path / "run"
    with pytest.raises((ConfigError, DataError), match=message) as info:
        train.main(["--data", str(data), "--output", str(run), *QUICK, *flags])
    assert "\n" not in str(info.value)
    assert not run.exists() or not [path for path in run.iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize(
    ("shape", "flags", "message"),
    [
        ((1, 12, 12), [], r"crop of 1,12,12 voxels, got 3; give --set method.patch_size=1,3,3"),
        (
            (12, 12, 6),
            ["--patch-size", "12,12,4", "--set", "method.patch_size=3,3,5"],
            "give --set method.patch_size=3,3,3",
        ),
        ((12, 12, 6), ["--set", "method.patch_size=3,3"], "1 or 3 numbers for crops of"),
    ],
)
def test_noise_that_does_not_fit_the_crop(tmp_path, shape, flags, message):
    for k in range(5):
        label = np.zeros(shape, np.uint8)
        label[..., 3:8, 2:5] = 1
        for folder, array in (("images", label * 50.0 + k), ("labels", label)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "data" / folder / f"c{k}.nii")
    run = tmp_path / "run"
    common = ["--data", str(tmp_path / "data"), "--output", str(run), "--quick", "--set", "network.channels=2,4,8"]
    with pytest.raises(ConfigError, match=f"method.patch_size: expected .*{message}"):
        train.main([*common, "--preset", "sure", *flags])
    assert not (run / "split.json").exists()


def test_noise_patch_sizes():
    def size(**flags):
        return make({"preset": "sure", **flags}).method.options["patch_size"]

    assert size(noise_patch_size="3,3,1") == [3, 3, 1]
    assert (
        size(noise_patch_size="5")
        == make({"preset": "sure"}, convert_all({"method.patch_size": [5]})).method.options["patch_size"]
    )
    for wrong in ("3,2,1", "0", "3,-1,1"):
        with pytest.raises(ConfigError, match=r"method\.patch_size: expected one odd number >= 1"):
            size(noise_patch_size=wrong)
    with pytest.raises(ConfigError, match=r"method\.patch_size: is no option of preset evidential"):
        size(noise_patch_size="3,3,1", preset="evidential")


def test_fractions_of_a_fold():
    assert make({"fold": "2/5"}).data.fractions == [0.8, 0.2, 0.0]
    assert make({"fold": "2/5", "fractions": "0.6,0.2,0.2"}).data.fractions == [0.6, 0.2, 0.2]
    assert make({"fold": "2/5", "split": "splits_final.json"}).data.fractions == [0.7, 0.1, 0.2]


@pytest.mark.slow
def test_class_names_and_contradictions(tmp_path, capsys):
    data = volumes(tmp_path / "data", ["RAS"] * 8)
    image = nibabel.load(data / "images/c0.nii.gz")
    image.header.set_sform(np.eye(4), code=1)  # beside a pixdim of 1, 1.5 and 2
    image.header.set_qform(image.affine, code=1)
    broken = nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    nibabel.save(broken, data / "images/c0.nii.gz")
    labels = json.dumps({"channel_names": {"0": "MR"}, "labels": {"background": 0, "ventricle": 1}, "training": [
        {"image": f"images/c{k}.nii.gz", "label": f"labels/c{k}.nii.gz"} for k in range(8)]})  # fmt: skip
    (data / "dataset.json").write_text(labels)
    run = tmp_path / "run"
    train.main(["--data", str(data), "--output", str(run), *QUICK])
    assert "c0.nii.gz: sform and pixdim disagree, voxels of 1 x 1 x 1 against 1 x 1.5 x 2" in capsys.readouterr().err
    assert "sform and pixdim" in json.loads((run / "split.json").read_text())["notes"][0]["reason"]
    other = volumes(tmp_path / "other", ["RAS"] * 2)
    command = [sys.executable, "-m", "sure_fast.evaluate", "--checkpoint", str(run), "--data", str(other)]
    done = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True)
    assert "Dice ventricle" in done.stdout, done.stderr
    out = tmp_path / "out"
    predict.main(["--checkpoint", str(run), "--input", str(data / "images/c0.nii.gz"), "--output", str(out)])
    written = nibabel.load(out / "c0_segmentation.nii.gz")
    np.testing.assert_allclose(written.header.get_zooms(), (1.0, 1.5, 2.0))
    np.testing.assert_allclose(written.affine, np.diag([1.0, 1.5, 2.0, 1.0]))
    np.testing.assert_allclose(written.get_qform(), written.get_sform())
