"""Every comparison method trains, is evaluated, and comes back from its checkpoints the same."""

from __future__ import annotations

import json

import pytest

from sure_fast import evaluate, predict
from sure_fast.data import phantom
from sure_fast.engine import run as training
from sure_fast.engine.config import PRESETS, ConfigError, make

pytestmark = pytest.mark.slow
TINY = {"epochs": "2", "channels": "2,4", "batch_size": "2", "validate_every": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return phantom.write(tmp_path_factory.mktemp("set") / "phantom", 5, 0, shape=(32, 32, 8))


@pytest.mark.parametrize("preset", PRESETS)
def test_preset(preset, data, tmp_path, capsys):
    output = tmp_path / "run"
    config = make({**TINY, "data": str(data), "preset": preset, "members": "2"} if preset == "ensemble" else
                  {**TINY, "data": str(data), "preset": preset})  # fmt: skip
    training.train(config, output, progress=False)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "step"]
    terms = {
        "softmax": {"cross_entropy"},
        "devis": {"calibration"},
        "prius": {"contrast", "corruption", "geometry"},
        "evidential": {"data", "kl"},
    }[config.loss]
    assert terms <= steps[-1].keys()
    assert all(steps[-1][term] > 0 for term in terms - {"corruption"})
    assert (output / "pictures/losses.png").is_file()
    members = {path.name for path in (output / "checkpoints").iterdir()}
    names = {"last.pt", "last.previous.pt", "best.pt"}
    more = {name.replace(".", "-1.", 1) for name in names} if preset == "ensemble" else set()
    assert members == names | more
    capsys.readouterr()
    evaluate.main(["--checkpoint", str(output), "--output", str(tmp_path / "again")])
    assert (tmp_path / "again/results.json").read_text() == (output / "results.json").read_text()
    predict.main(["--checkpoint", str(output), "--input", str(data / "imagesTr"), "--output", str(tmp_path / "maps")])
    assert len(list((tmp_path / "maps").glob("*.nii.gz"))) == 10


def test_methods_that_make_no_sense_are_refused():
    for flags, text in (
        ({"preset": "softmax", "inference": "evidential"}, "loss: expected evidential, devis or prius with inference"),
        ({"preset": "sure", "inference": "tta"}, "loss: expected softmax with inference tta, got 'evidential'"),
        ({"preset": "devis", "beta": "1"}, "beta, gamma: expected 0 with loss devis, got 1.0, 0.0"),
        ({"preset": "ensemble", "members": "1"}, "members: expected at least 2 with inference ensemble, got 1"),
        ({"preset": "tta", "members": "2"}, "members: expected 1 with inference tta, got 2"),
        ({"preset": "mc-dropout", "dropout": "0"}, "dropout: expected a number > 0 with inference mc-dropout"),
        ({"preset": "softmax", "kind": "mse"}, "kind: expected with evidential or devis or prius only, .* got 'mse'"),
        ({"preset": "prius", "blur_sigma": "2"}, "blur_sigma: expected with beta > 0 only, .* got 2.0"),
        ({"preset": "sure", "gamma": "0", "noise": "std"}, "noise: expected with gamma > 0 only"),
        ({"preset": "evidential", "start_epoch": "3"}, "start_epoch: expected with beta > 0 or gamma > 0 or prius"),
        ({"preset": "sure", "prius_distance": "boundary"}, "prius_distance: expected with prius only"),
        ({"preset": "mc-dropout", "dropout": "1"}, r"dropout: expected a number in \[0, 1\), got 1.0"),
    ):
        with pytest.raises(ConfigError, match=text):
            make(flags)
