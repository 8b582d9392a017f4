"""How runs end: without test or validation cases, in odd shapes, two at a time, into a pipe that closes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sure_fast import compare, evaluate, predict, train
from sure_fast.__main__ import COMMANDS
from sure_fast.engine import checkpoint, pictures
from sure_fast.engine import run as training
from sure_fast.engine.config import ConfigError, make

pytestmark = pytest.mark.slow
OPTIONS = {"quick": True, "epochs": "2", "preset": "evidential", "channels": "2,4,8", "batch_size": "2"}


def data(folder, shape=(16, 16, 8), cases=6):
    generator = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for k in range(cases):
        label = np.zeros(shape, np.uint8)
        label[tuple(slice(s // 4, max(s // 4 + 1, 3 * s // 4)) for s in shape)] = 1
        image = (label * 50.0 + generator.normal(0, 9, shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / f"images/c{k}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / f"labels/c{k}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return data(tmp_path_factory.mktemp("ends") / "data")


def settings(folder, **more):
    return make({**OPTIONS, "data": str(folder), **more})


@pytest.mark.parametrize(
    ("fractions", "part", "line"),
    [
        ("1,0,0", None, "no test and no validation cases"),
        ("0.7,0.3,0", "val", "evaluates 2 validation cases; weights: those of the last epoch (validation Dice best in"),
        ("0.7,0,0.3", "test", "evaluates 2 test cases; weights: those of the last epoch\n"),
    ],
)
def test_parts_that_are_empty(volumes, tmp_path, capsys, fractions, part, line):
    output = tmp_path / "run"
    result = training.train(settings(volumes, fractions=fractions), output, progress=False)
    assert line in capsys.readouterr().out
    stored = json.loads((output / "results.json").read_text())
    assert stored["cases"] == (2 if part else 0)
    assert (result is None) == (part is None)
    assert (output / "checkpoints/best.pt").exists() == (fractions == "0.7,0.3,0")
    arguments = ["--checkpoint", str(output), "--input", str(volumes / "images/c0.nii.gz"), "--output"]
    predict.main([*arguments, str(tmp_path / "out")])
    if part is None:
        with pytest.raises(ConfigError, match="cases: the run has no val cases; use --cases all"):
            evaluate.main(["--checkpoint", str(output)])
        return
    evaluate.main(["--checkpoint", str(output), "--output", str(tmp_path / "again")])
    assert json.loads((tmp_path / "again/results.json").read_text()) == stored
    rows = (tmp_path / "again/results.csv").read_text().splitlines()
    assert len(rows) == 3
    assert rows[0].startswith("case,dice/class 1,")


def test_weights_are_the_same_in_table_and_files(volumes, tmp_path, capsys):
    output = tmp_path / "run"
    for key, value in (("weights", "best"), ("patience", "2")):
        with pytest.raises(ConfigError, match=f"{key}: expected .* without validation cases, got {value}"):
            training.train(settings(volumes, fractions="0.8,0,0.2", **{key: value}), output, progress=False)
        assert not output.exists()
    options = {"epochs": "6", "validate_every": "1", "fractions": "0.5,0.2,0.3", "learning_rate": "0.05"}
    training.train(settings(volumes, weights="best", **options), output, progress=False)
    at = checkpoint.load(output / "checkpoints/last.pt")["progress"]
    assert f"weights: the best of the validation, of epoch {at['best_epoch']}" in capsys.readouterr().out
    assert at["best_epoch"] == checkpoint.load(output / "checkpoints/best.pt")["progress"]["epoch"]
    evaluate.main(["--checkpoint", str(output), "--output", str(tmp_path / "again")])
    assert (tmp_path / "again/results.json").read_text() == (output / "results.json").read_text()
    capsys.readouterr()
    source = str(volumes / "images/c0.nii.gz")
    predict.main(["--checkpoint", str(output), "--input", source, "--output", str(tmp_path / "out")])
    assert "checkpoints/best.pt\n" in capsys.readouterr().out


@pytest.mark.parametrize("shape", [(1, 32, 32), (32, 1, 32), (32, 32, 1), (1, 1, 8), (5, 7, 3)])
def test_odd_shapes_have_results_and_pictures(tmp_path, shape):
    output = tmp_path / "run"
    training.train(settings(data(tmp_path / "data", shape), epochs="1"), output, progress=False)
    assert (output / "results.json").is_file()
    assert len(list((output / "pictures").glob("c*.png"))) == 1


def test_a_picture_that_fails_costs_no_result(volumes, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise ValueError("no such colour")

    monkeypatch.setattr("sure_fast.engine.evaluation.save_case", fail)
    monkeypatch.setattr(pictures, "save_curves", fail)
    training.train(settings(volumes), tmp_path / "run", progress=False)
    assert json.loads((tmp_path / "run/results.json").read_text())["cases"] == 1
    printed = capsys.readouterr().out
    assert "note: losses.png could not be made: ValueError: no such colour" in printed
    assert printed.count("could not be made") == 2


def job(folder, *arguments):
    command = [sys.executable, "-m", "sure_fast.train", "--data", "data", "--quick", "--preset", "evidential"]
    return subprocess.Popen(
        [*command, "--epochs", "2", *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("arguments", [["--output", "run"], ["--output", "run", "--resume"]], ids=["output", "resume"])
def test_two_jobs_never_share_a_folder(tmp_path, arguments):
    data(tmp_path / "data")
    jobs = [job(tmp_path, *arguments, "--seed", str(seed)) for seed in (0, 1)]
    answers = [each.communicate(timeout=300) for each in jobs]
    codes = [each.returncode for each in jobs]
    assert sorted(codes) == [0, 2], answers
    refused = answers[codes.index(2)][1].strip()
    # Where the first has ended before the second looks, it is refused as a run that is there.
    assert refused.startswith(("sure_fast.train: error: output run: ", "sure_fast.train: error: resume run: "))
    assert "\n" not in refused
    config = (tmp_path / "run/config.yaml").read_text()
    assert f"\n  seed: {codes.index(0)}\n" in config


def test_runs_started_together_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "default_output", lambda config: tmp_path / "runs/now-evidential")
    data(tmp_path / "data")
    for _ in range(2):
        training.train(settings(tmp_path / "data", epochs="1"), None, progress=False)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["now-evidential", "now-evidential-2"]
    with pytest.raises(ConfigError, match="patch_size"):
        training.train(settings(tmp_path / "data", patch_size="3"), None, progress=False)
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_reader_that_leaves_does_not_end_the_run(tmp_path):
    data(tmp_path / "data")
    run = job(tmp_path, "--output", "run")
    run.stdout.readline()
    run.stdout.close()
    run.stderr.close()
    assert run.wait(timeout=300) == 0
    assert (tmp_path / "run/results.json").is_file()


def test_a_stopped_comparison_names_its_own_command(tmp_path, monkeypatch):
    from sure_fast.engine import loop, signals

    def stop(self, *_):
        raise signals.Interrupted(15)

    monkeypatch.setattr(loop.Trainer, "launch", stop)
    arguments = ["--data", str(data(tmp_path / "data")), "--presets", "evidential", "--epochs", "1"]
    arguments += ["--output", str(tmp_path / "out")]
    with pytest.raises(signals.Interrupted) as caught:
        compare.main(arguments)
    assert str(caught.value).endswith(f"continue with: python -m sure_fast.compare {' '.join(arguments)}")


def test_the_commands_are_listed():
    done = subprocess.run([sys.executable, "-m", "sure_fast"], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert f"python -m sure_fast.{name}" in done.stdout
    wrong = subprocess.run([sys.executable, "-m", "sure_fast", "trian", "--quick"], capture_output=True, text=True)
    line = f"sure_fast: error: expected one of {', '.join(COMMANDS)}, got trian; did you mean 'train'?\n"
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", line)
    reader, writer = os.pipe()
    os.close(reader)
    shut = subprocess.run([sys.executable, "-m", "sure_fast"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (shut.returncode, shut.stderr) == (0, "")


def test_a_command_by_its_name(tmp_path):
    """python -m sure_fast NAME and the script sure-fast NAME are python -m sure_fast.NAME."""
    script = Path(sys.executable).with_name("sure-fast")
    for start in ([sys.executable, "-m", "sure_fast"], [str(script)] if script.is_file() else []):
        if not start:
            continue
        done = subprocess.run([*start, "info"], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert "evidential_loss" in done.stdout
        wrong = subprocess.run([*start, "train", "--bata", "3"], capture_output=True, text=True, cwd=tmp_path)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert wrong.stderr.startswith("sure_fast.train: error: unrecognized arguments: --bata 3")


@pytest.mark.parametrize(("typed", "meant"), [("--lr", "--learning-rate"), ("--learning-rat", "--learning-rate")])
def test_what_other_programs_call_an_option(typed, meant, capsys):
    with pytest.raises(SystemExit):
        train.main([typed, "0.1"])
    assert f"did you mean '{meant}'?" in capsys.readouterr().err
