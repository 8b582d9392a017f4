"""The whole of a comparison: trains what is missing, examines every run, writes tables and report."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data import phantom
from ..engine import checkpoint, console, distributed, lock, robustness, run
from ..engine import config as configuration
from ..engine.cases import brought_to, find_cases
from ..engine.config import ConfigError, TrainConfig
from ..engine.maps import MapFolders
from ..methods import METHODS
from . import report, results, tables

PROGRAM = "sure_fast.compare"
QUICK: dict[str, Any] = {
    "data.phantom_cases": "12",
    "run.epochs": "28",
    "method.start_epoch": "16",
    "optimizer.batch_size": "1",
    "optimizer.learning_rate": "5e-3",
    "network.norm": "group",
    "network.channels": "8,16,32,64",
    "run.validate_every": "28",
    "data.augment": "mirror",
}
OWN = {"method.preset": "--presets", "run.seed": "--seeds", "run.quick": "--quick of this command"}
"""Options of a run that a comparison sets."""
QUICK_SHAPE, QUICK_SEVERITIES = (48, 48, 12), "3"


def compare(
    flags: dict[str, Any],
    presets: list[str],
    seeds: list[str],
    output: Path,
    severities: str | None = None,
    quick: bool = False,
    arguments: list[str] | None = None,
    progress: bool = True,
    added: Mapping[str, Path] | None = None,
) -> None:
    """Trains what is missing of every preset and seed, examines all, and writes tables and report into `output`.

    Args:
        flags: text by section.key, or by a key that one section has, for every method that has the option.
        severities: of the corruptions, comma-separated; "": none; None: all, or of a quick comparison some.
        quick: a small phantom set and few epochs.
        arguments: what to give as the command in the report; None: those of this process.
        added: by name, folders of what other tools left of the test cases, which stand beside the presets.

    Raises:
        ConfigError: a wrong option, or a run of another configuration in the folder, before anything is written.
    """
    distributed.refuse_ranks(PROGRAM)
    flags = {configuration.full_name(name): value for name, value in flags.items()}
    for name, instead in OWN.items():
        if name in flags:
            raise ConfigError(f"{name}: expected {instead} instead, got {flags[name]!r}")
    if quick and flags.get("data.folder"):
        raise ConfigError("quick: expected no data, it uses a phantom set")
    numbers = _checked(presets, seeds)
    others = {name: _map_folders(name, path) for name, path in (added or {}).items()}
    wanted = robustness.conditions(_severities(severities, QUICK_SEVERITIES if quick else None))
    folder = Path(flags["data.folder"]) if flags.get("data.folder") else output / "phantom"
    # a wrong option, and a run of another configuration, are refused before anything is written
    configs = _configurations(flags, presets, numbers, folder, quick)
    folders = {(preset, seed): output / f"{preset}-seed{seed}" for preset, seed in configs}
    missing = [key for key, config in configs.items() if not results.is_complete(folders[key], config)]
    config, first_run = next((config, folders[key]) for key, config in configs.items())
    with lock.held(output):
        if not flags.get("data.folder"):
            phantom.write(folder, config.data.phantom_cases, 0, shape=QUICK_SHAPE if quick else phantom.SHAPE)
        runs = _runs(configs, folders, missing, progress)
        skipped = [row["case"] for row in json.loads((first_run / "split.json").read_text(encoding="utf-8"))["skipped"]]
        preparation = checkpoint.load(first_run)["plan"].preparation
        cases, split = brought_to(preparation, *find_cases(config, folder, str(folder), without=skipped))
        device = distributed.choose_device(config.run.device)
        chosen = results.evaluated_cases(cases, runs[0])
        for one in console.bar(runs, "examine", "run", shown=progress):
            results.examine(one, chosen, info=cases.info, device=device, conditions=wanted, progress=progress)
        for name, maps in others.items():
            runs.append(results.examine_maps(name, maps, chosen, output / f"added-{name}", info=cases.info,
                                             progress=progress))  # fmt: skip
        results.check_same(runs)
        names = {part: [case.name for case in getattr(split, part)] for part in ("train", "val", "test")}
        command = sys.argv[1:] if arguments is None else arguments
        described = results.describe(command, list(configs.values()), numbers, names)
        comparison = results.Comparison(runs, dict(cases.info.class_names), described, tuple(others))
        tables.write(comparison, output)
        report.write(comparison, output / "report.html")
    print((output / "results.md").read_text(encoding="utf-8"))
    print(f"{PROGRAM}: {json.dumps(str(output / 'report.html'))} has the tables, curves and slices", flush=True)


def _map_folders(name: str, path: Path) -> MapFolders:
    if name in METHODS or not re.fullmatch(r"[\w.+ -]+", name):
        raise ConfigError(f"add: expected a name of letters and digits that no preset has, got {name!r}")
    return MapFolders.of(path)


def _checked(presets: list[str], seeds: list[str]) -> list[int]:
    """The seeds as numbers."""
    for preset in presets:
        configuration.convert("method.preset", preset)
    numbers = [configuration.convert("run.seed", seed) for seed in seeds]
    for name, values in (("presets", presets), ("seeds", numbers)):
        if len(set(values)) != len(values):
            raise ConfigError(f"{name}: expected each once, got {','.join(map(str, values))}")
    return numbers


def _configurations(
    flags: dict[str, Any], presets: list[str], seeds: list[int], folder: Path, quick: bool
) -> dict[tuple[str, int], TrainConfig]:
    """Of every preset and seed, with the options that its method has."""
    base = QUICK if quick else {} if flags.get("data.folder") else configuration.PHANTOM
    for name in flags:
        if not any(METHODS[preset].has(name) for preset in presets):
            raise ConfigError(f"{name}: is no option of any of the presets {','.join(presets)}")
    shared = {
        **configuration.fitting_defaults(base, flags),
        "data.split_seed": "0",
        **flags,
        "data.folder": str(folder.resolve()),
    }
    configs = {}
    for seed in seeds:
        for preset in presets:
            own = {name: value for name, value in shared.items() if METHODS[preset].has(name)}
            configs[preset, seed] = configuration.make({**own, "method.preset": preset, "run.seed": seed})
    return configs


def _runs(
    configs: dict[tuple[str, int], TrainConfig],
    folders: dict[tuple[str, int], Path],
    missing: list[tuple[str, int]],
    progress: bool,
) -> list[results.Run]:
    """Every run, trained where it is missing; of one set of classes and cases."""
    runs = []
    for number, ((preset, seed), config) in enumerate(configs.items(), 1):
        folder = folders[preset, seed]
        if (preset, seed) in missing:
            if progress:
                print(f"{PROGRAM}: run {number} of {len(configs)}: {preset}, seed {seed}", flush=True)
            started = results.is_started(folder, config)
            run.train(config, folder, overwrite=not started, progress=progress, resume=started)
        runs.append(results.load_run(preset, seed, folder))
    results.check_same(runs)
    return runs


def _severities(given: str | None, default: str | None) -> list[int]:

    text = default if given is None else given
    if text is None:
        return list(robustness.SEVERITIES)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not set(parts) <= set(map(str, robustness.SEVERITIES)) or len(set(parts)) != len(parts):
        raise ConfigError(f"severities: expected some of 1,2,3,4,5, each once, got {text}")
    return sorted(map(int, parts))
