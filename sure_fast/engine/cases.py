"""The cases of a run: listed, read and looked over, split, brought to one orientation, and cut into crops."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from ..data import Case, CaseList, DataError, DatasetInfo, Fault, SegmentationDataset, Split, discover
from ..data.assigning import assign
from ..data.orientation import most_common
from ..data.prepared import DiskCache
from ..data.screening import Screening, notes_of_all, screen, together, told
from ..models import divisor, plan_strides
from . import console, distributed
from .checkpoint import ModelPlan
from .config import ConfigError, TrainConfig

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
    orientation = orientation_of(screening, split)
    cases, split = brought_to(orientation, cases, split)
    screening.notes.extend(look_over(screening, cases, source))
    for line in told(screening.notes):
        report(f"note: {line}", True)
    shapes = [screening.oriented(case.name, orientation)[0] for case in split.train]
    in_channels = next(iter(screening.shapes.values()))[0]
    plan = plan_for(config, shapes, in_channels, cases.info)
    check_noise_patch(config, plan.patch_size)
    config = config.with_values({"data.patch_size": plan.patch_size})
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
        return discover(folder, config.data.layout, label_map=config.data.label_map or None, faults=faults), faults

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


def brought_to(orientation: str | None, cases: CaseList, split: Split) -> tuple[CaseList, Split]:
    """The same cases, in this orientation when they are read; None: as stored."""
    cases = cases.with_info(orientation=orientation)
    return cases, Split(*([replace(case, info=cases.info) for case in part] for part in split))


def orientation_of(screening: Screening, split: Split) -> str | None:
    """That of the most training cases, of equals the one of the most cases; None where they are pictures."""
    every = [orientation for orientation in screening.orientations.values() if orientation]
    return most_common([screening.orientations[case.name] for case in split.train], every)


def look_over(screening: Screening, cases: CaseList, source: str) -> list[Fault]:
    """What is to be known of the cases together.

    Raises:
        ConfigError: images of two and of three dimensions.
    """
    if len({len(shape) for shape in screening.shapes.values()}) > 1:
        raise ConfigError(f"data {source}: expected images of one dimension, got both 2D and 3D ones")
    return notes_of_all(screening, [case.name for case in cases], cases.info.orientation)


def check_noise_patch(config: TrainConfig, patch_size: Collection[int]) -> None:
    """ConfigError where the noise of L_nu does not fit the crops: no place could get it, and its terms would be 0."""
    method = config.method
    if "patch_size" not in method.options or not method.record.reads("patch_size", method.options):
        return
    size, crop = method.options["patch_size"], list(patch_size)
    given = [size] if isinstance(size, int) else list(size)
    if len(given) not in (1, len(crop)):
        raise ConfigError(f"method.patch_size: expected 1 or {len(crop)} numbers for crops of {crop}, got {given}")
    sizes = given * len(crop) if len(given) == 1 else given
    fitting = [min(size, length - 1 + length % 2) for size, length in zip(sizes, crop, strict=True)]
    if fitting != sizes:
        raise ConfigError(
            f"method.patch_size: expected noise that fits the crop of {','.join(map(str, crop))} voxels, got "
            f"{','.join(map(str, given))}; give --set method.patch_size={','.join(map(str, fitting))}"
        )


def plan_for(config: TrainConfig, shapes: Sequence[Sequence[int]], in_channels: int, info: DatasetInfo) -> ModelPlan:
    """Patch size and strides for images of these shapes."""

    dims = len(shapes[0])
    levels = len(config.network.channels)
    if config.data.patch_size:
        if len(config.data.patch_size) != dims or min(config.data.patch_size) < 1:
            raise ConfigError(
                f"data.patch_size: expected {dims} numbers >= 1 for these images, got {config.data.patch_size}"
            )
        patch = list(config.data.patch_size)
    else:
        limit = 96 if dims == 3 else 256
        unit = 2 ** (levels - 1)
        patch = []
        for axis in range(dims):
            lengths = sorted(shape[axis] for shape in shapes)
            typical = min(limit, lengths[len(lengths) // 10])
            patch.append(typical // unit * unit if typical >= 4 * unit else typical)
    strides = plan_strides(patch, levels)
    for axis in range(dims):
        if patch[axis] % divisor(strides, axis):
            raise ConfigError(
                f"data.patch_size: expected multiples of {divisor(strides, axis)} along axis {axis}, got {patch}"
            )
    return ModelPlan(
        dims=dims,
        in_channels=in_channels,
        num_classes=info.num_classes,
        channels=list(config.network.channels),
        strides=[list(step) for step in strides],
        patch_size=patch,
        class_names=dict(info.class_names),
        evidence=config.method.options.get("evidence", "softplus"),
        dropout=config.network.dropout,
        norm=config.network.norm,
        orientation=info.orientation,
    )


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
    if (shape[0], len(shape) - 1) != (plan.in_channels, plan.dims):
        raise ConfigError(
            f"{case.image}: expected {plan.in_channels} channels and {plan.dims} axes as in training, "
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
    mixed = notes_of_all(screening, [case.name for case in chosen], plan.orientation)
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
