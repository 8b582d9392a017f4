"""Which run is continued, and that it is the same run."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

from . import config as configuration
from . import distributed, lock
from .config import INDEPENDENT, ConfigError, TrainConfig

PLANNED = ("data.patch_size", "network.channels", "method.start_epoch")
"""Keys that a run fills in when they are left open."""
BEGINNING = ("phantom", "split.json", "*.partial", lock.NAME)
"""What is written before config.yaml."""


def command(output: Path) -> str:
    """What continues a run; on several machines with the options of torchrun that started it."""
    module = ["-m", "sure_fast.train", "--resume", str(output)]
    ranks = distributed.world_size()
    if ranks == 1:
        return shlex.join(["python", *module])
    here = os.environ.get("LOCAL_WORLD_SIZE")
    options = ["--nproc-per-node", str(ranks)] if here == str(ranks) else ["…"]
    return shlex.join(["torchrun", *options, *module])


def is_started(folder: Path) -> bool:
    """Whether a run got as far as its configuration, which is written once its data are checked."""
    return (folder / "config.yaml").is_file()


def is_complete(folder: Path) -> bool:
    """Whether its results are there; where they are damaged, they are made again."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return is_started(folder) and isinstance(results, dict)


def newest(runs: Path) -> Path:
    """The run that was started last in a folder of runs."""
    started = [folder for folder in runs.iterdir() if is_started(folder)] if runs.is_dir() else []
    if not started:
        raise ConfigError(f"resume: expected a run in {runs}, got none; name its folder")
    return max(started, key=lambda folder: (folder / "config.yaml").stat().st_mtime_ns)


def is_remnant(folder: Path) -> bool:
    """Whether the folder holds nothing but what a run leaves that was killed before it was started."""
    return folder.is_dir() and all(any(path.match(name) for name in BEGINNING) for path in folder.iterdir())


def config_of(folder: Path, given: dict[str, Any]) -> TrainConfig:
    """The configuration of a started run; of the keys given now, those of INDEPENDENT replace its own.

    Raises:
        ConfigError: a key has another value than the run was started with.
    """
    if not is_started(folder):
        raise ConfigError(f"resume {folder}: expected the folder of a run with config.yaml, got none")
    stored = configuration.load_stored(folder)
    values, replaced = stored.flat(), {}
    for name, value in configuration.converted(given).items():
        if name in INDEPENDENT:
            replaced[name] = value
        elif name not in values or (value != values[name] and not (name in PLANNED and value in (None, []))):
            raise ConfigError(f"resume {folder}: was started with {name} {values.get(name)!r}, got {value!r}")
    return stored.with_values(replaced)


def check_split(folder: Path, split: dict[str, list[str]]) -> None:
    """ConfigError where the cases, or their split, are not those that the run was started with."""
    path = folder / "split.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"{path}: cannot be read") from None
    for part, names in split.items():
        if names != stored.get(part):
            raise ConfigError(f"resume {folder}: the {part} cases of the data are not those it was started with")
