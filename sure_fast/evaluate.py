"""Recomputes a run's table, or evaluates it on other data: python -m sure_fast.evaluate --checkpoint RUN [--data DIR]

With --robustness it repeats the metrics under noise, blur, bias field, ghosting and contrast change at five severities
each and leaves robustness.csv, robustness.json and curves in robustness.png. Started again, it does what is missing.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from .engine.cli import Parser

PROGRAM = "sure_fast.evaluate"


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(prog=PROGRAM, description=str(__doc__).splitlines()[0])
    parser.add_argument("--checkpoint", required=True, type=Path, help="a run's folder or a checkpoint")
    parser.add_argument("--weights", choices=("last", "best"), help="of a run (default: those it was evaluated with)")
    parser.add_argument("--data", type=Path, help="data folder (default: that of the run)")
    parser.add_argument("--layout", help="data layout (default: that of the run; with --data, found by itself)")
    parser.add_argument(
        "--cases",
        choices=("train", "val", "test", "all"),
        help="part of the run's split (default: test, without test cases val; all where --data is given)",
    )
    parser.add_argument(
        "--output", type=Path, help="new folder for results.json, results.csv and pictures (default: none written)"
    )
    parser.add_argument(
        "--robustness", action="store_true", help="sweep over corruptions (output: by default RUN/robustness)"
    )
    parser.add_argument("--device", default="auto", help="torch device")
    options = parser.parse_args(arguments)

    from .data import Fault, discover, load_case
    from .engine import checkpoint, cli, distributed, lock, robustness
    from .engine.config import ConfigError
    from .engine.evaluation import evaluate_cases
    from .engine.table import print_table

    distributed.refuse_ranks(PROGRAM)
    device = distributed.choose_device(options.device)
    run_folder = options.checkpoint if options.checkpoint.is_dir() else options.checkpoint.parent.parent
    path = checkpoint.find(options.checkpoint, options.weights)
    predictor, content = checkpoint.load_predictor(path, device)
    plan, config = content["plan"], content["config"]
    folder = options.data or Path(config["data"] or run_folder / "phantom")
    label_map = {int(k): v for k, v in config["label_map"].items()} or None
    layout = options.layout or ("auto" if options.data else config["layout"])
    faults: list[Fault] | None = [] if config.get("skip_bad") else None
    cases = discover(folder, layout, label_map=label_map, like=plan.class_names, faults=faults)
    cases = cases.with_info(orientation=plan.orientation)
    for note in cases.notes:
        print(f"{PROGRAM}: note: {note.reason}", file=sys.stderr, flush=True)
    if cases.info.num_classes != plan.num_classes:
        raise ConfigError(
            f"data {folder}: expected {plan.num_classes} classes as in training, got {cases.info.num_classes}"
        )
    part, chosen = _chosen(cases, folder, run_folder, options)
    if options.data:
        _look_over(chosen, plan.orientation)
    found = load_case(chosen[0]).image.shape
    if (found[0], len(found) - 1) != (plan.in_channels, plan.dims):
        raise ConfigError(
            f"{chosen[0].image}: expected {plan.in_channels} channels and {plan.dims} axes as in training, "
            f"got {found[0]} and {len(found) - 1}"
        )
    print(f"{PROGRAM}: {len(chosen)} cases ({part}); weights: {path}", flush=True)
    if options.robustness:
        output = options.output or run_folder / "robustness"
        with lock.held(output):
            if not (output / robustness.ROWS).is_file():
                cli.new_folder(output)
            elsewhere = None if options.data is None else str(folder.resolve())
            description = robustness.RowFile.owner(checkpoint.fingerprint(path), config["seed"], elsewhere)
            file = robustness.RowFile(output / robustness.ROWS, description)
            rows = robustness.sweep(predictor, chosen, file, info=cases.info, device=device, seed=config["seed"])
            robustness.write(output, rows, description, config["preset"])
        print(robustness.table(rows))
        print(f"{PROGRAM}: the curves are in {output / 'robustness.png'}", flush=True)
        return
    with nullcontext() if options.output is None else lock.held(options.output):
        if options.output is not None:
            cli.new_folder(options.output)
        result = evaluate_cases(
            predictor,
            chosen,
            info=cases.info,
            device=device,
            seed=config["seed"],
            pictures=options.output and options.output / "pictures",
        )
        if options.output is not None:
            result.write(options.output)
    print_table(result)


def _look_over(chosen: list[Any], orientation: str | None) -> None:
    """Reads data that are not those of the run once, so that no fault shows, or hides, in the middle.

    Raises:
        DataError: a case that cannot be used.
    """
    from .data import DataError
    from .data.screening import notes_of_all, screen, told

    found = screen([replace(case, info=replace(case.info, orientation=None)) for case in chosen])
    if found.faults:
        raise DataError(found.faults[0].reason)
    names = [case.name for case in chosen]
    dims = {len(shape) for shape in found.shapes.values()}
    mixed = notes_of_all(found, names, orientation) if len(dims) == 1 else []
    for line in told([*found.notes, *mixed], kept_in=None):
        print(f"{PROGRAM}: note: {line}", file=sys.stderr, flush=True)


def _chosen(cases: Any, folder: Path, run_folder: Path, options: Any) -> tuple[str, list[Any]]:
    """The cases to evaluate, and which part of the run's split they are."""
    from .engine.config import ConfigError

    part = options.cases or ("all" if options.data else "test")
    if part == "all":
        return part, list(cases)
    split_file = run_folder / "split.json"
    if not split_file.is_file():
        raise ConfigError(f"cases: {part!r} needs the run's {split_file}, which is not there; use --cases all")
    split = json.loads(split_file.read_text(encoding="utf-8"))
    if options.cases is None and not split["test"]:
        part = "val"
    wanted = set(split[part])
    chosen = [case for case in cases if case.name in wanted]
    if not wanted:
        raise ConfigError(f"cases: the run has no {part} cases; use --cases all, or --data with others")
    if len(chosen) != len(wanted):
        raise ConfigError(f"data {folder}: expected the {len(wanted)} {part} cases of the run, found {len(chosen)}")
    return part, chosen


if __name__ == "__main__":
    from .engine import cli

    cli.run(PROGRAM, main)
