"""Trains a segmentation network with supervised uncertainty: python -m sure_fast.train [--data DIR]

Without --data an embedded phantom set (3D, cardiac-like) is written and used. The output folder holds config.yaml (runs
again with --config), split.json, metrics.jsonl, TensorBoard events, checkpoints, pictures and results.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

PROGRAM = "sure_fast.train"
PRODUCTS = (
    "config.yaml",
    "split.json",
    "metrics.jsonl",
    "metrics-*.jsonl",
    "results.json",
    "curves.json",
    "slices",
    "checkpoints",
    "pictures",
    "tensorboard",
    "robustness",
)


class Parser(argparse.ArgumentParser):
    """One line for a wrong flag."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    from .engine.config import add_flags

    parser = Parser(prog=PROGRAM, description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", help="YAML file with any of the keys below; flags override it")
    parser.add_argument("--output", type=Path, help="output folder (default: runs/DATE-TIME-PRESET)")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run in the folder")
    add_flags(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    from .engine import config as configuration
    from .engine import distributed

    flags = vars(parser().parse_args(arguments))
    file, output, overwrite = flags.pop("config"), flags.pop("output"), flags.pop("overwrite")
    config = configuration.make(flags, configuration.load_file(file) if file else None)
    with distributed.joined(config.device):
        stamp = distributed.from_main(lambda: f"{datetime.now():%Y%m%d-%H%M%S}")
        train(config, output or Path("runs") / f"{stamp}-{config.preset}", overwrite)


def train(config: Any, output: Path, overwrite: bool = False, progress: bool = True) -> Any:
    """Trains and evaluates one run; returns the EvaluationResult of the test cases.

    Of several ranks rank 0 writes, and all return the same.
    """
    from tqdm import tqdm

    from .data import SegmentationDataset, phantom
    from .engine import cli, distributed, loop, pictures
    from .engine.config import ConfigError, save
    from .engine.evaluation import evaluate_cases
    from .engine.optimization import check_device
    from .engine.prediction import Predictor
    from .engine.table import print_table

    main_rank = distributed.is_main()
    progress = progress and main_rank

    def say(text: str) -> None:
        if main_rank:
            print(f"{PROGRAM}: {text}", flush=True)

    distributed.from_main(lambda: cli.new_folder(output, overwrite))
    device = distributed.own_device(config.device)
    check_device(config, device)
    # The phantom set is made in a folder of its own and moved once all is checked: a refused run leaves the output
    # folder, and the earlier run that --overwrite would replace, as they were.
    with tempfile.TemporaryDirectory(prefix="sure_fast-") as staging:
        if config.data is None:
            source = "phantom set"

            def write_phantom() -> Path:
                phantom.write(
                    Path(staging) / "phantom",
                    config.phantom_cases,
                    config.seed,
                    shape=(48, 48, 12) if config.quick else (64, 64, 16),
                    progress=lambda items: tqdm(items, desc="phantom", unit="case", disable=not progress),
                )
                return Path(staging) / "phantom"

            folder = distributed.from_main(write_phantom)
        else:
            folder, source = Path(config.data), config.data
        cases, split = find_cases(config, folder, source)
        shapes = read_shapes(cases, progress)
        if len({len(shape) for shape in shapes.values()}) > 1:
            raise ConfigError(f"data {source}: expected images of one dimension, got both 2D and 3D ones")
        in_channels = next(iter(shapes.values()))[0]
        plan = loop.plan_for(config, [shapes[case.name][1:] for case in split.train], in_channels, cases.info)
        config = dataclasses.replace(config, patch_size=plan.patch_size)

        def begin() -> Path:
            clear(output)
            output.mkdir(parents=True, exist_ok=True)
            if config.data is not None:
                return folder
            shutil.rmtree(output / "phantom", ignore_errors=True)
            return Path(shutil.move(folder, output / "phantom"))

        folder = distributed.from_main(begin)
        if config.data is None:
            cases, split = find_cases(config, folder, source)
    dataset = SegmentationDataset(
        split.train,
        tuple(plan.patch_size),
        num_classes=plan.num_classes,
        seed=config.seed,
        augment=config.augment,
    )
    if main_rank:
        save(config, output / "config.yaml")
        names = {part: [case.name for case in getattr(split, part)] for part in ("train", "val", "test")}
        (output / "split.json").write_text(json.dumps({"data": config.data, **names}, indent=1), encoding="utf-8")
    ranks = distributed.world_size()
    say(f"preset {config.preset} on {folder}: {len(split.train)} training, {len(split.val)} validation, "
        f"{len(split.test)} test cases; patch {plan.patch_size}; "
        f"{device}{f', {ranks} ranks' if ranks > 1 else ''}")  # fmt: skip
    say(loop.describe_backends())

    models = []
    for member in range(config.members):
        if config.members > 1:
            say(f"network {member + 1} of {config.members}")
        trainer = loop.Trainer(config, plan, dataset, split.val, cases.info, device, output, member)
        trainer.train(progress)
        models.append(trainer.weights)
        say(trainer.describe_times())
    if main_rank:
        pictures.save_curves(output / "metrics.jsonl", output / "pictures")
    result = evaluate_cases(
        Predictor(models, plan.patch_size, inference=config.inference, evidence=config.evidence, seed=config.seed),
        split.test,
        info=cases.info,
        device=device,
        seed=config.seed,
        progress=progress,
        pictures=output / "pictures",
    )
    if main_rank:
        (output / "results.json").write_text(json.dumps(result.to_json(), indent=1), encoding="utf-8")
        print_table(result)
    say(f"the run is in {output}")
    return result


def read_shapes(cases: Any, progress: bool = True) -> dict[str, tuple[int, ...]]:
    """Reads every case, so that every fault shows, each rank its share; the image shapes [K, *S] by name."""
    from tqdm import tqdm

    from .data import load_case
    from .engine import distributed

    own = {}
    with tqdm(distributed.share(cases), desc="read", unit="case", disable=not progress) as bar:
        for case in bar:
            own[case.name] = tuple(load_case(case).image.shape)
    return {name: shape for part in distributed.gather(own) for name, shape in part.items()}


def find_cases(config: Any, folder: Path, source: str) -> tuple[Any, Any]:
    """The cases of a data folder and their split."""
    from .data import discover, split_cases
    from .engine.config import ConfigError

    cases = discover(folder, config.layout, label_map=config.label_map or None)
    seed = config.seed if config.split_seed is None else config.split_seed
    try:
        return cases, split_cases(cases, tuple(config.fractions), seed)
    except ValueError as error:
        raise ConfigError(f"data {source}: {error}") from None


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
