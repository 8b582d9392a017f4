"""The recipes, and volumes as slices or of several spacings, from training to maps on the grid of the input."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from sure_fast import evaluate, predict, train
from sure_fast.data import phantom
from sure_fast.engine.config import load_file, make

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
NAMES = ("acdc", "refuge", "hippocampus", "sunnybrook")
SMALL = ["--epochs", "2", "--batch-size", "2", "--set", "network.channels=4,8,16", "--set", "method.start_epoch=1",
         "--set", "run.validate_every=2", "--device", "cpu"]  # fmt: skip


def test_every_recipe_is_a_configuration():
    assert sorted(path.stem for path in RECIPES.glob("*.yaml")) == sorted(NAMES)
    configs = {name: make({"data": "DIR"}, load_file(str(RECIPES / f"{name}.yaml"))) for name in NAMES}
    for name in ("acdc", "refuge"):
        config = configs[name]
        assert (config.run.epochs, config.optimizer.batch_size, config.network.norm) == (100, 24, "batch")
        assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.schedule) == (
            "adam", 1e-3, "constant"
        )  # fmt: skip
        options = config.method.options
        assert (options["start_epoch"], options["annealing_epochs"], options["num_patches"]) == (30, 20, 3)
    assert (configs["acdc"].method.options["patch_size"], configs["refuge"].method.options["patch_size"]) == (3, 7)
    assert configs["acdc"].data.dims == 2


def acdc(root):
    """ACDC's folders and header: an sform of scale 1 beside the right qform and pixdim."""
    for k in range(1, 6):
        made = phantom.generate(k, (40, 36, 8), (1.5, 1.5, 10.0))
        for ending, array in (("", made.image), ("_gt", made.label)):
            image = nibabel.Nifti1Image(array, None)
            image.set_qform(np.diag([-1.5625, -1.5625, 10.0, 1.0]), code=1)
            image.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), code=1)
            image.header["pixdim"][1:4] = [1.5625, 1.5625, 10.0]
            folder = root / "training" / f"patient{k:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            nibabel.save(image, folder / f"patient{k:03d}_frame01{ending}.nii.gz")
    return root


def refuge(root):
    """REFUGE's folders, JPEG beside BMP of 0, 128 and 255, of two sizes."""
    parts = {"Training400": ("Annotation-Training400", ("Glaucoma/g0001", "Glaucoma/g0002", "Non-Glaucoma/n0001"), 96),
             "REFUGE-Validation400": ("REFUGE-Validation400-GT", ("V0001",), 80),
             "Test400": ("REFUGE-Test-GT", ("T0001",), 80)}  # fmt: skip
    for folder, (masks, names, size) in parts.items():
        for k, name in enumerate(names):
            y, x = np.mgrid[:size, :size] - size / 2 + k
            mask = np.where(np.hypot(y, x) < 8, 0, np.where(np.hypot(y, x) < 20, 128, 255)).astype(np.uint8)
            noise = np.random.default_rng(k).integers(0, 30, (size, size, 3))
            for path, array in ((root / folder / f"{name}.jpg", noise + (255 - mask)[..., None] // 2),
                                (root / masks / "Disc_Cup_Masks" / f"{name}.bmp", mask)):  # fmt: skip
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(path)
    return root


@pytest.mark.slow
def test_acdc(tmp_path):
    data, run = acdc(tmp_path / "acdc"), tmp_path / "run"
    train.main(["--config", str(RECIPES / "acdc.yaml"), "--data", str(data), "--output", str(run), *SMALL,
                "--patch-size", "32,32"])  # fmt: skip
    results = json.loads((run / "results.json").read_text())
    slices = json.loads((run / "results-slices.json").read_text())
    assert (results["cases"], slices["cases"]) == (1, 8)
    assert slices["per_case"][3]["case"] == f"{results['per_case'][0]['case']} slice 3"
    assert results["mean"].keys() == slices["mean"].keys()
    evaluate.main(["--checkpoint", str(run), "--output", str(tmp_path / "again")])
    for name in ("results.json", "results-slices.json", "results-slices.csv"):
        assert (tmp_path / "again" / name).read_text() == (run / name).read_text()
    evaluate.main(["--checkpoint", str(run), "--data", str(data), "--output", str(tmp_path / "all")])
    predict.main(["--checkpoint", str(run), "--input", str(data), "--layout", "acdc", "--output", str(tmp_path / "m")])
    made = nibabel.load(tmp_path / "m" / "patient001_frame01_uncertainty.nii.gz")
    assert made.shape == (40, 36, 8)
    assert made.header.get_zooms() == pytest.approx((1.5625, 1.5625, 10.0))


@pytest.mark.slow
def test_refuge(tmp_path):
    data, run = refuge(tmp_path / "refuge"), tmp_path / "run"
    train.main(["--config", str(RECIPES / "refuge.yaml"), "--data", str(data), "--output", str(run), *SMALL,
                "--set", "data.resize=64,64", "--patch-size", "64,64"])  # fmt: skip
    split = json.loads((run / "split.json").read_text())
    assert (split["train"], split["val"], split["test"]) == (["g0001", "g0002", "n0001"], ["V0001"], ["T0001"])
    results = json.loads((run / "results.json").read_text())
    assert results["class_names"] == {"0": "background", "1": "optic disc rim", "2": "optic cup"}
    assert "hd95_px" in results["mean"]
    predict.main(["--checkpoint", str(run), "--input", str(data / "Test400"), "--output", str(tmp_path / "maps")])
    assert Image.open(tmp_path / "maps" / "T0001_segmentation.png").size == (80, 80)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hippocampus", "sunnybrook"])
def test_the_recipes_that_are_run_on_real_data(tmp_path, name):
    data = tmp_path / "data"
    if name == "hippocampus":
        phantom.write(data, 5, 0, shape=(32, 32, 8))
    else:
        for k in range(10):
            slices = phantom.generate(k, (48, 48, 8))
            for folder, array in (
                ("images", slices.image / slices.image.max() * 255),
                ("masks", (slices.label == 3) * 255),
            ):
                (data / folder).mkdir(parents=True, exist_ok=True)
                path = data / folder / f"SC-HF-I-{k // 2:02d}-IM-0001-{k:04d}.png"
                Image.fromarray(array[..., 3].astype(np.uint8)).save(path)
    patch = ["--patch-size", "32,32"] if name == "sunnybrook" else []
    train.main(["--config", str(RECIPES / f"{name}.yaml"), "--data", str(data), "--output", str(tmp_path / "run"),
                *SMALL, *patch])  # fmt: skip
    assert (tmp_path / "run" / "results.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("dims", ["2", "3"])
def test_volumes_of_several_spacings(tmp_path, dims):
    """Trained on one grid, evaluated and predicted on that of the input, which may be another still."""
    data, run = tmp_path / "data", tmp_path / "run"
    phantom.write(data, 6, 0, shape=(32, 32, 8))
    fine = phantom.generate(9, (48, 48, 8), (1.0, 1.0, 5.0))
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    for folder, array in (("imagesTr", fine.image), ("labelsTr", fine.label)):
        nibabel.save(nibabel.Nifti1Image(array, affine), data / folder / "phantom_000.nii.gz")
    train.main(["--data", str(data), "--dims", dims, "--foreground-crop", "--output", str(run), *SMALL])
    notes = [note["reason"] for note in json.loads((run / "split.json").read_text())["notes"]]
    assert any("they are resampled to 1.5x1.5" in note for note in notes)
    predict.main(["--checkpoint", str(run), "--input", str(data / "imagesTr"), "--output", str(tmp_path / "maps")])
    for name, shape in (("phantom_000", (48, 48, 8)), ("phantom_001", (32, 32, 8))):
        made = nibabel.load(tmp_path / "maps" / f"{name}_segmentation.nii.gz")
        assert made.shape == shape
        np.testing.assert_allclose(made.affine, nibabel.load(data / "imagesTr" / f"{name}.nii.gz").affine)
    evaluate.main(["--checkpoint", str(run), "--cases", "all", "--output", str(tmp_path / "all")])
    assert json.loads((tmp_path / "all" / "results.json").read_text())["cases"] == 6
    assert (tmp_path / "all" / "results-slices.json").is_file() == (dims == "2")
