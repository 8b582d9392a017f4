"""Recomputes a run's table, or evaluates it on other data: python -m sure_fast.evaluate --checkpoint RUN [--data DIR]

With --robustness it repeats the metrics under noise, blur, bias field, ghosting and contrast change at five severities
each and leaves robustness.csv, robustness.json and curves in robustness.png. Started again, it does what is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
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
    output = options.output or (run_folder / "robustness" if options.robustness else None)
    if output is not None and not (options.robustness and (output / robustness.ROWS).is_file()):
        cli.new_folder(output, hint="")
    faults: list[Fault] | None = [] if config.get("skip_bad") else None
    cases = discover(folder, layout, label_map=label_map, like=plan.class_names, faults=faults)
    cases = cases.with_info(orientation=plan.orientation)
    notes = [note.reason for note in cases.notes] + [f"skipped: {fault.reason}" for fault in faults or ()]
    notes += _check_classes(folder, cases.info.class_names, plan.class_names)
    for note in notes:
        print(f"{PROGRAM}: note: {note}", file=sys.stderr, flush=True)
    part, chosen = _chosen(cases, folder, run_folder, options)
    if options.data:
        _look_over(chosen, plan)
    else:
        _check_shape(chosen[0], load_case(chosen[0]).image.shape, plan)
    print(f"{PROGRAM}: {len(chosen)} cases ({part}); weights: {path}", flush=True)
    if options.robustness:
        assert output is not None
        with lock.held(output):
            elsewhere = None if options.data is None else str(folder.resolve())
            description = robustness.RowFile.owner(checkpoint.fingerprint(path), config["seed"], elsewhere)
            file = robustness.RowFile(output / robustness.ROWS, description)
            rows = robustness.sweep(predictor, chosen, file, info=cases.info, device=device, seed=config["seed"])
            robustness.write(output, rows, description, config["preset"])
        print(robustness.table(rows))
        print(f"{PROGRAM}: the curves are in {output / 'robustness.png'}", flush=True)
        return
    with nullcontext() if output is None else lock.held(output):
        if output is not None:
            cli.new_folder(output, hint="")  # another process may have filled it while the data were read
        result = evaluate_cases(
            predictor,
            chosen,
            info=cases.info,
            device=device,
            seed=config["seed"],
            pictures=output and output / "pictures",
        )
        if output is not None:
            result.write(output)
    print_table(result)


def _split(file: Path) -> dict[str, list[str]]:
    """Names by part; ConfigError where the file is damaged."""
    from .engine.config import ConfigError

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        parts: dict[str, list[str]] = {name: content[name] for name in ("train", "val", "test")}
        if all(isinstance(names, list) for names in parts.values()):
            return parts
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise ConfigError(f"{file}: expected the lists train, val and test of a run, got something else")


def _check_classes(folder: Path, found: dict[int, str], trained: dict[int, str]) -> list[str]:
    """A note where classes of the data are called otherwise than in training.

    Raises:
        ConfigError: another number of classes, or a class under the number of another, for which it would be taken.
    """
    from .engine.config import ConfigError

    if len(found) != len(trained):
        raise ConfigError(f"data {folder}: expected {len(trained)} classes as in training, got {len(found)}")
    numbers = {name.lower(): number for number, name in trained.items()}
    for number, name in found.items():
        wanted = numbers.get(name.lower(), number)
        if wanted != number:
            raise ConfigError(f"data {folder}: expected {name!r} to be class {wanted} as in training, got {number}")
    others = [f"{name} ({trained[number]} in training)" for number, name in found.items()
              if number and name.lower() != trained[number].lower()]  # fmt: skip
    return [f"classes are called otherwise than in training: {', '.join(others)}"] if others else []


def _check_shape(case: Any, shape: Sequence[int], plan: Any) -> None:
    """ConfigError where an image [K, *S] is not of the kind that the network was trained on."""
    from .engine.config import ConfigError

    if (shape[0], len(shape) - 1) != (plan.in_channels, plan.dims):
        raise ConfigError(
            f"{case.image}: expected {plan.in_channels} channels and {plan.dims} axes as in training, "
            f"got {shape[0]} and {len(shape) - 1}"
        )


def _look_over(chosen: list[Any], plan: Any) -> None:
    """Reads data that are not those of the run once, so that no fault shows, or hides, in the middle.

    Raises:
        DataError: a case that cannot be used.
        ConfigError: one of another kind than the network was trained on.
    """
    from .data import DataError
    from .data.screening import notes_of_all, screen, told

    found = screen([replace(case, info=replace(case.info, orientation=None)) for case in chosen])
    if found.faults:
        raise DataError(found.faults[0].reason)
    for case in chosen:
        _check_shape(case, found.shapes[case.name], plan)
    mixed = notes_of_all(found, [case.name for case in chosen], plan.orientation)
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
    split = _split(split_file)
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
