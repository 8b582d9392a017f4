"""What train and evaluate leave behind when they refuse, and when they replace."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sure_fast import evaluate
from sure_fast.engine import run as training
from sure_fast.engine.config import ConfigError, make

pytestmark = pytest.mark.slow
TINY = {"quick": True, "epochs": "1", "channels": "2,4", "phantom_cases": "4"}


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "run"
    training.train(make(TINY), folder, progress=False)
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"patch_size": "32x32"}, "patch_size: expected 3 numbers"),
        ({"fractions": "0.9,0.3,0.1"}, "fractions: expected train, val, test"),
        ({"phantom_cases": "1"}, "data phantom set: cases: expected at least 3 cases"),
        ({"phantom_cases": "0"}, "expected a whole number >= 1, got 0"),
    ],
)
def test_a_refused_run_changes_nothing(run, tmp_path, flags, message):
    before = contents(run)
    for output, overwrite in ((run, True), (tmp_path / "new", False)):
        with pytest.raises(ValueError, match=message):
            training.train(make({**TINY, **flags}), output, overwrite, progress=False)
    assert contents(run) == before
    assert not (tmp_path / "new").exists()


def test_overwrite_replaces_the_run_and_keeps_other_files(run, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(run, again)
    (again / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"expected a new or empty folder \(or --overwrite\)"):
        training.train(make(TINY), again, progress=False)
    training.train(make({**TINY, "phantom_cases": "5", "seed": "3"}), again, overwrite=True, progress=False)
    assert (again / "notes.txt").read_text() == "mine"
    split = json.loads((again / "split.json").read_text())
    assert sum(len(split[part]) for part in ("train", "val", "test")) == 5
    assert len(list((again / "phantom/imagesTr").iterdir())) == 5
    assert len(list((again / "tensorboard").iterdir())) == 1


def test_robustness_is_done_once(run, tmp_path, capsys):
    output = tmp_path / "sweep"
    arguments = ["--checkpoint", str(run), "--robustness", "--output", str(output)]
    evaluate.main(arguments)
    assert "contrast 3" in capsys.readouterr().out
    first = contents(output)
    assert set(first) == {f"robustness.{suffix}" for suffix in ("jsonl", "csv", "json", "png")}
    started = (output / "robustness.jsonl").read_text().splitlines(keepends=True)
    (output / "robustness.jsonl").write_text("".join(started[:10]))
    evaluate.main(arguments)
    assert contents(output) == first
    with pytest.raises(ConfigError, match=r"got others \(data differ\)"):
        evaluate.main([*arguments, "--data", str(run / "phantom")])


def test_evaluate_refuses_images_of_another_kind(run, tmp_path):
    generator = np.random.default_rng(0)
    for name, high, shape in (("images", 256, (16, 16, 3)), ("labels", 4, (16, 16))):
        (tmp_path / "rgb" / name).mkdir(parents=True)
        for number in range(3):
            array = generator.integers(0, high, shape, dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / "rgb" / name / f"c{number}.png")
    with pytest.raises(ConfigError, match="expected 1 channels and 3 axes as in training, got 3 and 2"):
        evaluate.main(
            ["--checkpoint", str(run), "--data", str(tmp_path / "rgb"), "--output", str(tmp_path / "evaluated")]
        )
    assert not (tmp_path / "evaluated").exists()
