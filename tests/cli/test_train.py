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
TINY = {"quick": True, "epochs": "1", "channels": "2,4,8", "phantom_cases": "4"}


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
        ({"phantom_cases": "0"}, "data.phantom_cases: expected at least 1, got 0"),
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


def relabelled(run, tmp_path, labels):
    """The run's phantom set with other names of the classes."""
    shutil.copytree(run / "phantom", tmp_path / "data")
    path = tmp_path / "data/dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": labels}))
    return tmp_path / "data"


def test_evaluate_takes_no_class_for_another(run, tmp_path, capsys):
    stored = json.loads((run / "phantom/dataset.json").read_text())["labels"]
    swapped = relabelled(run, tmp_path, {**stored, "1": stored["2"], "2": stored["1"]})
    arguments = ["--checkpoint", str(run), "--data", str(swapped)]
    with pytest.raises(ConfigError, match=r"expected .* to be class 2 as in training, got 1"):
        evaluate.main(arguments)
    shutil.rmtree(swapped)
    relabelled(run, tmp_path, {number: f"canine {name}" for number, name in stored.items()})
    evaluate.main(arguments)
    note = f"note: classes are called otherwise than in training: canine {stored['1']} ({stored['1']} in training)"
    assert note in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"train": [], "val": [], "test": 3}'])
def test_evaluate_refuses_a_split_that_is_none(run, tmp_path, text):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/split.json").write_text(text)
    with pytest.raises(ConfigError, match=r"split\.json: expected the lists train, val and test"):
        evaluate.main(["--checkpoint", str(tmp_path / "run")])


def test_evaluate_refuses_its_output_before_it_reads(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    for more in ([], ["--robustness"]):
        arguments = ["--checkpoint", str(run), "--data", str(tmp_path / "nothing"), "--output", str(tmp_path / "out")]
        with pytest.raises(ConfigError, match="expected a new or empty folder, got one with files"):
            evaluate.main([*arguments, *more])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_evaluate_looks_at_every_image_first(run, tmp_path):
    import nibabel

    for name, shape in (("a", (16, 16, 8)), ("b", (16, 16))):
        for part in ("images", "labels"):
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
            array = np.arange(np.prod(shape)).reshape(shape) % 4
            image = nibabel.Nifti1Image(array.astype(np.uint8), np.eye(4))
            nibabel.save(image, tmp_path / f"data/{part}/{name}.nii.gz")
    with pytest.raises(ConfigError, match=r"b\.nii\.gz: expected 1 channels and 3 axes as in training, got 1 and 2"):
        evaluate.main(["--checkpoint", str(run), "--data", str(tmp_path / "data")])


def test_overwrite_removes_nothing_but_a_run(run, tmp_path):
    """Folders of a user may be called as those of a run are, and the data may lie in one."""
    mine = tmp_path / "mine"
    shutil.copytree(run / "phantom", mine / "pictures")
    flags = {**TINY, "data": str(mine / "pictures")}
    before = contents(mine)
    with pytest.raises(
        ConfigError, match=r"expected a run to overwrite, got a folder without config\.yaml that holds pic"
    ):
        training.train(make(TINY), mine, overwrite=True, progress=False)
    (mine / "config.yaml").write_text("seed: 0")
    with pytest.raises(ConfigError, match="expected data that --overwrite does not remove with the run"):
        training.train(make(flags), mine, overwrite=True, progress=False)
    (mine / "config.yaml").unlink()
    assert contents(mine) == before or set(contents(mine)) - set(before) <= {".lock"}
