"""metrics.jsonl and metrics.csv, and the trackers, as stand-ins for what is not installed."""

from __future__ import annotations

import csv
import json
import os
import sys
import types
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sure_fast.engine import run as training
from sure_fast.engine.config import ConfigError, make
from sure_fast.engine.logs import MetricsLog, read_rows

CLASSES = ["a", "b"]


def fill(log, epochs, steps=2, first=0):
    """Rows whose numbers follow from their place."""
    for epoch in range(first, epochs):
        for k in range(steps):
            step = epoch * steps + k
            log.step(epoch + 1, step, {"total": step / 3, "data": 1.0})
        row = {"epoch": epoch + 1, "step": (epoch + 1) * steps, "seconds": 2.0, "volumes_per_second": 4.0, "lr": 0.1}
        dice = {"val_dice": 0.5, "val_dice_per_class": {"a": 0.25, "b": 0.75}} if epoch % 2 else {"val_dice": None}
        log.epoch({**row, **dice})


def texts(folder):
    return {path.name: path.read_text() for path in folder.glob("metrics*")}


def test_rows_and_table(tmp_path):
    with MetricsLog(make({}), tmp_path, CLASSES) as log:
        fill(log, 2)
    rows = list(read_rows(tmp_path / "metrics.jsonl"))
    assert [row["kind"] for row in rows] == ["step", "step", "epoch"] * 2
    with open(tmp_path / "metrics.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["epoch", "step", "seconds", "volumes_per_second", "lr", "total", "data", "val_dice",
                              "val_dice/a", "val_dice/b"]  # fmt: skip
    assert [row["epoch"] for row in table] == ["1", "2"]
    assert [float(row["total"]) for row in table] == pytest.approx([1 / 6, 5 / 6])
    assert [row["val_dice"] for row in table] == ["", "0.5"]
    assert table[1]["val_dice/b"] == "0.75"


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (3, 6)])
def test_continued_at_any_place(tmp_path, capfd, epoch, step):
    with MetricsLog(make({}), tmp_path, CLASSES) as log:
        fill(log, 3)
    whole = texts(tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "step", "ep')  # killed within a row
    (events,) = (tmp_path / "tensorboard").iterdir()
    events.rename(events.with_name("events.out.tfevents.0.earlier"))  # its name has only whole seconds
    with MetricsLog(make({}), tmp_path, CLASSES, epoch=epoch, step=step) as log:
        if step % 2:
            log.step(epoch + 1, step, {"total": step / 3, "data": 1.0})
            end = (epoch + 1) * 2
            dice = {"val_dice": 0.5, "val_dice_per_class": {"a": 0.25, "b": 0.75}} if epoch % 2 else {"val_dice": None}
            log.epoch({"epoch": epoch + 1, "step": end, "seconds": 2.0, "volumes_per_second": 4.0, "lr": 0.1, **dice})
        fill(log, 3, first=epoch + step % 2)
    assert texts(tmp_path) == whole
    assert capfd.readouterr().err == ""
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/total")] == list(range(6))
    assert [event.step for event in events.Scalars("validation/dice")] == [3]


def test_lost_rows_are_told(tmp_path, capfd):
    with MetricsLog(make({}), tmp_path, CLASSES) as log:
        fill(log, 1)
    with MetricsLog(make({}), tmp_path, CLASSES, epoch=2, step=4):
        pass
    line = "expected the rows of 4 steps and 2 epochs before the checkpoint, got those of 2 and 1; the others are lost"
    assert capfd.readouterr().err == f"{tmp_path / 'metrics.jsonl'}: {line}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
@pytest.mark.parametrize(("file", "name"), [("_log", "metrics.jsonl"), ("_table_file", "metrics.csv")])
@pytest.mark.parametrize("sync", [True, False], ids=["at a checkpoint", "at the end"])
def test_a_full_disk_is_told_with_the_file(tmp_path, file, name, sync):
    def write():
        with MetricsLog(make({}), tmp_path, CLASSES) as log:
            os.dup2(os.open("/dev/full", os.O_WRONLY), getattr(log, file).fileno())
            fill(log, 1)
            if sync:
                log.sync()

    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path / name}'"):
        write()


class Recorder:
    """A module of a tracker that writes down how it is called."""

    def __init__(self):
        self.calls = []
        self.api = types.SimpleNamespace(api_key=None)
        self.id = "w1"

    def note(self, name, result=None):
        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            return result

        return call

    def __getattr__(self, name):
        if name == "start_run":
            return self.note(name, types.SimpleNamespace(info=types.SimpleNamespace(run_id="m1")))
        return self.note(name, self if name == "init" else None)

    def of(self, name):
        return [(arguments, options) for called, arguments, options in self.calls if called == name]


@pytest.fixture
def installed(monkeypatch):
    """Both trackers, as far as an import tells."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    recorders = {name: Recorder() for name in ("mlflow", "wandb")}
    for name, recorder in recorders.items():
        recorder.__spec__ = types.SimpleNamespace(name=name)
        monkeypatch.setitem(sys.modules, name, recorder)
    return recorders


def test_trackers(tmp_path, installed):
    config = make({"loggers": "mlflow,wandb", "beta": "3"})
    with MetricsLog(config, tmp_path, CLASSES) as log:
        fill(log, 2)
    mlflow, wandb = installed["mlflow"], installed["wandb"]
    assert mlflow.of("set_tracking_uri") == [((f"sqlite:///{tmp_path / 'mlflow.db'}",), {})]
    assert mlflow.of("log_params")[0][0][0]["method.beta"] == 3.0
    assert mlflow.of("end_run") == [(("FINISHED",), {})]
    options = wandb.of("init")[0][1]
    assert (options["mode"], options["dir"], options["id"]) == ("offline", str(tmp_path), None)
    assert options["config"] == config.flat()
    assert wandb.of("finish") == [((), {"exit_code": 0})]
    epochs = [{"lr": 0.1, "volumes_per_second": 4.0}, {"lr": 0.1, "volumes_per_second": 4.0, "validation/dice": 0.5}]
    steps = [{"train/total": step / 3, "train/data": 1.0} for step in range(4)]
    wanted = [(steps[0], 0), (steps[1], 1), (epochs[0], 1), (steps[2], 2), (steps[3], 3), (epochs[1], 3)]
    assert [(arguments[0], options["step"]) for arguments, options in mlflow.of("log_metrics")] == wanted
    assert [arguments[0] for arguments, _ in wandb.of("log")] == [{**values, "step": step} for values, step in wanted]
    # Continued, in the same run of each; ended by an error
    with pytest.raises(RuntimeError), MetricsLog(config, tmp_path, CLASSES, epoch=2, step=4):
        raise RuntimeError
    assert mlflow.of("start_run")[1][1]["run_id"] == "m1"
    assert wandb.of("init")[1][1]["id"] == "w1"
    assert len(mlflow.of("log_params")) == 1
    assert mlflow.of("end_run")[1] == (("FAILED",), {})
    # The second network of an ensemble has runs of its own
    with MetricsLog(config, tmp_path, CLASSES, member=1):
        assert mlflow.of("start_run")[2][1] == {"run_id": None, "run_name": f"{tmp_path.name}-1"}
    assert (tmp_path / "metrics-1.csv").exists()
    assert json.loads((tmp_path / "trackers.json").read_text()).keys() == {"mlflow", "wandb", "mlflow-1", "wandb-1"}


def test_where_trackers_write_follows_the_environment(tmp_path, installed, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere")
    monkeypatch.setenv("WANDB_MODE", "online")
    with MetricsLog(make({"loggers": "mlflow,wandb"}), tmp_path, CLASSES):
        pass
    assert not installed["mlflow"].of("set_tracking_uri")
    assert installed["wandb"].of("init")[0][1]["mode"] is None


def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"loggers: wandb is not installed \(pip install wandb\)"):
        training.train(make({"loggers": "wandb"}), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    for value in ("wandbb", "mlflow,mlflow", ""):
        with pytest.raises(ConfigError, match="loggers: expected any of mlflow, wandb, each once, got"):
            make({"loggers": value})
