from __future__ import annotations

import inspect
import os
import typing

import pytest

from sure_fast.engine import config as configuration
from sure_fast.engine.config import ConfigError, RunConfig, TrainConfig, make
from sure_fast.engine.prediction import INFERENCE
from sure_fast.losses import UncertaintySupervisedLoss
from sure_fast.losses.supervised import BETA, GAMMA
from sure_fast.methods import METHODS


def write(folder, text):
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def test_flag_over_file_over_method_over_default(tmp_path):
    file = configuration.load_file(write(tmp_path, "method: {beta: 5}\nrun:\n  epochs: 9\nnetwork: {dropout: 0.1}\n"))
    assert make({}).method.options["beta"] == BETA
    assert make({"preset": "sure"}).method.options["beta"] == 100
    assert make({"preset": "mc-dropout"}).network.dropout == 0.2
    assert make({"preset": "ensemble"}).method.members == 3
    assert make({}, file).method.options["beta"] == 5
    assert make({}, file).network.dropout == 0.1
    config = make({"method.beta": "7.5", "batch_size": "3"}, file)
    assert (config.method.options["beta"], config.method.options["gamma"]) == (7.5, GAMMA)
    assert (config.optimizer.batch_size, config.run.epochs, config.method.options["start_epoch"]) == (3, 9, 2)
    for text in ("", "# run: 9\n"):
        assert configuration.load_file(write(tmp_path, text)) == {}


@pytest.mark.parametrize("preset", METHODS)
def test_saved_configuration_runs_again(preset, tmp_path):
    flags = {"patch_size": "32x40x32", "label_map": "0:2,128:1", "learning_rate": "3e-4", "loggers": "mlflow,wandb"}
    config = make({**flags, "checkpoint_every": "7", "quick": True, "preset": preset})
    assert (config.run.loggers, config.run.checkpoint_every) == (["mlflow", "wandb"], 7)
    assert config.data.patch_size == [32, 40, 32]
    assert config.data.label_map == {0: 2, 128: 1}
    configuration.save(config, tmp_path / "config.yaml")
    assert make({}, configuration.load_file(str(tmp_path / "config.yaml"))) == config
    assert config.with_values({}) == config
    assert config.with_values({"run.device": "cpu"}).run.device == "cpu"


def test_an_option_exists_once():
    """Each is a keyword of the method's loss, with the loss's default."""
    for method in METHODS.values():
        parameters = inspect.signature(method.loss).parameters
        assert {*method.options, *method.fixed, *method.defaults, *method.needs} <= parameters.keys(), method.name
        assert method.fixed.keys().isdisjoint(method.options)
        for weights in method.needs.values():
            assert {*weights} <= parameters.keys()
        for name, value in method.options.items():
            assert value in (None, method.defaults.get(name, parameters[name].default))
    config = make({})
    for name, parameter in inspect.signature(UncertaintySupervisedLoss).parameters.items():
        if name in config.method.options and name != "start_epoch":
            assert config.method.options[name] == parameter.default, name


def test_records_name_what_there_is():
    for method in METHODS.values():
        terms = typing.get_type_hints(method.loss.forward)["return"]._fields
        assert terms[0] == "total"
        assert {*method.shown} <= {*terms}, method.name
        assert {*terms} & {"total", "segmentation", "noise"} <= {*method.composites}, method.name
        assert not method.own_images or "segmentation" in terms
        assert method.inference in INFERENCE
        assert (method.members > 1) == (method.inference == "ensemble")
    assert len({method.colour for method in METHODS.values()}) == len(METHODS)


def test_set():
    def taken(**flags):
        return configuration.take_flags({"set": [], **flags})

    given = taken(**{"data.folder": "DIR", "set": ["method.beta=30", "method.beta=3", "data.group=a=b"]})
    assert given == {"data.folder": "DIR", "method.beta": "3", "data.group": "a=b"}
    for text, message in (
        ("data.folder=X", "set: expected no data.folder beside --data, got 'X'"),
        ("beta=3", "set: expected SECTION.KEY=VALUE, got 'beta=3'; did you mean 'method.beta'?"),
        ("run.device", "set: expected SECTION.KEY=VALUE, got 'run.device'$"),
        ("method.bata=3", "unknown key 'method.bata'; did you mean 'method.beta'?"),
    ):
        with pytest.raises(ConfigError, match=message):
            taken(**{"data.folder": "DIR", "set": [text]})


def test_options_of_text():
    config = make({"method.class_weights": "1,2,0.5", "method.per_class": "true", "method.spacing": "1.5,1,1"})
    options = config.method.options
    assert (options["class_weights"], options["per_class"], options["spacing"]) == ([1, 2, 0.5], True, [1.5, 1, 1])
    assert make({"method.spacing": "2"}).method.options["spacing"] == 2
    assert make({"data.group": "null", "augment": "false"}).data.augment == "none"
    prius = make({"preset": "prius", "method.kappa": "3", "distance": "boundary"}).method
    assert (prius.options["kappa"], prius.options["distance"], prius.options["far_threshold"]) == (3, "boundary", None)


def test_quick_and_start_epoch():
    assert TrainConfig(run=RunConfig(epochs=100)).method.options["start_epoch"] == 30
    quick = make({"quick": True})
    assert quick.run.epochs <= 3
    assert make({"quick": True, "epochs": "1"}).method.options["start_epoch"] == 0
    assert "start_epoch" not in make({"quick": True, "preset": "softmax"}).method.options  # nothing begins


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: {epoch: 3}", "unknown key 'run.epoch'; did you mean 'run.epochs'?"),
        ("run: {lr: 3}", "unknown key 'run.lr'; did you mean 'optimizer.learning_rate'?"),
        ("data: {epochs: 3}", "unknown key 'data.epochs'; did you mean 'run.epochs'?"),
        ("run: {zzz: 3}", "unknown key 'run.zzz'$"),
        ("runs: {epochs: 3}\nrun: {}", "unknown section 'runs', expected data, network, .*; did you mean 'run'?"),
        ("run: 3\ndata: {}", "run: expected keys and values, got int"),
        ("run: {epochs: many}", "run.epochs: expected int, got 'many'"),
        ("run: {epochs: 2.5}", "run.epochs: expected int, got 2.5"),
        ("run: {epochs: true}", "run.epochs: expected int, got True"),
        ("method: {preset: sura}", "method.preset: expected one of softmax, .*, got 'sura'"),
        ("method: {beta: many}", "method.beta: expected float, got 'many'"),
        ("run: {quick: 1}", "run.quick: expected bool, got 1"),
        ("data: {patch_size: big}", "data.patch_size: expected list.int., got 'big'"),
        ("1: {epochs: 3}\nrun: {}", "unknown section 1, expected data"),
        ("5: 3", "unknown key '5'$"),
        ("run: {5: 3}", "unknown key 'run.5'"),
        ("preset: [1]", "method.preset: expected str, got .1."),
        ("[1, 2]", "expected keys and values, got list"),
        ("a: [", "not valid YAML"),
        ("zzz: 3", "unknown key 'zzz'$"),
    ],
)
def test_errors_of_the_file(tmp_path, text, message):
    with pytest.raises(ConfigError, match=f"^config .*{message}") as caught:
        configuration.load_file(write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"epochs": "0"}, "run.epochs: expected at least 1, got 0"),
        ({"epochs": "3", "start_epoch": "3"}, r"method.start_epoch: expected .*, got 3"),
        ({"beta": "-1"}, "method.beta: expected a finite number >= 0, got -1"),
        ({"kind": "mae"}, "method.kind: expected one of 'digamma', 'log', 'mse', got 'mae'"),
        ({"learning_rate": "0"}, "optimizer.learning_rate: expected a finite number > 0, got 0"),
        ({"learning_rate": "nan"}, "optimizer.learning_rate: expected a finite number > 0, got nan"),
        ({"gamma": "inf"}, "method.gamma: expected a finite number >= 0, got inf"),
        ({"seed": "-1"}, "run.seed: expected a finite number >= 0, got -1"),
        ({"preset": "prius", "geometry_weight": "-1"}, "method.geometry_weight: expected a finite number >= 0, got -1"),
        ({"preset": "sure", "noise_patch_size": "2"}, "method.patch_size: expected one odd number"),
        ({"channels": ""}, "network.channels: expected list"),
        ({"method.bata": "1"}, "unknown key 'method.bata'; did you mean 'method.beta'?"),
        ({"preset": "evidential", "beta": "1"}, "method.beta: expected none, preset evidential is the method with"),
        ({"preset": "softmax", "evidence": "exp"}, "method.evidence: is no option of preset softmax"),
    ],
)
def test_errors_of_flags(flags, message):
    with pytest.raises(ConfigError, match=message):
        make(flags)
    with pytest.raises(ConfigError, match=r"config /no/such\.yaml: cannot be read"):
        configuration.load_file("/no/such.yaml")


EARLIER = {
    "data": None, "layout": "auto", "label_map": {}, "fractions": [0.7, 0.1, 0.2], "epochs": 9, "batch_size": 2,
    "channels": [4, 8], "kind": "digamma", "total": "weighted", "evidence": "softplus", "annealing_epochs": 20,
    "start_epoch": None, "beta": 0.0, "gamma": 0.0, "order_weight": 1.0, "noise": "mean", "noise_patch_size": [3],
    "pairs": "exact", "operator": "sobel", "contrast_weight": None, "prius_distance": "region", "dropout": 0.0,
    "members": 1, "mining_every": 1,
}  # fmt: skip
"""Keys of a run that was made before there were sections; every method's were written."""


def test_configurations_of_earlier_runs():
    def earlier(**given):
        return make({}, configuration.parse({**EARLIER, **given}))

    sure = earlier(preset="sure", loss="evidential", inference="evidential", beta=30.0, gamma=1.0, noise_patch_size=[5])
    assert (sure.method.options["beta"], sure.method.options["patch_size"], sure.run.epochs) == (30.0, 5, 9)
    softmax = earlier(preset="mc-dropout", loss="softmax", inference="mc-dropout", dropout=0.3)
    assert (softmax.network.dropout, softmax.method.options) == (0.3, {"class_weights": None})
    prius = earlier(preset="prius", loss="prius", inference="evidential", prius_distance="boundary", start_epoch=2)
    assert prius.method.options["distance"] == "boundary"
    assert prius.method.options["contrast_weight"] == 1.0
    assert earlier(preset="evidential", loss="evidential", data="volumes").data.folder == os.path.abspath("volumes")
    for given, message in (
        ({"preset": "evidential", "loss": "prius"}, "loss: expected evidential with preset evidential, got 'prius'"),
        ({"preset": "sure", "inference": "tta"}, "inference: expected evidential with preset sure, got 'tta'"),
        ({"preset": "evidential", "gamma": 2.0}, "method.gamma: expected none, preset evidential is the method with"),
        ({"preset": "softmax", "kind": "mse"}, "method.kind: is no option of preset softmax"),
    ):
        with pytest.raises(ConfigError, match=message):
            earlier(**given)


def test_defaults_of_the_phantoms_go_with_their_schedule_and_network():
    own = make({})
    assert (own.run.epochs, own.method.options["start_epoch"], own.network.norm) == (12, 5, "group")
    assert make({"epochs": "20"}).method.options["start_epoch"] == 6
    assert make({"network.name": "attentionunet"}).network.norm is None
    assert make({"network.name": "dynunet", "norm": "batch"}).network.norm == "batch"
    assert make({"data.folder": "somewhere"}).network.norm is None
