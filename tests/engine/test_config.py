from __future__ import annotations

import inspect

import pytest

from sure_fast.engine import config as configuration
from sure_fast.engine.config import PRESETS, ConfigError, TrainConfig, make
from sure_fast.losses import UncertaintySupervisedLoss


def write(folder, text):
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def test_flag_over_file_over_preset_over_default(tmp_path):
    file = configuration.load_file(write(tmp_path, "beta: 5\npreset: evidential\nepochs: 9\n"))
    assert make({}).beta == PRESETS["sure"]["beta"]
    assert make({"preset": "evidential"}).beta == 0
    assert make({}, file).beta == 5
    assert make({}, file).gamma == 0
    config = make({"beta": "7.5", "batch_size": "3"}, file)
    assert (config.beta, config.optimizer.batch_size, config.run.epochs, config.start_epoch) == (7.5, 3, 9, 2)
    assert make({"preset": "sure"}, file).gamma == PRESETS["sure"]["gamma"]
    for text in ("", "# epochs: 9\n"):
        assert configuration.load_file(write(tmp_path, text)) == {}


def test_saved_configuration_runs_again(tmp_path):
    flags = {"patch_size": "32x40x32", "label_map": "0:2,128:1", "learning_rate": "3e-4", "loggers": "mlflow,wandb"}
    config = make({**flags, "checkpoint_every": "7", "quick": True})
    assert (config.run.loggers, config.run.checkpoint_every) == (["mlflow", "wandb"], 7)
    assert config.data.patch_size == [32, 40, 32]
    assert config.data.label_map == {0: 2, 128: 1}
    configuration.save(config, tmp_path / "config.yaml")
    assert make({}, configuration.load_file(str(tmp_path / "config.yaml"))) == config


def test_the_preset_is_what_the_loss_does_by_itself():
    defaults = inspect.signature(UncertaintySupervisedLoss).parameters
    config = make({})
    for name in ("beta", "gamma", "order_weight", "distance_weight", "far_weight", "noise", "pairs", "operator"):
        assert getattr(config, name) == defaults[name].default, name


def test_quick_and_start_epoch():
    assert TrainConfig(epochs=100).start_epoch == 30
    quick = make({"quick": True})
    assert quick.epochs <= 3
    assert make({"quick": True, "epochs": "1"}).start_epoch == 0
    assert make({"quick": True, "preset": "softmax"}).start_epoch is None  # nothing begins


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("zzz: 3", "unknown key 'zzz'$"),
        ("epochs: many", "epochs: expected int, got 'many'"),
        ("epochs: 2.5", "epochs: expected int, got 2.5"),
        ("epochs: true", "epochs: expected int, got True"),
        ("kind: mae", "kind: expected one of digamma, log, mse, got 'mae'"),
        ("quick: 1", "quick: expected bool, got 1"),
        ("patch_size: big", "patch_size: expected list.int., got 'big'"),
        ("[1, 2]", "expected keys and values, got list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_errors_of_the_file(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        configuration.load_file(write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"epochs": "0"}, "epochs: expected at least 1, got 0"),
        ({"epochs": "3", "start_epoch": "3"}, r"start_epoch: expected 0 <= start_epoch < epochs \(3\), got 3"),
        ({"beta": "-1"}, "beta: expected a finite number >= 0, got -1"),
        ({"learning_rate": "0"}, "learning_rate: expected a finite number > 0, got 0"),
        ({"learning_rate": "nan"}, "learning_rate: expected a finite number > 0, got nan"),
        ({"gamma": "inf"}, "gamma: expected a finite number >= 0, got inf"),
        ({"seed": "-1"}, "seed: expected a finite number >= 0, got -1"),
        ({"preset": "prius", "geometry_weight": "-1"}, "geometry_weight: expected a finite number >= 0, got -1"),
        ({"noise_patch_size": "2"}, "noise_patch_size: expected an odd number"),
        ({"channels": ""}, "channels: expected list"),
    ],
)
def test_errors_of_flags(flags, message):
    with pytest.raises(ConfigError, match=message):
        make(flags)
    with pytest.raises(ConfigError, match=r"config /no/such\.yaml: cannot be read"):
        configuration.load_file("/no/such.yaml")
