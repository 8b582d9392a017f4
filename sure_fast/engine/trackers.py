"""Experiment trackers that a run reports to when asked: MLflow and Weights & Biases. Neither needs a network."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any, Protocol

from .config import ConfigError, TrainConfig
from .files import write_text

RUNS = "trackers.json"
"""In the run's folder: the identifiers under which the trackers know it, so that a resumed run goes on in them."""
PROJECT = "sure_fast"


class Tracker(Protocol):
    """One run of one tracker."""

    identifier: str

    def log(self, values: dict[str, float], step: int) -> None: ...

    def close(self, failed: bool) -> None: ...


class MLflow:
    """To MLFLOW_TRACKING_URI where it is set, else to mlflow.db in the run's folder."""

    def __init__(self, config: TrainConfig, output: Path, name: str, identifier: str | None) -> None:
        self._mlflow = importlib.import_module("mlflow")
        if "MLFLOW_TRACKING_URI" not in os.environ:
            self._mlflow.set_tracking_uri(f"sqlite:///{output.resolve() / 'mlflow.db'}")
        self._mlflow.set_experiment(PROJECT)
        run = self._mlflow.start_run(run_id=identifier, run_name=name)
        self.identifier: str = run.info.run_id
        if identifier is None:
            self._mlflow.log_params(config.flat())

    def log(self, values: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics(values, step=step)

    def close(self, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class WandB:
    """As WANDB_MODE says; without it to the account that is logged in, else offline into the run's folder."""

    def __init__(self, config: TrainConfig, output: Path, name: str, identifier: str | None) -> None:
        wandb = importlib.import_module("wandb")
        offline = "WANDB_MODE" not in os.environ and not wandb.api.api_key
        self._run = wandb.init(
            project=PROJECT,
            name=name,
            id=identifier,
            resume="allow",
            dir=str(output),
            config=config.flat(),
            mode="offline" if offline else None,
        )
        self.identifier: str = self._run.id
        # W&B's own step may only grow; a resumed run goes back to that of its checkpoint
        self._run.define_metric("*", step_metric="step")

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


TRACKERS: dict[str, Any] = {"mlflow": MLflow, "wandb": WandB}


def check(names: list[str]) -> None:
    """ConfigError where a tracker that was asked for is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"run.loggers: {name} is not installed (pip install {name})")


def start(config: TrainConfig, output: Path, member: int) -> list[Tracker]:
    """The trackers of `config.run.loggers`, each with a run of its own for the member, begun or continued."""
    file = output / RUNS
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    suffix = f"-{member}" if member else ""
    trackers: list[Tracker] = []
    for name in config.run.loggers:
        tracker = TRACKERS[name](config, output, output.resolve().name + suffix, known.get(name + suffix))
        known[name + suffix] = tracker.identifier
        write_text(file, json.dumps(known, indent=1))
        trackers.append(tracker)
    return trackers
