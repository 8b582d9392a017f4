"""Prediction with nnU-Net's networks of evidence, against nnU-Net's own command and logits."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys

import numpy as np
import pytest

pytest.importorskip("nnunetv2", reason="needs the extra [nnunet]: pip install sure_fast[nnunet]")

import nibabel as nib

from sure_fast.data import phantom
from sure_fast.integrations.nnunet import TRAINERS
from tests.integrations.programs import run

pytestmark = pytest.mark.slow
COMMAND = (sys.executable, "-m", "sure_fast.integrations.nnunet", "predict")
MODELS = """
import json, os, sys, torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
name, dataset, configuration, folds = sys.argv[1:]
folder = os.path.join(os.environ["nnUNet_preprocessed"], dataset)
plans, content = load_json(f"{folder}/nnUNetPlans.json"), load_json(f"{folder}/dataset.json")
for fold in map(int, folds.split(",")):
    torch.manual_seed(fold)
    given = {**plans, "continue_training": False}  # which nnU-Net's command adds
    trainer = recursive_find_trainer_class_by_name(name)(given, configuration, fold, content, torch.device("cpu"))
    trainer.initialize()
    for p in trainer.network.parameters():
        p.data.mul_(2)
    os.makedirs(trainer.output_folder, exist_ok=True)
    trainer.save_checkpoint(os.path.join(trainer.output_folder, "checkpoint_final.pth"))
    for file, value in (("plans.json", plans), ("dataset.json", content)):
        with open(os.path.join(trainer.output_folder_base, file), "w") as out:
            json.dump(value, out)
"""
LOGITS = """
import glob, sys, numpy as np, torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
model, image, out, mirroring = sys.argv[1:]
for fold in (0, 1):
    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=mirroring == "True", allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model, (fold,))
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    data, *_ = preprocessor.run_case(
        [image], None, predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    )
    z = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data).float())
    back = [0, *(axis + 1 for axis in predictor.plans_manager.transpose_backward)]
    np.save(f"{out}/{fold}.npy", z.float().numpy().transpose(back))
"""


class Project:
    """Folders of nnU-Net's, and its commands in them."""

    def __init__(self, root):
        self.root = root
        self.options = {
            "torchvision": True,
            "nnUNet_raw": str(root / "raw"),
            "nnUNet_preprocessed": str(root / "preprocessed"),
            "nnUNet_results": str(root / "results"),
            "nnUNet_extTrainer": str(TRAINERS),
            "nnUNet_def_n_proc": "2",
        }

    def plan(self, number, labels, configuration, name="nnUNetTrainerSURE", folds="0,1", ending=".nii.gz", **more):
        raw = self.root / "raw" / f"Dataset00{number}_X"
        description = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 3, "file_ending": ending}
        (raw / "dataset.json").write_text(json.dumps({**description, **more}))
        run("nnUNetv2_plan_and_preprocess", "-d", number, "-c", configuration, "-np", 1, "-npfp", 1, **self.options)
        run(sys.executable, "-c", MODELS, name, raw.name, configuration, folds, **self.options)
        return self.root / "results" / raw.name / f"{name}__nnUNetPlans__{configuration}"

    def predict(self, *arguments, processes=0):
        return run(*COMMAND, "-device", "cpu", "-npp", processes, "-nps", processes, *arguments, **self.options)

    def refused(self, *calls):
        """The one line of every call, which is refused."""
        arguments = [["-device", "cpu", *map(str, call)] for call in calls]
        code = (
            "import json, sys\nfrom sure_fast.integrations.nnunet.__main__ import main\n"
            "for call in json.loads(sys.argv[1]):\n"
            "    try:\n        main(call)\n"
            "    except ValueError as error:\n        print('refused: ' + ' '.join(str(error).split()))\n"
        )
        said = run(sys.executable, "-c", code, json.dumps(arguments), **self.options)
        lines = [line for line in said.splitlines() if line.startswith("refused: ")]
        assert len(lines) == len(calls), said
        return lines


def turned(path, affine):
    """The same voxels elsewhere."""
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)


def volumes(root, number):
    """A data set of phantoms, in an oblique place."""
    raw = root / "raw" / f"Dataset00{number}_X"
    phantom.write(raw, 3, shape=(24, 20, 16), spacing_mm=(2, 2, 2))
    angle = np.deg2rad(20)
    affine = np.array([[-2 * np.cos(angle), 2 * np.sin(angle), 0, 5], [2 * np.sin(angle), 2 * np.cos(angle), 0, -9],
                       [0, 0, 2, 3], [0, 0, 0, 1]])  # fmt: skip
    for path in [*raw.glob("imagesTr/*.nii.gz"), *raw.glob("labelsTr/*.nii.gz")]:
        turned(path, affine)
    for path in raw.glob("imagesTr/*.nii.gz"):
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    return raw


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Two folds of an untrained network, and images to predict on, of which one is on another grid."""
    project = Project(tmp_path_factory.mktemp("nnunet"))
    raw = volumes(project.root, 1)
    labels = {"background": 0, "left": 1, "right": 2, "myocardium": 3}
    project.model = project.plan(1, labels, "3d_fullres")
    project.images = project.root / "images"
    shutil.copytree(raw / "imagesTr", project.images)
    first, second, third = sorted(project.images.iterdir())
    third.unlink()
    image = nib.load(second)
    zoomed = image.affine @ np.diag([1.5, 1.0, 1.0, 1.0])  # which has to be resampled
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), zoomed), second)
    project.names = [path.name.removesuffix("_0000.nii.gz") for path in (first, second)]
    return project


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def test_of_one_fold_the_segmentation_is_nnunets(labelled, tmp_path):
    own, theirs = tmp_path / "own", tmp_path / "theirs"
    said = labelled.predict("-i", labelled.images, "-o", own, "-d", 1, "-c", "3d_fullres", "-f", 0, processes=1)
    assert "2 cases in" in said
    assert "to look at first: phantom_00" in said
    run("nnUNetv2_predict", "-i", labelled.images, "-o", theirs, "-d", 1, "-c", "3d_fullres", "-f", 0,
        "-tr", "nnUNetTrainerSURE", "-device", "cpu", "-npp", 1, "-nps", 1, **labelled.options)  # fmt: skip
    for name in labelled.names:
        mine, wanted = (nib.load(folder / f"{name}.nii.gz") for folder in (own, theirs))
        assert mine.get_data_dtype() == wanted.get_data_dtype()
        assert np.array_equal(mine.affine, wanted.affine)
        assert len(np.unique(voxels(theirs / f"{name}.nii.gz"))) > 1
        same = voxels(own / f"{name}.nii.gz") == voxels(theirs / f"{name}.nii.gz")
        # nnU-Net resamples in half precision, in which an untrained network has many ties
        assert same.mean() > (0.97 if name == labelled.names[1] else 1 - 1e-9)
        image = nib.load(labelled.images / f"{name}_0000.nii.gz")
        u = nib.load(own / "uncertainty" / f"{name}.nii.gz")
        assert u.shape == image.shape
        assert np.allclose(u.affine, image.affine, atol=1e-5)
        assert (u.header["cal_min"], u.header["cal_max"]) == (0, 1)
        assert 0 < u.get_fdata().min() < u.get_fdata().max() <= 1
    assert sorted(path.name for path in own.iterdir()) == sorted(
        [*(f"{name}.nii.gz" for name in labelled.names), "dataset.json", "plans.json", "predictions.json",
         "review.csv", "uncertainty"])  # fmt: skip
    with open(own / "review.csv", newline="") as file:
        assert sorted(row["case"] for row in csv.DictReader(file)) == labelled.names


@pytest.mark.parametrize("mirroring", [True, False])
def test_folds_are_averaged_in_evidence(labelled, tmp_path, mirroring):
    flags = [] if mirroring else ["--disable_tta"]
    out, name = tmp_path / "out", labelled.names[0]  # on the network's grid
    labelled.predict("-i", labelled.images, "-o", out, "-m", labelled.model, "--save_probabilities", *flags)
    image = labelled.images / f"{name}_0000.nii.gz"
    run(sys.executable, "-c", LOGITS, labelled.model, image, tmp_path, mirroring, **labelled.options)
    evidence = np.mean([np.exp(np.load(tmp_path / f"{fold}.npy").clip(-10, 10)) for fold in (0, 1)], 0)
    alpha = evidence + 1
    u, p = 4 / alpha.sum(0), alpha / alpha.sum(0)
    np.testing.assert_allclose(voxels(out / "uncertainty" / f"{name}.nii.gz"), u.T, rtol=1e-5)
    found = voxels(out / "probabilities" / f"{name}.nii.gz")
    np.testing.assert_allclose(found, np.moveaxis(p, 0, -1).transpose(2, 1, 0, 3), rtol=1e-5)
    np.testing.assert_allclose(np.load(out / f"{name}.npz")["probabilities"], p, rtol=1e-5)
    assert np.array_equal(voxels(out / f"{name}.nii.gz"), p.argmax(0).T)
    assert (out / f"{name}.pkl").is_file()


def test_continued_after_an_interruption(labelled, tmp_path):
    out = tmp_path / "out"
    arguments = ["-i", labelled.images, "-o", out, "-m", labelled.model, "--disable_tta", "-step_size", 1]
    labelled.predict(*arguments)
    maps = [out / "uncertainty" / f"{name}.nii.gz" for name in labelled.names]
    before = [path.read_bytes() for path in maps]
    review = (out / "review.csv").read_text()
    maps[0].unlink()
    times = [path.stat().st_mtime_ns for path in (maps[1], out / f"{labelled.names[1]}.nii.gz")]
    said = labelled.predict(*arguments, "--continue_prediction")
    assert "2 cases (1 were there already)" in said
    assert [path.read_bytes()[10:] for path in maps] == [content[10:] for content in before]  # but for gzip's time
    assert times == [path.stat().st_mtime_ns for path in (maps[1], out / f"{labelled.names[1]}.nii.gz")]
    assert (out / "review.csv").read_text() == review
    (said,) = labelled.refused([*arguments[:-1], 0.5, "--continue_prediction"])
    assert f"output {out}: holds predictions of another model or input, or of other settings" in said
    # each call of several predicts its share
    labelled.predict(*arguments[:2], "-o", tmp_path / "part", *arguments[4:], "-num_parts", 2, "-part_id", 1)
    assert [path.name for path in (tmp_path / "part").glob("*.nii.gz")] == [f"{labelled.names[1]}.nii.gz"]
    with open(tmp_path / "part/review.csv", newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == labelled.names[1:]
    labelled.predict(*arguments[:2], "-o", tmp_path / "part", *arguments[4:], "-num_parts", 2, "-part_id", 0)
    assert (tmp_path / "part/review.csv").read_text() == review  # of both calls together


def test_what_is_wrong_is_told_in_one_line(labelled, tmp_path):
    images, out = ["-i", labelled.images], ["-o", tmp_path / "out"]
    model = ["-m", labelled.model]
    (tmp_path / "empty").mkdir()
    plain = labelled.model.parent / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    run(sys.executable, "-c", MODELS, "nnUNetTrainer", "Dataset001_X", "3d_fullres", "0", **labelled.options)
    cases = (
        ([*images, *out], "model: expected -m FOLDER, or -d DATASET and -c CONFIGURATION, got neither"),
        ([*images, *out, *model, "-d", 1, "-c", "2d"], "got both"),
        ([*images, *out, *model, "-tr", "nnUNetTrainerSURE"], "got both"),
        ([*images, *out, "-d", 77, "-c", "2d"], "d: expected a data set of nnU-Net's, got 77"),
        ([*images, *out, *model, "-f", "x"], "f: expected numbers of folds, or all, got 'x'"),
        ([*images, *out, *model, "-f", 3], "expected fold 3 with checkpoint_final.pth, got 0, 1"),
        ([*images, *out, *model, "-step_size", 0], "step_size: expected more than 0 and at most 1, got 0.0"),
        ([*images, *out, *model, "-part_id", 1], "part_id: expected 0 to 0, got 1"),
        (
            [*images, *out, "-m", tmp_path / "empty"],
            "expected the folder of a trained model, with plans.json, got none",
        ),
        ([*images, *out, "-m", plain], "expected the network of an nnUNetTrainerSURE, whose outputs are evidence"),
        (["-i", tmp_path / "empty", *out, *model], "expected images CASE_0000.nii.gz as nnU-Net names them, got none"),
        (["-i", tmp_path / "none", *out, *model], "expected a folder of images, got nothing there"),
    )
    for said, (_, text) in zip(labelled.refused(*(arguments for arguments, _ in cases)), cases, strict=True):
        assert text in said
    assert not (tmp_path / "out").exists()


def test_regions(tmp_path):
    """Regions may overlap; each has an uncertainty of its own."""
    project = Project(tmp_path)
    raw = volumes(tmp_path, 2)
    labels = {"background": 0, "whole": [1, 2, 3], "inner": [2, 3]}
    model = project.plan(2, labels, "3d_fullres", regions_class_order=[1, 2])
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    image = shutil.copy(sorted((raw / "imagesTr").iterdir())[0], images)
    name = os.path.basename(image).removesuffix("_0000.nii.gz")
    project.predict("-i", images, "-o", out, "-m", model, "--save_probabilities")
    run(sys.executable, "-c", LOGITS, model, image, tmp_path, True, **project.options)
    z = [np.load(tmp_path / f"{fold}.npy").clip(-10, 10) for fold in (0, 1)]
    present, absent = (np.mean([np.exp(sign * x) for x in z], 0) + 1 for sign in (1, -1))
    u, p = 2 / (present + absent), present / (present + absent)
    assert u.shape[0] == 2
    for folder, wanted in (("uncertainty", u), ("probabilities", p)):
        found = voxels(out / folder / f"{name}.nii.gz")
        np.testing.assert_allclose(found, np.moveaxis(wanted, 0, -1).transpose(2, 1, 0, 3), rtol=1e-5)
    segmentation = np.where(p[1] > 0.5, 2, np.where(p[0] > 0.5, 1, 0))
    assert np.array_equal(voxels(out / f"{name}.nii.gz"), segmentation.T)
    assert (out / "review.csv").is_file()


def test_pictures(tmp_path):
    """Slices as PNG, a network of two axes."""
    from PIL import Image

    project = Project(tmp_path)
    raw = tmp_path / "raw" / "Dataset003_X"
    generator = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for k in range(3):
        label = np.zeros((40, 32), np.uint8)
        label[8 + k : 20, 6:18] = 1
        pixels = (label * 90 + generator.normal(80, 9, label.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(raw / f"imagesTr/p{k}_0000.png")
        Image.fromarray(label).save(raw / f"labelsTr/p{k}.png")
    model = project.plan(3, {"background": 0, "x": 1}, "2d", folds="0", ending=".png")
    out = tmp_path / "out"
    project.predict("-i", raw / "imagesTr", "-o", out, "-m", model, "--save_probabilities")
    u = np.asarray(Image.open(out / "uncertainty/p0.png"))
    assert (u.shape, u.dtype) == ((40, 32), np.uint16)
    p = np.load(out / "probabilities/p0.npz")["probabilities"]
    assert p.shape == (2, 1, 40, 32)
    assert np.array_equal(np.asarray(Image.open(out / "p0.png")), p.argmax(0)[0])
    # p = α / A and u = C / A with α >= 1
    assert (p[:, 0] >= u / 65535 / 2 - 1e-4).all()
