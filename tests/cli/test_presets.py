"""Every comparison method trains, is evaluated, and comes back from its checkpoints the same."""

from __future__ import annotations

import json

import pytest

from sure_fast import evaluate, predict
from sure_fast.data import phantom
from sure_fast.engine import run as training
from sure_fast.engine.config import ConfigError, make
from sure_fast.methods import METHODS

pytestmark = pytest.mark.slow
TINY = {"epochs": "2", "channels": "2,4,8", "batch_size": "2", "validate_every": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return phantom.write(tmp_path_factory.mktemp("set") / "phantom", 5, 0, shape=(32, 32, 8))


@pytest.mark.parametrize("preset", METHODS)
def test_preset(preset, data, tmp_path, capsys):
    output = tmp_path / "run"
    config = make({**TINY, "data": str(data), "preset": preset, "members": "2"} if preset == "ensemble" else
                  {**TINY, "data": str(data), "preset": preset})  # fmt: skip
    training.train(config, output, progress=False)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "step"]
    own = {"devis": {"calibration"}, "prius": {"contrast", "corruption", "geometry"}, "probabilistic": {"kl"}}
    terms = own.get(preset, {"data", "kl"} if config.method.record.inference == "evidential" else {"cross_entropy"})
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
        ({"preset": "devis", "beta": "1"}, "method.beta: is no option of preset devis"),
        ({"preset": "ensemble", "members": "1"}, "method.members: expected at least 2 with ensemble, got 1"),
        ({"preset": "tta", "members": "2"}, "method.members: expected 1 with tta, got 2"),
        ({"preset": "mc-dropout", "dropout": "0"}, "network.dropout: expected a number > 0 with mc-dropout"),
        ({"preset": "softmax", "kind": "mse"}, "method.kind: is no option of preset softmax"),
        ({"preset": "prius", "blur_sigma": "2"}, "method.blur_sigma: is no option of preset prius"),
        ({"preset": "sure", "gamma": "0", "noise": "std"}, "method.noise: expected with method.gamma > 0 only"),
        ({"preset": "evidential", "start_epoch": "3"}, "method.start_epoch: is no option of preset evidential"),
        ({"preset": "sure", "beta": "0", "gamma": "0", "start_epoch": "3"}, "method.start_epoch: expected with method"),
        ({"preset": "sure", "distance": "boundary"}, "method.distance: is no option of preset sure"),
        ({"preset": "mc-dropout", "dropout": "1"}, r"network.dropout: expected a number in \[0, 1\), got 1.0"),
    ):
        with pytest.raises(ConfigError, match=text):
            make(flags)
