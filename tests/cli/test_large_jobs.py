"""Trials of a run, caches and bad data, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from sure_fast import evaluate, train
from sure_fast.data import DataError, phantom
from sure_fast.engine import checkpoint
from sure_fast.engine import run as training
from sure_fast.engine.config import ConfigError, make

pytestmark = pytest.mark.slow
TINY = {"quick": True, "epochs": "2", "start_epoch": "1", "channels": "2,4,8", "phantom_cases": "5"}
FLAGS = [
    "--quick",
    "--epochs",
    "2",
    "--set",
    "network.channels=2,4,8",
    "--set",
    "data.phantom_cases=5",
    "--device",
    "cpu",
]


def test_dry_run_keeps_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train.main([*FLAGS, "--dry-run", "--set", "optimizer.accumulate=2", "--set", "optimizer.ema=0.9"])
    out = capsys.readouterr().out
    assert "dry run: all is well with 3 train, 1 val, 1 test cases, patch [48, 48, 12]; nothing is kept" in out
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="patch_size: expected 3 numbers"):
        train.main([*FLAGS, "--dry-run", "--patch-size", "32x32"])
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/file").write_text("mine")
    with pytest.raises(ConfigError, match="expected a new or empty folder"):
        train.main([*FLAGS, "--dry-run", "--output", "runs"])


def test_benchmark_prints_seconds_of_every_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train.main([*FLAGS, "--preset", "sure", "--benchmark", "3", "--amp", "bf16", "--set", "method.mining_every=2"])
    found = json.loads(capsys.readouterr().out)
    assert set(found["seconds"]) == {"data", "network", "noisy", "supervision", "optimizer"}
    assert all(value > 0 for value in found["seconds"].values())
    assert found["steps"] == 3
    assert (found["precision"], found["mining_every"], found["ranks"]) == ("bf16", 2, 1)
    assert 1.2 < found["step_over_plain"] < 20
    assert (found["forwards"], found["plain_forwards"]) == (9.5, 3)  # a search for hard samples in every other step
    assert found["peak_memory_bytes"] > 10**8
    assert list(tmp_path.iterdir()) == []
    train.main([*FLAGS, "--benchmark", "2", "--preset", "softmax"])
    plain = json.loads(capsys.readouterr().out)
    assert (plain["seconds"]["noisy"], plain["forwards"]) == (0, 3)
    for share, forwards in ((1.0, 6), (0.5, 4.5)):  # a noisy copy beside the clean batch
        dense = ["--preset", "dense", "--batch-size", "1", "--set", f"method.noisy_share={share}"]
        train.main([*FLAGS, "--benchmark", "2", *dense])
        found = json.loads(capsys.readouterr().out)
        assert (found["forwards"], found["noisy_share"]) == (forwards, share)
        assert 0 < found["seconds"]["noisy"] <= 1.01 * found["seconds"]["network"]


def test_profile_leaves_a_trace(tmp_path):
    train.main([*FLAGS, "--profile", "--output", str(tmp_path / "run")])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["profile"]
    events = json.loads((tmp_path / "run/profile/trace.json").read_text())["traceEvents"]
    assert any("uncertainty_supervision" in event.get("name", "") for event in events)


def test_trials_are_one_at_a_time(capsys):
    with pytest.raises(SystemExit):
        train.main(["--dry-run", "--profile"])
    assert "not allowed with argument" in capsys.readouterr().err
    for flags, message in (
        (["--resume", "x", "--dry-run"], "resume: expected no --dry-run, --benchmark or --profile with it"),
        (["--benchmark", "0"], "benchmark: expected at least 1 step, got 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            train.main(flags)


def test_caches_train_the_same_weights(tmp_path):
    for cache, folder in (("memory", None), ("none", None), ("disk", None), ("disk", tmp_path / "shared")):
        output = tmp_path / f"{cache}{folder is not None}"
        options = {"cache": cache} | ({} if folder is None else {"cache_folder": str(folder)})
        training.train(make({**TINY, **options}), output, progress=False)
    entries = sorted(path.name for path in (tmp_path / "diskFalse/cache").iterdir())
    assert len(entries) == 3
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == entries
    assert not (tmp_path / "diskTrue/cache").exists()
    first, *others = (
        checkpoint.load(tmp_path / name / "checkpoints/last.pt")["model"]
        for name in ("memoryFalse", "noneFalse", "diskFalse", "diskTrue")
    )
    for other in others:
        assert all(torch.equal(first[name], value) for name, value in other.items())
    with pytest.raises(ConfigError, match="cache_folder: expected with cache disk only, got it with memory"):
        make({"cache_folder": "x"})


@pytest.fixture
def spoiled(tmp_path):
    """Eight cases, of which 001 is truncated, 004 not finite and 006 not inside the folder."""
    folder = tmp_path / "data"
    phantom.write(folder, 8, 0, shape=(32, 32, 8))
    content = json.loads((folder / "dataset.json").read_text())
    images = [folder / row["image"] for row in content["training"]]
    images[1].write_bytes(images[1].read_bytes()[:-30])
    image = nibabel.load(images[4])
    array = np.asarray(image.dataobj, dtype=np.float32)
    array[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, image.affine), images[4])
    content["training"][6]["image"] = "../" + Path(content["training"][6]["image"]).name
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_bad_cases_are_refused_together_or_skipped_and_listed(spoiled, tmp_path, capsys):
    options = {**TINY, "data": str(spoiled)}
    with pytest.raises(DataError, match=r"3 of 8 cases cannot be used .* leave them out with --set data.skip_bad=true"):
        training.train(make(options), tmp_path / "run", progress=False)
    told = [line for line in capsys.readouterr().err.splitlines() if "bad: " in line]
    assert [name in line for name, line in zip(("001", "004", "006"), told, strict=True)] == [True] * 3
    assert not (tmp_path / "run").exists()
    training.train(make({**options, "skip_bad": True}), tmp_path / "run", progress=False)
    told = [line for line in capsys.readouterr().err.splitlines() if "skipped: " in line]
    assert len(told) == 3
    split = json.loads((tmp_path / "run/split.json").read_text())
    assert [row["case"] for row in split["skipped"]] == ["phantom_001", "phantom_004", "phantom_006"]
    assert "expected finite intensities" in split["skipped"][1]["reason"]
    used = [name for part in ("train", "val", "test") for name in split[part]]
    assert sorted(used) == [f"phantom_{k:03d}" for k in (0, 2, 3, 5, 7)]
    evaluate.main(["--checkpoint", str(tmp_path / "run"), "--device", "cpu"])
    assert training.train(make({**options, "skip_bad": True}), tmp_path / "run", progress=False, resume=True) is None


def test_a_single_bad_case_is_the_error(tmp_path):
    phantom.write(tmp_path / "data", 5, 0, shape=(32, 32, 8))
    path = next((tmp_path / "data/imagesTr").iterdir())
    path.write_bytes(b"")
    with pytest.raises(DataError, match=f"{path.name}: expected a readable NIfTI file"):
        training.train(make({**TINY, "data": str(tmp_path / "data")}), tmp_path / "run", progress=False)


def test_patience_ends_training(tmp_path, monkeypatch):
    from sure_fast.engine import loop

    dice = iter([0.5, 0.6, 0.6, 0.55, 0.9])
    monkeypatch.setattr(loop, "validation_dice", lambda *_, **__: {"mean": next(dice), "a": 0.5})
    options = {
        **TINY,
        "epochs": "9",
        "validate_every": "1",
        "patience": "2",
        "schedule": "poly",
        "learning_rate": "1e-3",
    }
    training.train(make(options), tmp_path / "run", progress=False)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert [row["val_dice"] for row in epochs] == [0.5, 0.6, 0.6, 0.55]
    assert [row["lr"] for row in epochs] == pytest.approx([1e-3 * (1 - k / 9) ** 0.9 for k in range(4)])
    assert checkpoint.load(tmp_path / "run/checkpoints/best.pt")["epoch"] < 4
