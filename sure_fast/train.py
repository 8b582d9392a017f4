"""Trains a segmentation network with supervised uncertainty: python -m sure_fast.train [--data DIR]

Without --data an embedded phantom set (3D, cardiac-like) is written and used. The output folder holds config.yaml (runs
again with --config), split.json, metrics.jsonl and .csv, TensorBoard events, checkpoints, pictures and results.json.
SIGTERM and Ctrl-C end a run after the step at hand; --resume FOLDER continues it as if it had never stopped. Several
processes share the work: torchrun --nproc-per-node N -m sure_fast.train.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

PROGRAM = "sure_fast.train"
LOG = "log.txt"
PRODUCTS = (
    "config.yaml",
    LOG,
    "split.json",
    "metrics.jsonl",
    "metrics-*.jsonl",
    "metrics.csv",
    "metrics-*.csv",
    "trackers.json",
    "mlflow.db",
    "mlruns",
    "wandb",
    "results.json",
    "results.csv",
    "curves.json",
    "slices",
    "checkpoints",
    "pictures",
    "tensorboard",
    "robustness",
    "cache",
    "profile",
    "*.partial",
)
RESUME_ANY = Path()
"""--resume without a folder."""


class Parser(argparse.ArgumentParser):
    """One line for a wrong flag, with the flag that may have been meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        from .engine.config import suggestion

        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            hint = suggestion(unknown[0].split("=")[0], flags) if unknown[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    from .engine.config import add_flags

    parser = Parser(prog=PROGRAM, description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", help="YAML file with any of the keys below; flags override it")
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
    add_flags(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    from .engine import config as configuration
    from .engine import distributed

    flags = vars(parser().parse_args(arguments))
    file, output, overwrite, resume = (flags.pop(name) for name in ("config", "output", "overwrite", "resume"))
    trial = {name: flags.pop(name) for name in ("dry_run", "benchmark", "profile")}
    if resume is not None and any(trial.values()):
        raise configuration.ConfigError("resume: expected no --dry-run, --benchmark or --profile with it")
    if trial["benchmark"] is not None and trial["benchmark"] < 1:
        raise configuration.ConfigError(f"benchmark: expected at least 1 step, got {trial['benchmark']}")
    given = configuration.load_file(file) if file else {}
    if resume is None:
        config = configuration.make(flags, given)
    else:
        config, output = _resumed(flags, given, output, overwrite, resume)
    with distributed.joined(config.device):
        if any(trial.values()):
            try_out(config, output or _default_output(config), overwrite, **trial)
        else:
            train(config, output, overwrite, resume=resume is not None)


def _default_output(config: Any) -> Path:
    from .engine import distributed

    return Path("runs") / distributed.from_main(lambda: f"{datetime.now():%Y%m%d-%H%M%S}-{config.preset}")


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


def train(
    config: Any, output: Path | None, overwrite: bool = False, progress: bool = True, resume: bool = False
) -> Any:
    """Trains and evaluates one run; returns the EvaluationResult of its cases.

    Of several ranks rank 0 writes, and all return the same.

    Args:
        output: the run's folder, which no other process may write into meanwhile; None: a new one in runs/.
        resume: a run that was started in `output` goes on, with its configuration; one that is complete is left as it
            is, and the result is None. Without one there, a run is started.

    Raises:
        Interrupted: SIGTERM or Ctrl-C; the message says what was saved and how to go on.
        RunFailure: a loss is not finite, or a file cannot be written.
    """
    from .engine import distributed, lock
    from .engine import resume as resuming
    from .engine.signals import Interrupted, StopRequest

    with lock.held(output or _default_output(config), fresh=output is None) as folder:
        if resume and distributed.from_main(lambda: resuming.is_complete(folder)):
            _say(f"the run in {folder} is complete")
            return None
        with StopRequest() as stop:
            try:
                return _train(config, folder, overwrite, progress, resume, stop)
            except Interrupted as error:
                if resuming.is_started(folder):
                    error.command = resuming.command(folder)
                raise


def _train(config: Any, output: Path, overwrite: bool, progress: bool, resume: bool, stop: Any) -> Any:
    from .engine import console, distributed

    begun = time.monotonic()
    progress = progress and distributed.is_main()
    run, device, started = _prepare(config, output, overwrite, progress, resume)
    with console.journal(output / LOG):
        return _go_through(run, device, output, progress, stop, started, begun)


def _prepare(config: Any, output: Path, overwrite: bool, progress: bool, resume: bool) -> tuple[_Run, Any, bool]:
    """Checks all there is to check, then leaves config.yaml, with which a run is started; whether it was before."""
    from .engine import cli, distributed, trackers
    from .engine import resume as resuming
    from .engine.config import save
    from .engine.optimization import check_device

    started = distributed.from_main(lambda: resume and resuming.is_started(output))
    if started:
        config = resuming.config_of(output, config.to_dict())
    else:
        remnant = distributed.from_main(lambda: resume and resuming.is_remnant(output))
        distributed.from_main(lambda: cli.new_folder(output, overwrite or remnant))
    trackers.check(config.loggers)
    device = distributed.own_device(config.device)
    check_device(config, device)
    if started:
        run = _plan(config, Path(config.data) if config.data else output / "phantom", progress)
        resuming.check_split(output, run.names)
    else:
        run = _begin(config, output, progress)
    distributed.from_main(lambda: save(run.config, output / "config.yaml"))
    return run, device, started


def _go_through(run: _Run, device: Any, output: Path, progress: bool, stop: Any, started: bool, begun: float) -> Any:
    """Trains every network of the run, then evaluates."""
    from .engine import backends, checkpoint, console, distributed, loop, pictures

    config, cases, split, plan = run.config, run.cases, run.split, run.plan
    ranks = distributed.world_size()
    _say(f"preset {config.preset} on {run.folder}: {len(split.train)} training, {len(split.val)} validation, "
         f"{len(split.test)} test cases; patch {plan.patch_size}; "
         f"{device}{f', {ranks} ranks' if ranks > 1 else ''}; the run is in {output}")  # fmt: skip
    _say(backends.describe(device))

    dataset = _dataset(run, output, progress)
    seconds = {"data": time.monotonic() - begun, "training": 0.0, "validation": 0.0}
    trainers = []
    for member in range(config.members):
        if config.members > 1:
            _say(f"network {member + 1} of {config.members}")
        trainer = loop.Trainer(config, plan, dataset, split.val, cases.info, device, output, member)
        resumed = started and trainer.resume(_say)
        if config.init_from and not resumed:
            trainer.model.load_state_dict(checkpoint.load_weights(Path(config.init_from), plan))
        trainer.train(progress, stop, _say)
        trainers.append(trainer)
        _say(trainer.describe_times())
        seconds["training"] += trainer.progress.training_seconds
        seconds["validation"] += trainer.progress.validation_seconds
    if distributed.is_main():
        console.attempt("losses.png", lambda: pictures.save_curves(output / "metrics.jsonl", output / "pictures"), _say)
    result = _evaluate(run, [trainer.weights for trainer in trainers], trainers[0].progress, output, progress, seconds)
    spent = ", ".join(f"{stage} {console.duration(value)}" for stage, value in seconds.items())
    _say(f"time: {spent}; {console.duration(sum(seconds.values()))} in all")
    _say(f"the run is in {output}")
    return result


def _evaluate(run: _Run, models: list[Any], at: Any, output: Path, progress: bool, seconds: dict[str, float]) -> Any:
    """The table of the test cases, of the validation cases where there are none; None where there are neither."""
    from .engine import checkpoint, distributed
    from .engine.evaluation import EvaluationResult, evaluate_cases
    from .engine.prediction import Predictor
    from .engine.table import print_table

    started = time.monotonic()
    config, device = run.config, next(models[0].parameters()).device
    part = "test" if run.split.test else "val"
    chosen = getattr(run.split, part)
    if not chosen:
        _say("no test and no validation cases: the weights of the last epoch are kept, and nothing is evaluated")
        empty = EvaluationResult(dict(run.cases.info.class_names))
        distributed.from_main(lambda: empty.write(output))
        return None
    weights = f"those of the last epoch (validation Dice best in epoch {at.best_epoch}: {at.best:.3f})"
    if config.weights == "best":
        weights = f"the best of the validation, of epoch {at.best_epoch}"
        for member, model in enumerate(models):
            path = output / "checkpoints" / checkpoint.member_name("best.pt", member)
            model.load_state_dict(checkpoint.load(path, device)["model"])
    elif not at.best_epoch:
        weights = "those of the last epoch"
    _say(f"evaluates {len(chosen)} {'test' if part == 'test' else 'validation'} cases; weights: {weights}")
    result = evaluate_cases(
        Predictor(models, run.plan.patch_size, inference=config.inference, evidence=config.evidence, seed=config.seed),
        chosen,
        info=run.cases.info,
        device=device,
        seed=config.seed,
        progress=progress,
        pictures=output / "pictures",
        report=_say,
    )
    distributed.from_main(lambda: result.write(output))
    if distributed.is_main():
        print_table(result)
    seconds["evaluation"] = time.monotonic() - started
    return result


def try_out(
    config: Any,
    output: Path,
    overwrite: bool = False,
    progress: bool = True,
    *,
    dry_run: bool = False,
    benchmark: int | None = None,
    profile: bool = False,
) -> None:
    """One of `dry_run`, `benchmark` (steps) and `profile`, on the data and network of a run; trains nothing to keep.

    The first leaves nothing, the second prints JSON, the third leaves output/profile/trace.json.
    """
    from .engine import cli, distributed, loop, trackers, trial
    from .engine.optimization import check_device

    progress = progress and distributed.is_main()
    distributed.from_main(lambda: cli.new_folder(output, overwrite))
    trackers.check(config.loggers)
    device = distributed.own_device(config.device)
    check_device(config, device)
    with tempfile.TemporaryDirectory(prefix="sure_fast-") as own:
        place = distributed.from_main(lambda: Path(own) / "run")
        run = _begin(config, place, progress)
        dataset = _dataset(run, place, progress)
        trainer = loop.Trainer(run.config, run.plan, dataset, run.split.val, run.cases.info, device, place)
        if benchmark is not None:
            found = trial.benchmark(trainer, benchmark)
            if distributed.is_main():
                print(json.dumps(found, indent=1), flush=True)
        elif profile:
            trace = trial.profile(trainer, output / "profile")
            _say(f"the trace is in {trace}; open it in a browser at ui.perfetto.dev or chrome://tracing")
        else:
            trial.dry_run(trainer)
            numbers = ", ".join(f"{len(names)} {part}" for part, names in run.names.items())
            _say(f"dry run on {device}: all is well with {numbers} cases, patch {run.plan.patch_size}; nothing is kept")
        distributed.barrier()  # rank 0 removes the folder


def _say(text: str, warning: bool = False) -> None:
    """One line, once for all ranks."""
    from .engine import console, distributed

    if distributed.is_main():
        console.say(f"{PROGRAM}: {text}", warning)


@dataclasses.dataclass
class _Run:
    """A configuration with its data."""

    config: Any
    folder: Path
    cases: Any
    split: Any
    plan: Any
    screening: Any

    @property
    def names(self) -> dict[str, list[str]]:
        return {part: [case.name for case in getattr(self.split, part)] for part in ("train", "val", "test")}

    @property
    def description(self) -> dict[str, Any]:
        """What split.json holds."""
        told = {"skipped": self.screening.faults, "notes": self.screening.notes}
        rows = {key: [fault._asdict() for fault in faults] for key, faults in told.items()}
        how = {name: getattr(self.config, name) for name in ("group", "split", "fold")}
        return {"data": self.config.data, **how, **self.names, **rows}


def _begin(config: Any, output: Path, progress: bool) -> _Run:
    """Checks configuration and data, then makes the output folder with split.json.

    The phantom set is made in a folder of its own and moved once all is checked: a refused run leaves the output
    folder, and the earlier run that --overwrite would replace, as they were.
    """
    from .data import phantom
    from .engine import cases as of_run
    from .engine import checkpoint, console, distributed
    from .engine.config import ConfigError
    from .engine.files import write_text

    with tempfile.TemporaryDirectory(prefix="sure_fast-") as staging:

        def write_phantom() -> Path:
            phantom.write(
                Path(staging) / "phantom",
                config.phantom_cases,
                config.seed,
                shape=(48, 48, 12) if config.quick else (64, 64, 16),
                progress=lambda items: console.bar(items, "phantom", "case", shown=progress),
            )
            return Path(staging) / "phantom"

        folder = Path(config.data) if config.data else distributed.from_main(write_phantom)
        run = _plan(config, folder, progress)
        if config.init_from:
            if Path(config.init_from).resolve().is_relative_to(output.resolve()):
                raise ConfigError(
                    f"init_from: expected a run outside the output folder {output}, got {config.init_from}"
                )
            checkpoint.load_weights(Path(config.init_from), run.plan)

        def begin() -> Path:
            clear(output)
            output.mkdir(parents=True, exist_ok=True)
            write_text(output / "split.json", json.dumps(run.description, indent=1))
            if config.data is not None:
                return folder
            shutil.rmtree(output / "phantom", ignore_errors=True)
            return Path(shutil.move(folder, output / "phantom"))

        distributed.barrier()  # every rank has read what is moved
        run.folder = distributed.from_main(begin)
        if config.data is None:
            found = of_run.find_cases(config, run.folder, "phantom set")
            run.cases, run.split = of_run.brought_to(run.plan.orientation, *found)
        return run


def _plan(config: Any, folder: Path, progress: bool) -> _Run:
    """Reads every case, and fixes what follows from them."""
    from .data.screening import told
    from .engine import cases as of_run
    from .engine import loop
    from .engine.config import ConfigError

    source = config.data or "phantom set"
    screening = of_run.read_all(config, folder, progress)
    if screening.faults and not config.skip_bad:
        _refuse(screening, source)
    for fault in screening.faults:
        _say(f"skipped: {fault.reason}", warning=True)
    skipped = [fault.case for fault in screening.faults]
    cases, split = of_run.find_cases(config, folder, source, skipped, notes=screening.notes)
    for name, without in (("weights", "last"), ("patience", 0)):
        if not split.val and getattr(config, name) != without:
            raise ConfigError(f"{name}: expected {without} without validation cases, got {getattr(config, name)}")
    orientation = of_run.orientation_of(screening, split)
    cases, split = of_run.brought_to(orientation, cases, split)
    screening.notes.extend(of_run.look_over(screening, cases, source))
    for line in told(screening.notes):
        _say(f"note: {line}", warning=True)
    shapes = [screening.oriented(case.name, orientation)[0] for case in split.train]
    in_channels = next(iter(screening.shapes.values()))[0]
    plan = loop.plan_for(config, shapes, in_channels, cases.info)
    of_run.check_noise_patch(config, plan.patch_size)
    config = dataclasses.replace(config, patch_size=plan.patch_size)
    return _Run(config, folder, cases, split, plan, screening)


def _refuse(screening: Any, source: str) -> NoReturn:
    """All faults, one a line."""
    from .data import DataError

    faults = screening.faults
    if len(faults) == 1:
        raise DataError(faults[0].reason)
    for fault in faults:
        _say(f"bad: {fault.reason}", warning=True)
    number = len(faults) + len(screening.shapes)
    raise DataError(
        f"data {source}: {len(faults)} of {number} cases cannot be used (one a line above); "
        "mend them, or leave them out with --skip-bad"
    )


def _dataset(run: _Run, output: Path, progress: bool) -> Any:
    """Crops of the training cases; what goes into a cache on the disk is prepared by all ranks together."""
    from .data import SegmentationDataset
    from .data.prepared import DiskCache
    from .engine import console, distributed

    config, num_classes = run.config, run.plan.num_classes
    disk, keys = None, {}
    if config.cache == "disk":
        disk = DiskCache(config.cache_folder or output / "cache", num_classes)
        own = console.bar(distributed.share(run.split.train), "cache", "case", shown=progress)
        parts = distributed.gather({case.name: disk.store(case) for case in own})
        keys = {name: key for part in parts for name, key in part.items()}
    return SegmentationDataset(
        run.split.train,
        tuple(run.plan.patch_size),
        num_classes=num_classes,
        seed=config.seed,
        augment=config.augment,
        cache=config.cache,
        cache_folder=disk,
        keys=keys,
    )


def clear(output: Path) -> None:
    """Removes the products of an earlier run, and nothing else."""
    for path in (found for name in PRODUCTS for found in output.glob(name)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    from .engine.cli import run

    run(PROGRAM, main)
