"""One training run in its folder: checked, begun, trained, evaluated; or tried out."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from datetime import datetime
from pathlib import Path

import torch
from torch import nn

from ..data import phantom
from . import (
    backends,
    checkpoint,
    cli,
    console,
    distributed,
    fingerprint,
    lock,
    loop,
    pictures,
    review,
    trackers,
    trial,
)
from . import resume as resume_of
from .cases import Run, brought_to, find_cases, plan_run, training_set
from .config import ConfigError, TrainConfig, save
from .evaluation import EvaluationResult, evaluate_cases
from .files import write_text
from .fingerprint import number_of_parameters
from .optimization import check_device
from .prediction import Predictor
from .signals import Interrupted, StopRequest
from .state import Progress
from .table import print_table

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
    "validation.json",
    "view",
    "results.json",
    "results.csv",
    "results-slices.json",
    "results-slices.csv",
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


def say(text: str, warning: bool = False) -> None:
    """One line, once for all ranks."""
    if distributed.is_main():
        console.say(f"{PROGRAM}: {text}", warning)


def train(
    config: TrainConfig, output: Path | None, overwrite: bool = False, progress: bool = True, resume: bool = False
) -> EvaluationResult | None:
    """Trains and evaluates one run; returns the metrics of its cases, None where there are none to evaluate.

    Of several ranks rank 0 writes, and all return the same.

    Args:
        output: the run's folder, which no other process may write into meanwhile; None: a new one in runs/.
        resume: a run that was started in `output` goes on, with its configuration; one that is complete is left as it
            is, and the result is None. Without one there, a run is started.

    Raises:
        Interrupted: SIGTERM or Ctrl-C; the message says what was saved and how to go on.
        RunFailure: a loss is not finite, or a file cannot be written.
    """
    with lock.held(output or default_output(config), fresh=output is None) as folder:
        if resume and distributed.from_main(lambda: resume_of.is_complete(folder)):
            say(f"the run in {folder} is complete")
            return None
        with StopRequest() as stop:
            try:
                return _train(config, folder, overwrite, progress, resume, stop)
            except Interrupted as error:
                if resume_of.is_started(folder):
                    error.command = resume_of.command(folder)
                raise


def _train(
    config: TrainConfig, output: Path, overwrite: bool, progress: bool, resume: bool, stop: StopRequest
) -> EvaluationResult | None:
    begun = time.monotonic()
    progress = progress and distributed.is_main()
    run, device, started = _prepare(config, output, overwrite, progress, resume)
    with console.journal(output / LOG):
        return _go_through(run, device, output, progress, stop, started, begun)


def _prepare(
    config: TrainConfig, output: Path, overwrite: bool, progress: bool, resume: bool
) -> tuple[Run, torch.device, bool]:
    """Checks all there is to check, then leaves config.yaml, with which a run is started; whether it was before."""
    started = distributed.from_main(lambda: resume and resume_of.is_started(output))
    if started:
        config = resume_of.config_of(output, config.flat())
    else:
        remnant = distributed.from_main(lambda: resume and resume_of.is_remnant(output))
        distributed.from_main(lambda: check_output(config, output, overwrite or remnant))
    trackers.check(config.run.loggers)
    device = distributed.own_device(config.run.device)
    check_device(config, device)
    if started:
        run = plan_run(config, Path(config.data.folder) if config.data.folder else output / "phantom", progress, say)
        resume_of.check_split(output, run.names)
    else:
        run = _begin(config, output, progress)
    distributed.from_main(lambda: save(run.config, output / "config.yaml"))
    return run, device, started


def _go_through(
    run: Run, device: torch.device, output: Path, progress: bool, stop: StopRequest, started: bool, begun: float
) -> EvaluationResult | None:
    """Trains every network of the run, then evaluates."""
    config, cases, split, plan = run.config, run.cases, run.split, run.plan
    ranks = distributed.world_size()
    say(f"preset {config.method.preset} on {run.folder}: {len(split.train)} training, {len(split.val)} validation, "
         f"{len(split.test)} test cases; {plan.network}, patch {plan.patch_size}; "
         f"{device}{f', {ranks} ranks' if ranks > 1 else ''}; the run is in {output}")  # fmt: skip
    say(backends.describe(device))

    dataset = training_set(run, output, progress)
    seconds = {"data": time.monotonic() - begun, "training": 0.0, "validation": 0.0}
    trainers = []
    for member in range(config.method.members):
        if config.method.members > 1:
            say(f"network {member + 1} of {config.method.members}")
        trainer = loop.Trainer(config, plan, dataset, split.val, cases.info, device, output, member)
        resumed = started and trainer.resume(say)
        if started and not resumed:
            say(f"no {trainer.checkpoint()} yet: starts at the beginning")
        if config.network.init_from and not resumed:
            trainer.model.load_state_dict(checkpoint.load_weights(Path(config.network.init_from), plan))
        trainer.train(progress, stop, say)
        trainers.append(trainer)
        say(trainer.describe_times())
        seconds["training"] += trainer.progress.training_seconds
        seconds["validation"] += trainer.progress.validation_seconds
    if distributed.is_main():
        console.attempt("losses.png", lambda: pictures.save_curves(output / "metrics.jsonl", output / "pictures"), say)
    result = _evaluate(run, [trainer.weights for trainer in trainers], trainers[0].progress, output, progress, seconds)
    spent = ", ".join(f"{stage} {console.duration(value)}" for stage, value in seconds.items())
    say(f"time: {spent}; {console.duration(sum(seconds.values()))} in all")
    say(f"the run is in {output}")
    return result


def _evaluate(
    run: Run, models: list[nn.Module], at: Progress, output: Path, progress: bool, seconds: dict[str, float]
) -> EvaluationResult | None:
    """The table of the test cases, of the validation cases where there are none; None where there are neither."""
    started = time.monotonic()
    config, device = run.config, next(models[0].parameters()).device
    part = "test" if run.split.test else "val"
    chosen = getattr(run.split, part)
    if not chosen:
        say("no test and no validation cases: the weights of the last epoch are kept, and nothing is evaluated")
        empty = EvaluationResult(dict(run.cases.info.class_names))
        distributed.from_main(lambda: empty.write(output))
        return None
    weights = f"those of the last epoch (validation Dice best in epoch {at.best_epoch}: {at.best:.3f})"
    if config.run.weights == "best":
        weights = f"the best of the validation, of epoch {at.best_epoch}"
        for member, model in enumerate(models):
            path = output / "checkpoints" / checkpoint.member_name("best.pt", member)
            model.load_state_dict(checkpoint.load(path, device)["model"])
    elif not at.best_epoch:
        weights = "those of the last epoch"
    say(f"evaluates {len(chosen)} {'test' if part == 'test' else 'validation'} cases; weights: {weights}")
    predictor = Predictor(
        models,
        run.plan.patch_size,
        inference=config.method.record.inference,
        evidence=run.plan.evidence,
        seed=config.run.seed,
        info=run.cases.info,
    )
    if run.split.val:  # before the results, with which a run is complete
        of_run = distributed.from_main(lambda: checkpoint.fingerprint(checkpoint.find(output)))
        known = review.validate(predictor, run.split.val, of_run, info=run.cases.info, device=device, progress=progress)
        distributed.from_main(lambda: known.write(output))
    result = evaluate_cases(
        predictor,
        chosen,
        info=run.cases.info,
        device=device,
        seed=config.run.seed,
        progress=progress,
        pictures=output / "pictures",
        report=say,
    )
    distributed.from_main(lambda: result.write(output))
    if distributed.is_main():
        print_table(result)
    seconds["evaluation"] = time.monotonic() - started
    return result


def try_out(
    config: TrainConfig,
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
    progress = progress and distributed.is_main()
    distributed.from_main(lambda: check_output(config, output, overwrite))
    trackers.check(config.run.loggers)
    device = distributed.own_device(config.run.device)
    check_device(config, device)
    with tempfile.TemporaryDirectory(prefix="sure_fast-") as own:
        folder = distributed.from_main(lambda: Path(own) / "run")
        run = _begin(config, folder, progress)
        dataset = training_set(run, folder, progress)
        trainer = loop.Trainer(run.config, run.plan, dataset, run.split.val, run.cases.info, device, folder)
        if benchmark is not None:
            timings = trial.benchmark(trainer, benchmark)
            if distributed.is_main():
                print(json.dumps(timings, indent=1), flush=True)
        elif profile:
            trace = trial.profile(trainer, output / "profile")
            say(f"the trace is in {trace}; open it in a browser at ui.perfetto.dev or chrome://tracing")
        else:
            cost = trial.dry_run(trainer)
            told = fingerprint.describe(run, number_of_parameters(trainer.model), cost, len(trainer.batches))
            numbers = ", ".join(f"{len(names)} {part}" for part, names in run.names.items())
            say(f"dry run on {device}\n{told}")
            say(f"dry run: all is well with {numbers} cases, patch {run.plan.patch_size}; nothing is kept")
        distributed.barrier()  # rank 0 removes the folder


def _begin(config: TrainConfig, output: Path, progress: bool) -> Run:
    """Checks configuration and data, then makes the output folder with split.json.

    The phantom set is made in a folder of its own and moved once all is checked: a refused run leaves the output
    folder, and the earlier run that --overwrite would replace, as they were.
    """
    with tempfile.TemporaryDirectory(prefix="sure_fast-") as staging:

        def write_phantom() -> Path:
            phantom.write(
                Path(staging) / "phantom",
                config.data.phantom_cases,
                config.run.seed,
                shape=(48, 48, 12) if config.run.quick else (64, 64, 16),
                progress=lambda items: console.bar(items, "phantom", "case", shown=progress),
            )
            return Path(staging) / "phantom"

        folder = Path(config.data.folder) if config.data.folder else distributed.from_main(write_phantom)
        run = plan_run(config, folder, progress, say)
        if config.network.init_from:
            start = Path(config.network.init_from)
            if start.resolve().is_relative_to(output.resolve()):
                raise ConfigError(f"network.init_from: expected a run outside the output folder {output}, got {start}")
            checkpoint.load_weights(start, run.plan)

        def begin() -> Path:
            clear(output)
            output.mkdir(parents=True, exist_ok=True)
            write_text(output / "split.json", json.dumps(run.description, indent=1))
            if config.data.folder is not None:
                return folder
            shutil.rmtree(output / "phantom", ignore_errors=True)
            return Path(shutil.move(folder, output / "phantom"))

        distributed.barrier()  # every rank has read what is moved
        run.folder = distributed.from_main(begin)
        if config.data.folder is None:
            cases_and_split = find_cases(config, run.folder, "phantom set")
            run.cases, run.split = brought_to(run.plan.preparation, *cases_and_split)
        return run


def check_output(config: TrainConfig, output: Path, overwrite: bool) -> None:
    """Makes sure that nothing is removed for this run but an earlier one.

    Raises:
        ConfigError: the folder holds files without `overwrite`; what is called as a run's files are, but is of none,
            such as a folder of pictures; the data, which would be removed with the run.
    """
    cli.new_folder(output, overwrite)
    taken = products(output)
    if taken and not (resume_of.is_started(output) or resume_of.is_remnant(output)):
        raise ConfigError(
            f"output {output}: expected a run to overwrite, got a folder without config.yaml that holds {taken[0].name}"
        )
    data = Path(config.data.folder).resolve() if config.data.folder else None
    if data is not None and any(data.is_relative_to(path.resolve()) for path in taken):
        raise ConfigError(
            f"data {config.data.folder}: expected data that --overwrite does not remove with the run in {output}"
        )


def products(output: Path) -> list[Path]:
    """Files and folders in `output` that are called as those of a run."""
    return [path for name in PRODUCTS for path in sorted(output.glob(name))]


def clear(output: Path) -> None:
    """Removes the products of an earlier run, and nothing else; config.yaml last, by which it is known as a run."""
    for path in reversed(products(output)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def default_output(config: TrainConfig) -> Path:

    return Path("runs") / distributed.from_main(lambda: f"{datetime.now():%Y%m%d-%H%M%S}-{config.method.preset}")
