"""The command lines as a user starts them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import yaml

from sure_fast.data import phantom

pytestmark = pytest.mark.slow
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(name, *arguments, cwd):
    command = [sys.executable, "-m", f"sure_fast.{name}", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=ONE_THREAD)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    done = start("train", "--quick", "--output", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def numbers(text):
    """The lines of the table: metric name and mean."""
    starts = ("Dice", "HD95", "ECE", "UCC_", "UR_")
    return {line[:28].strip(): line[28:].split()[0] for line in text.splitlines() if line.startswith(starts)}


def test_train_leaves_everything(run):
    folder, done = run
    files = {str(p.relative_to(folder / "run")) for p in (folder / "run").rglob("*") if p.is_file()}
    for name in ("config.yaml", "split.json", "metrics.jsonl", "metrics.csv", "results.json", "checkpoints/last.pt",
                 "checkpoints/best.pt", "pictures/losses.png"):  # fmt: skip
        assert name in files
    assert any("tfevents" in name for name in files)
    assert sum(name.startswith("pictures/phantom") for name in files) == 2
    split = json.loads((folder / "run/split.json").read_text())
    assert not set(split["train"]) & set(split["test"])
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    supervised = [row for row in rows if row["kind"] == "step" and row["epoch"] >= 2]
    assert all(row["gradient"] > 0 for row in supervised)
    assert any(row["noise"] > 0 for row in supervised)  # where an image of the batch has a noisy copy
    assert rows[-1]["val_dice"] is not None
    assert done.stderr == ""  # lines, no bars, where there is no terminal
    assert re.search(
        r"epoch 3/3: loss [\d.]+ \(dice_loss .*L_gu .*L_nu .*\), validation Dice 0\.\d+ \(.*\), best 0", done.stdout
    )
    for text in (
        "backends on cpu: cpu for every op",
        "weights: those of the last epoch",
        "UR: share of pairs",
        "time: data",
    ):
        assert text in done.stdout
    table = numbers(done.stdout)
    results = json.loads((folder / "run/results.json").read_text())
    assert len(table) == 20
    assert table["UCC_g"] == f"{results['mean']['ucc_g']:.3f}"
    config = yaml.safe_load((folder / "run/config.yaml").read_text())
    assert config["data"]["patch_size"] == [48, 48, 12]


def test_evaluate_recomputes_the_table(run):
    folder, done = run
    again = start("evaluate", "--checkpoint", "run", "--output", "again", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert numbers(again.stdout) == numbers(done.stdout)
    assert (folder / "again/results.json").read_text() == (folder / "run/results.json").read_text()


def test_predict_keeps_affine_and_spacing(run):
    folder, _ = run
    image = nib.load(folder / "run/phantom/imagesTr/phantom_000.nii.gz")
    turned = image.affine.copy()
    turned[:3, 3] = (7, -3, 11)
    (folder / "in").mkdir()
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), turned), folder / "in/scan.nii.gz")
    done = start("predict", "--checkpoint", "run", "--input", "in/scan.nii.gz", "--output", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    for name, kind in (("segmentation", "u"), ("uncertainty", "f")):
        result = nib.load(folder / f"out/scan_{name}.nii.gz")
        np.testing.assert_allclose(result.affine, turned, atol=1e-5)
        np.testing.assert_allclose(result.header.get_zooms(), image.header.get_zooms())
        assert result.shape == image.shape
        assert np.asarray(result.dataobj).dtype.kind == kind
    assert 0 < np.asarray(result.dataobj).min() <= np.asarray(result.dataobj).max() <= 1


def test_bad_input_is_one_line_and_code_2(run, tmp_path):
    folder, _ = run
    few = phantom.write(tmp_path / "few", 1, 0, shape=(16, 16, 8))
    broken = phantom.write(tmp_path / "broken", 6, 0, shape=(16, 16, 8))
    file = broken / "imagesTr/phantom_003.nii.gz"
    file.write_bytes(file.read_bytes()[:200])
    (tmp_path / "empty").mkdir()
    (tmp_path / "typo.yaml").write_text("epoch: 3\n")
    (tmp_path / "twice.yaml").write_text("run:\n  epochs: 1\n  epochs: 2\n")
    for name, arguments, text in (
        ("train", ["--bata", "3"], "unrecognized arguments: --bata 3"),
        ("train", ["--config", tmp_path / "typo.yaml"], "did you mean 'run.epochs'?"),
        ("train", ["--config", tmp_path / "twice.yaml"], "expected each key once, got 'epochs' twice"),
        ("train", ["--data", tmp_path / "empty"], "empty"),
        ("train", ["--data", few], "few"),
        ("train", ["--data", broken], "phantom_003.nii.gz"),
        ("train", ["--output", folder / "run"], "expected a new or empty folder"),
        ("train", ["--device", "abacus"], "device: 'abacus' cannot be used here"),
        ("train", ["--device", "meta"], "device: 'meta' cannot be used here"),
        ("train", ["--seed", str(10**20)], "run.seed: expected a number from 0 to 2^63 - 1"),
        ("train", ["--set", "method.class_weights=1,2"], "method.class_weights: expected 4 numbers, one a class"),
        ("train", ["--spacing", "1e-9,1,1"], "GiB of memory can hold, got one of"),
        ("view", [folder / "run", "--serve", "70000"], "--serve: expected a port from 0 to 65535, got 70000"),
        ("evaluate", ["--checkpoint", tmp_path / "none"], "no such file or folder"),
        ("predict", ["--checkpoint", folder / "run", "--input", tmp_path / "empty", "--output", "p"], "empty"),
    ):
        done = start(name, *arguments, cwd=tmp_path)
        assert done.returncode == 2, (arguments, done.stderr)
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"sure_fast.{name}: error: ")
        assert text in last
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "p").exists()


def test_info_lists_every_op(tmp_path):
    done = start("info", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("sure_fast", "torch", "instruction set", "evidential_loss", "cpu, triton, reference", "spearman"):
        assert word in done.stdout


def test_import_loads_only_torch_and_numpy(tmp_path):
    code = (
        "import sys, torch; before = set(sys.modules); import sure_fast; "  # torch itself may load some
        "wanted = ('monai', 'nibabel', 'matplotlib', 'tqdm', 'tensorboard', 'yaml', 'PIL', 'triton', 'scipy'); "
        "print([m for m in wanted if m in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
