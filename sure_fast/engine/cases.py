"""The cases of a run: listed, read and looked over, split, brought to one orientation, and cut into crops."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from ..data import Case, CaseList, DataError, DatasetInfo, Fault, SegmentationDataset, Split, discover
from ..data.assigning import assign
from ..data.prepared import DiskCache
from ..data.screening import Screening, notes_of_all, screen, together, told
from ..models import NETWORKS
from . import console, distributed
from .checkpoint import ModelPlan
from .config import ConfigError, TrainConfig
from .planning import (
    check_augmentation,
    check_class_weights,
    check_network,
    check_noise_patch,
    check_size,
    plan_for,
    preparation_of,
    seen_by_network,
)

Report = Callable[[str, bool], object]
"""Takes a line, and whether it is a warning."""


@dataclass
class Run:
    """A configuration with its data."""

    config: TrainConfig
    folder: Path
    cases: CaseList
    split: Split
    plan: ModelPlan
    screening: Screening

    @property
    def names(self) -> dict[str, list[str]]:
        return {part: [case.name for case in getattr(self.split, part)] for part in ("train", "val", "test")}

    @property
    def description(self) -> dict[str, Any]:
        """What split.json holds."""
        told = {"skipped": self.screening.faults, "notes": self.screening.notes}
        rows = {key: [fault._asdict() for fault in faults] for key, faults in told.items()}
        how = {name: getattr(self.config.data, name) for name in ("group", "split", "fold")}
        return {"data": self.config.data.folder, **how, **self.names, **rows}


def plan_run(config: TrainConfig, folder: Path, progress: bool, report: Report) -> Run:
    """Reads every case, and fixes what follows from them; `report` gets what is to be known of them, as warnings."""

    source = config.data.folder or "phantom set"
    screening = read_all(config, folder, progress)
    if screening.faults and not config.data.skip_bad:
        _refuse(screening, source, report)
    for fault in screening.faults:
        report(f"skipped: {fault.reason}", True)
    skipped = [fault.case for fault in screening.faults]
    cases, split = find_cases(config, folder, source, skipped, notes=screening.notes)
    if len({len(shape) for shape in screening.shapes.values()}) > 1:
        raise ConfigError(f"data {source}: expected images of one dimension, got both 2D and 3D ones")
    cases, split = brought_to(preparation_of(config, screening, split, cases.info), cases, split)
    screening.notes.extend(notes_of_all(screening, [case.name for case in cases], cases.info))
    for line in told(screening.notes):
        report(f"note: {line}", True)
    shapes, spacing = seen_by_network(screening, split, cases.info)
    in_channels = next(iter(screening.shapes.values()))[0]
    check_size(shapes, spacing)
    plan = plan_for(config, shapes, in_channels, cases.info, spacing)
    check_class_weights(config, plan.class_names)
    check_noise_patch(config, plan.patch_size)
    check_augmentation(config, plan.patch_size)
    check_network(plan)
    planned: dict[str, Any] = {"data.patch_size": plan.patch_size}
    if plan.network in NETWORKS and NETWORKS[plan.network].levels:
        planned["network.channels"] = plan.channels
    config = config.with_values(planned)
    return Run(config, folder, cases, split, plan, screening)


def _refuse(screening: Screening, source: str, report: Report) -> NoReturn:
    """All faults, one a line."""
    faults = screening.faults
    if len(faults) == 1:
        raise DataError(faults[0].reason)
    for fault in faults:
        report(f"bad: {fault.reason}", True)
    number = len(faults) + len(screening.shapes)
    raise DataError(
        f"data {source}: {len(faults)} of {number} cases cannot be used (one a line above); "
        "mend them, or leave them out with --set data.skip_bad=true"
    )


def read_all(config: TrainConfig, folder: Path, progress: bool = True) -> Screening:
    """Reads every case, each rank its share: what `screen` says of them, together with what could not be listed."""

    def listed() -> tuple[CaseList, list[Fault]]:
        faults: list[Fault] = []
        cases = discover(folder, config.data.layout, label_map=config.data.label_map or None, faults=faults)
        return cases.with_info(foreground_crop=config.data.foreground_crop), faults

    cases, faults = distributed.from_main(listed)
    with console.bar(distributed.share(cases), "read", "case", shown=progress) as bar:
        parts = distributed.gather(screen(bar))
    return together(parts, faults, cases.notes)


def find_cases(
    config: TrainConfig,
    folder: Path,
    source: str,
    without: Collection[str] = (),
    notes: list[Fault] | None = None,
) -> tuple[CaseList, Split]:
    """The cases of a data folder, but for those named, and their split.

    Args:
        notes: where a list is given, what is to be known of the split is added to it.

    Raises:
        ConfigError: the split cannot be made, or has no validation cases although the run needs them.
    """

    def listed_and_split() -> tuple[CaseList, Split, list[Fault]]:
        faults: list[Fault] | None = [] if config.data.skip_bad else None
        every = discover(folder, config.data.layout, label_map=config.data.label_map or None, faults=faults)
        cases = CaseList([case for case in every if case.name not in set(without)], every.info, every.notes)
        seed = config.run.seed if config.data.split_seed is None else config.data.split_seed
        try:
            split, told = assign(
                cases,
                fractions=config.data.fractions,
                seed=seed,
                group=config.data.group,
                split=config.data.split,
                fold=config.data.fold,
            )
        except ValueError as error:
            prefix = "" if str(error).startswith(("group", "split", "fold")) else f"data {source}: "
            raise ConfigError(f"{prefix}{error}") from None
        return cases, split, told

    cases, split, told = distributed.from_main(listed_and_split)
    for name, needs in (("weights", config.run.weights == "best"), ("patience", config.run.patience > 0)):
        if needs and not split.val:
            wanted = "last" if name == "weights" else "0"
            raise ConfigError(
                f"run.{name}: expected {wanted} without validation cases, got {getattr(config.run, name)}"
            )
    if notes is not None:
        notes += told
    return cases, split


def brought_to(preparation: Mapping[str, Any], cases: CaseList, split: Split) -> tuple[CaseList, Split]:
    """The same cases, prepared for a network so, as `ModelPlan.preparation` says."""
    cases = cases.with_info(**preparation)
    return cases, Split(*([replace(case, info=cases.info) for case in part] for part in split))


def training_set(run: Run, output: Path, progress: bool) -> SegmentationDataset:
    """Crops of the training cases; what goes into a cache on the disk is prepared by all ranks together."""

    config, num_classes = run.config, run.plan.num_classes
    disk, keys = None, {}
    if config.data.cache == "disk":
        disk = DiskCache(config.data.cache_folder or output / "cache", num_classes)
        own = console.bar(distributed.share(run.split.train), "cache", "case", shown=progress)
        parts = distributed.gather({case.name: disk.store(case) for case in own})
        keys = {name: key for part in parts for name, key in part.items()}
    return SegmentationDataset(
        run.split.train,
        tuple(run.plan.patch_size),
        num_classes=num_classes,
        seed=config.run.seed,
        augment=config.data.augment,
        foreground_share=config.data.foreground_share,
        empty_slices=config.data.empty_slices,
        cache=config.data.cache,
        cache_folder=disk,
        keys=keys,
    )


def _split(file: Path) -> dict[str, list[str]]:
    """Names by part; ConfigError where the file is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        parts: dict[str, list[str]] = {name: content[name] for name in ("train", "val", "test")}
        if all(isinstance(names, list) for names in parts.values()):
            return parts
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise ConfigError(f"{file}: expected the lists train, val and test of a run, got something else")


def check_classes(folder: Path, present: dict[int, str], trained: dict[int, str]) -> list[str]:
    """A note where classes of the data are called otherwise than in training.

    Raises:
        ConfigError: another number of classes, or a class under the number of another, for which it would be taken.
    """
    if len(present) != len(trained):
        raise ConfigError(f"data {folder}: expected {len(trained)} classes as in training, got {len(present)}")
    numbers = {name.lower(): number for number, name in trained.items()}
    for number, name in present.items():
        wanted = numbers.get(name.lower(), number)
        if wanted != number:
            raise ConfigError(f"data {folder}: expected {name!r} to be class {wanted} as in training, got {number}")
    others = [f"{name} ({trained[number]} in training)" for number, name in present.items()
              if number and name.lower() != trained[number].lower()]  # fmt: skip
    return [f"classes are called otherwise than in training: {', '.join(others)}"] if others else []


def check_shape(case: Case, shape: Sequence[int], plan: ModelPlan) -> None:
    """ConfigError where an image [K, *S] is not of the kind that the network was trained on."""
    if (shape[0], len(shape) - 1) != (plan.in_channels, plan.image_dims):
        raise ConfigError(
            f"{case.image}: expected {plan.in_channels} channels and {plan.image_dims} axes as in training, "
            f"got {shape[0]} and {len(shape) - 1}"
        )


def look_over_others(chosen: Sequence[Case], plan: ModelPlan) -> list[str]:
    """Reads data that are not those of the run once, so that no fault shows, or hides, in the middle; returns notes.

    Raises:
        DataError: a case that cannot be used.
        ConfigError: one of another kind than the network was trained on.
    """
    screening = screen([replace(case, info=case.info and replace(case.info, orientation=None)) for case in chosen])
    if screening.faults:
        raise DataError(screening.faults[0].reason)
    for case in chosen:
        check_shape(case, screening.shapes[case.name], plan)
    info = DatasetInfo("folders", plan.class_names, plan.in_channels, **plan.preparation)
    mixed = notes_of_all(screening, [case.name for case in chosen], info)
    return told([*screening.notes, *mixed], kept_in=None)


def evaluated_part(cases: CaseList, folder: Path, run_folder: Path, part: str | None) -> tuple[str, list[Case]]:
    """The cases to evaluate, and which part of the run's split they are.

    Args:
        part: "train", "val", "test" or "all"; None: the test cases, or where there are none those of the validation.
    """
    if part == "all":
        return part, list(cases)
    split_file = run_folder / "split.json"
    if not split_file.is_file():
        raise ConfigError(
            f"cases: {part or 'test'!r} needs the run's {split_file}, which is not there; use --cases all"
        )
    split = _split(split_file)
    part = part or ("test" if split["test"] else "val")
    wanted = set(split[part])
    chosen = [case for case in cases if case.name in wanted]
    if not wanted:
        raise ConfigError(f"cases: the run has no {part} cases; use --cases all, or --data with others")
    if len(chosen) != len(wanted):
        raise ConfigError(f"data {folder}: expected the {len(wanted)} {part} cases of the run, found {len(chosen)}")
    return part, chosen
