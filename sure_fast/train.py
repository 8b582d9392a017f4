"""Trains a segmentation network with supervised uncertainty: python -m sure_fast.train [--data DIR]

Without --data an embedded phantom set (3D, cardiac-like) is written and used. The output folder holds config.yaml (runs
again with --config), split.json, log.txt, metrics.jsonl and .csv, TensorBoard events, checkpoints, pictures, results.
SIGTERM and Ctrl-C end a run after the step at hand; --resume FOLDER continues it as if it had never stopped. Several
processes share the work: torchrun --nproc-per-node N -m sure_fast.train.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .engine.cli import Parser

PROGRAM = "sure_fast.train"
RESUME_ANY = Path()
"""--resume without a folder."""


def parser() -> argparse.ArgumentParser:
    from .engine.config import add_flags

    parser = Parser(prog=PROGRAM, description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", help="YAML file with any option, as config.yaml of a run; flags override it")
    parser.add_argument("--output", type=Path, help="output folder (default: runs/DATE-TIME-PRESET)")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run in the folder")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=RESUME_ANY,
        type=Path,
        metavar="FOLDER",
        help="continue the run in this folder; without FOLDER that of --output, or start it where there is none yet; "
        "without either the one that was started last in runs/",
    )
    trial = parser.add_mutually_exclusive_group()
    trial.add_argument(
        "--dry-run",
        action="store_true",
        help="check all, do one step and a validation, keep nothing",
    )
    trial.add_argument(
        "--benchmark",
        type=int,
        metavar="N",
        help="time N steps, print the seconds of each stage as JSON",
    )
    trial.add_argument(
        "--profile", action="store_true", help="trace some steps with torch.profiler into the output folder, and end"
    )
    parser.add_argument(
        "--options", action="store_true", help="list every option of the run with --preset, with its default, and end"
    )
    add_flags(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    from . import methods
    from .engine import config as configuration
    from .engine import distributed, run

    flags = vars(parser().parse_args(arguments))
    if flags.pop("options"):
        print(configuration.listing(flags.get("method.preset", methods.DEFAULT)))
        return
    file, output, overwrite, resume = (flags.pop(name) for name in ("config", "output", "overwrite", "resume"))
    trial = {name: flags.pop(name) for name in ("dry_run", "benchmark", "profile")}
    if resume is not None and any(trial.values()):
        raise configuration.ConfigError("resume: expected no --dry-run, --benchmark or --profile with it")
    if trial["benchmark"] is not None and trial["benchmark"] < 1:
        raise configuration.ConfigError(f"benchmark: expected at least 1 step, got {trial['benchmark']}")
    flags = configuration.take_flags(flags)
    given = configuration.load_file(file) if file else {}
    if resume is None:
        config = configuration.make(flags, given)
    else:
        config, output = _resumed(flags, given, output, overwrite, resume)
    with distributed.joined(config.run.device):
        if any(trial.values()):
            run.try_out(config, output or run.default_output(config), overwrite, **trial)
        else:
            run.train(config, output, overwrite, resume=resume is not None)


def _resumed(
    flags: dict[str, Any], given: dict[str, Any], output: Path | None, overwrite: bool, resume: Path
) -> tuple[Any, Path]:
    """The configuration and the folder of the run that --resume continues, or starts."""
    from .engine import config as configuration
    from .engine import resume as resuming

    if overwrite:
        raise configuration.ConfigError("resume: expected no --overwrite with it")
    if resume != RESUME_ANY and output not in (None, resume):
        raise configuration.ConfigError(f"resume {resume}: expected no other --output, got {output}")
    named = resume if resume != RESUME_ANY else output
    folder = named or resuming.newest(Path("runs"))
    if resume == RESUME_ANY and not resuming.is_started(folder):
        return configuration.make(flags, given), folder
    return resuming.config_of(folder, {**given, **flags}), folder


if __name__ == "__main__":
    from .engine import cli

    cli.run(PROGRAM, main)
