"""Trains methods on the same data and puts them side by side: python -m sure_fast.compare [--data DIR] [--presets …]

The output folder holds a run per preset and seed, report.html (tables, curves and slices in one file), results.csv,
results.json and results.md. Started again, it goes on where it stopped. Without --data it uses a phantom set.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from .engine.cli import Parser

PROGRAM = "sure_fast.compare"
QUICK: dict[str, Any] = {
    "phantom_cases": "12",
    "epochs": "40",
    "batch_size": "2",
    "channels": "8,16",
    "validate_every": "40",
}
QUICK_SHAPE, QUICK_SEVERITIES = (48, 48, 12), "1,3,5"
OWNED = {"beta": "sure", "gamma": "sure", "dropout": "mc-dropout", "members": "ensemble"}
"""Options of one preset: they leave the others as they are, as does any option that a preset's method does not read."""


def main(arguments: list[str] | None = None) -> None:
    from .engine.config import PRESETS, add_flags
    from .engine.signals import Interrupted, StopRequest

    parser = Parser(prog=PROGRAM, description=str(__doc__).splitlines()[0])
    parser.add_argument("--presets", default=",".join(PRESETS), help="comma-separated (default: all)")
    parser.add_argument("--seeds", default="0", help="comma-separated (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("runs/compare"), help="output folder")
    parser.add_argument("--severities", help="of the corruptions (default: 1,2,3,4,5; quick: 1,3,5)")
    parser.add_argument("--no-robustness", action="store_const", dest="severities", const="", help="no corruptions")
    parser.add_argument("--quick", action="store_true", help="a small phantom set, few epochs, three severities")
    add_flags(parser, without=("preset", "seed", "quick", "loss", "inference"))
    flags = vars(parser.parse_args(arguments))
    presets, seeds, output, severities, quick = (
        flags.pop(name) for name in ("presets", "seeds", "output", "severities", "quick")
    )
    with StopRequest():
        try:
            compare(flags, presets.split(","), seeds.split(","), output, severities, quick, arguments)
        except Interrupted as error:
            error.command = shlex.join(["python", "-m", PROGRAM, *(sys.argv[1:] if arguments is None else arguments)])
            raise


def compare(
    flags: dict[str, Any],
    presets: list[str],
    seeds: list[str],
    output: Path,
    severities: str | None = None,
    quick: bool = False,
    arguments: list[str] | None = None,
    progress: bool = True,
) -> None:
    from .data import phantom
    from .engine import checkpoint, comparison, console, distributed, lock, report, robustness
    from .engine import config as configuration
    from .engine import run as training
    from .engine.cases import brought_to, find_cases

    distributed.refuse_ranks(PROGRAM)
    if quick and flags.get("data"):
        raise configuration.ConfigError("quick: expected no data, it uses a phantom set")
    for preset in presets:
        configuration.convert("preset", preset)
    numbers = [configuration.convert("seed", seed) for seed in seeds]
    for name, values in (("presets", presets), ("seeds", numbers)):
        if len(set(values)) != len(values):
            raise configuration.ConfigError(f"{name}: expected each once, got {','.join(map(str, values))}")
    wanted = robustness.conditions(_severities(severities, QUICK_SEVERITIES if quick else None))
    base = QUICK if quick else {} if flags.get("data") else configuration.PHANTOM
    shared = {**base, "split_seed": "0", **flags}
    for name, owner in OWNED.items():
        if name in flags and owner not in presets:
            raise configuration.ConfigError(f"{name}: is an option of the preset {owner}, which is not compared")

    unread = {preset: configuration.unread(preset, shared) for preset in presets}
    for name in flags:
        if all(name in names for names in unread.values()):
            raise configuration.ConfigError(f"{name}: none of the presets {','.join(presets)} reads it")

    def configure(preset: str, seed: int) -> Any:
        own = {name: value for name, value in shared.items() if OWNED.get(name, preset) == preset}
        own = {name: value for name, value in own.items() if name not in unread[preset]}
        return configuration.make({**own, "data": str(folder.resolve()), "preset": preset, "seed": seed})

    folder = Path(flags["data"]) if flags.get("data") else output / "phantom"
    plan = [(preset, seed) for seed in numbers for preset in presets]
    # a wrong option, and a run of another configuration, are refused before anything is written
    configs = {key: configure(*key) for key in plan}
    places = {(preset, seed): output / f"{preset}-seed{seed}" for preset, seed in plan}
    missing = [key for key in plan if not comparison.is_complete(places[key], configs[key])]
    with lock.held(output):
        if not flags.get("data"):
            shape = QUICK_SHAPE if quick else phantom.SHAPE
            phantom.write(folder, configs[plan[0]].phantom_cases, 0, shape=shape)
        runs = []
        for number, (preset, seed) in enumerate(plan, 1):
            config, place = configs[preset, seed], places[preset, seed]
            if (preset, seed) in missing:
                if progress:
                    print(f"{PROGRAM}: run {number} of {len(plan)}: {preset}, seed {seed}", flush=True)
                started = comparison.is_started(place, config)
                training.train(config, place, overwrite=not started, progress=progress, resume=started)
            runs.append(comparison.load_run(preset, seed, place))
        comparison.check_same(runs)
        config = configs[plan[0]]
        of_run = json.loads((places[plan[0]] / "split.json").read_text(encoding="utf-8"))
        skipped = [row["case"] for row in of_run["skipped"]]
        orientation = checkpoint.load(places[plan[0]])["plan"].orientation
        cases, split = brought_to(orientation, *find_cases(config, folder, str(folder), without=skipped))
        device = distributed.choose_device(config.device)
        chosen = comparison.evaluated_cases(cases, runs[0])
        for run in console.bar(runs, "examine", "run", shown=progress):
            comparison.examine(run, chosen, info=cases.info, device=device, conditions=wanted, progress=progress)
        names = {part: [case.name for case in getattr(split, part)] for part in ("train", "val", "test")}
        command = sys.argv[1:] if arguments is None else arguments
        described = comparison.describe(command, config, presets, numbers, names)
        found = comparison.Comparison(runs, dict(cases.info.class_names), described)
        comparison.write_tables(found, output)
        report.write(found, output / "report.html")
    print((output / "results.md").read_text(encoding="utf-8"))
    print(f"{PROGRAM}: {json.dumps(str(output / 'report.html'))} has the tables, curves and slices", flush=True)


def _severities(given: str | None, default: str | None) -> list[int]:
    from .engine.config import ConfigError
    from .engine.robustness import SEVERITIES

    text = default if given is None else given
    if text is None:
        return list(SEVERITIES)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not set(parts) <= set(map(str, SEVERITIES)) or len(set(parts)) != len(parts):
        raise ConfigError(f"severities: expected some of 1,2,3,4,5, each once, got {text}")
    return sorted(map(int, parts))


if __name__ == "__main__":
    from .engine import cli

    cli.run(PROGRAM, main)
