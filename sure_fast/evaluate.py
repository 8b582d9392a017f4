"""Recomputes a run's table, or evaluates it on other data: python -m sure_fast.evaluate --checkpoint RUN [--data DIR]

With --robustness it repeats the metrics under noise, blur, bias field, ghosting and contrast change at five severities
each and leaves robustness.csv, robustness.json and curves in robustness.png. Started again, it does what is missing.

With --data DIR --predictions DIR it evaluates what any tool left: segmentations, and by the maps beside them or in
folders of their own calibration, error detection, UCC and UR; files are matched by the name of the case.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

from .engine.cli import Parser

PROGRAM = "sure_fast.evaluate"


def _parser() -> Parser:
    parser = Parser(prog=PROGRAM, description=str(__doc__).splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="a run's folder or a checkpoint")
    parser.add_argument("--predictions", type=Path, help="instead of a checkpoint: folder of any tool's segmentations")
    parser.add_argument("--uncertainty", type=Path, help="folder of its uncertainty maps (default: found beside)")
    parser.add_argument("--uncertainty-max", type=float, help="largest value of its uncertainty (default: 1)")
    parser.add_argument("--probabilities", type=Path, help="folder of its probabilities (default: found beside)")
    parser.add_argument("--noisy", type=Path, nargs="+", help="folders of its maps of images under rising noise")
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
    parser.add_argument("--device", help="torch device (default: auto; maps are evaluated on the CPU)")
    return parser


OF_MAPS = ("predictions", "uncertainty", "uncertainty_max", "probabilities", "noisy")
OF_CHECKPOINTS = ("checkpoint", "weights", "cases", "device")


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    given = [[name for name in names if getattr(options, name) is not None] for names in (OF_CHECKPOINTS, OF_MAPS)]
    if all(given) or (given[1] and options.robustness):
        instead = given[0][0] if given[0] else "robustness"
        raise ValueError(f"{instead}: expected none with {given[1][0]}, got one")
    if given[1]:
        return _maps(options)
    if options.checkpoint is None:
        raise ValueError("checkpoint: expected a run's folder or a checkpoint, or --predictions DIR, got neither")
    return _checkpoint(options)


def _maps(options: Namespace) -> None:
    """What any tool left."""
    from .engine import cli, console, lock
    from .engine.map_evaluation import evaluate_folders
    from .engine.maps import MapFolders
    from .engine.table import print_table

    if options.data is None:
        raise ValueError("data: expected the folder of the images and labels, got none")
    largest = 1.0 if options.uncertainty_max is None else options.uncertainty_max
    folders = MapFolders.of(
        options.predictions, options.uncertainty, options.probabilities, options.noisy or (), largest
    )
    output = options.output and cli.new_folder(options.output, hint="")
    with nullcontext() if output is None else lock.held(output):
        result = evaluate_folders(
            options.data,
            folders,
            layout=options.layout or "auto",
            pictures=output and output / "pictures",
            report=lambda line, note: console.say(f"{PROGRAM}: {line}", note),
        )
        if output is not None:
            result.write(output)
    print_table(result)


def _checkpoint(options: Namespace) -> None:
    """A run's network on its own or other data."""

    from .data import Fault, discover, load_case
    from .engine import checkpoint, cli, distributed, lock, robustness
    from .engine.cases import check_classes, check_shape, evaluated_part, look_over_others
    from .engine.evaluation import evaluate_cases
    from .engine.table import print_table

    distributed.refuse_ranks(PROGRAM)
    device = distributed.choose_device(options.device or "auto")
    path = checkpoint.find(options.checkpoint, options.weights)
    run_folder = checkpoint.run_folder(path)
    predictor, content = checkpoint.load_predictor(path, device)
    plan, config = content["plan"], content["config"]
    folder = options.data or Path(config.data.folder or run_folder / "phantom")
    label_map = config.data.label_map or None
    layout = options.layout or ("auto" if options.data else config.data.layout)
    output = options.output or (run_folder / "robustness" if options.robustness else None)
    if output is not None and not (options.robustness and (output / robustness.ROWS).is_file()):
        cli.new_folder(output, hint="")
    faults: list[Fault] | None = [] if config.data.skip_bad else None
    cases = discover(folder, layout, label_map=label_map, like=plan.class_names, faults=faults)
    cases = cases.with_info(**plan.preparation)
    notes = [note.reason for note in cases.notes] + [f"skipped: {fault.reason}" for fault in faults or ()]
    notes += check_classes(folder, cases.info.class_names, plan.class_names)
    part, chosen = evaluated_part(cases, folder, run_folder, options.cases or ("all" if options.data else None))
    if options.data:
        notes += look_over_others(chosen, plan)
    else:
        check_shape(chosen[0], load_case(chosen[0]).image.shape, plan)
    for note in notes:
        print(f"{PROGRAM}: note: {note}", file=sys.stderr, flush=True)
    print(f"{PROGRAM}: {len(chosen)} cases ({part}); weights: {path}", flush=True)
    evaluated = {"info": cases.info, "device": device, "seed": config.run.seed}
    with nullcontext() if output is None else lock.held(output):
        if options.robustness:
            assert output is not None
            elsewhere = None if options.data is None else str(folder.resolve())
            owner = robustness.RowFile.owner(checkpoint.fingerprint(path), config.run.seed, elsewhere)
            file = robustness.RowFile(output / robustness.ROWS, owner)
            rows = robustness.sweep(predictor, chosen, file, **evaluated)
            robustness.write(output, rows, owner, config.method.preset)
            print(robustness.table(rows))
            print(f"{PROGRAM}: the curves are in {output / 'robustness.png'}", flush=True)
            return
        if output is not None:
            cli.new_folder(output, hint="")  # another process may have filled it while the data were read
        result = evaluate_cases(predictor, chosen, pictures=output and output / "pictures", **evaluated)
        if output is not None:
            result.write(output)
    print_table(result)


if __name__ == "__main__":
    from .engine import cli

    cli.run(PROGRAM, main)
