"""The cases of a run: listed, read and looked over, split, and brought to one orientation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from ..data import CaseList, Fault, Split, discover
from ..data.assigning import assign
from ..data.orientation import most_common
from ..data.screening import Screening, notes_of_all, screen, together
from . import console, distributed
from .config import ConfigError, TrainConfig


def read_all(config: TrainConfig, folder: Path, progress: bool = True) -> Screening:
    """Reads every case, each rank its share: what `screen` says of them, together with what could not be listed."""

    def listed() -> tuple[CaseList, list[Fault]]:
        faults: list[Fault] = []
        return discover(folder, config.layout, label_map=config.label_map or None, faults=faults), faults

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

    def found() -> tuple[CaseList, Split, list[Fault]]:
        faults: list[Fault] | None = [] if config.skip_bad else None
        every = discover(folder, config.layout, label_map=config.label_map or None, faults=faults)
        cases = CaseList([case for case in every if case.name not in set(without)], every.info, every.notes)
        seed = config.seed if config.split_seed is None else config.split_seed
        try:
            split, told = assign(
                cases,
                fractions=config.fractions,
                seed=seed,
                group=config.group,
                split=config.split,
                fold=config.fold,
            )
        except ValueError as error:
            prefix = "" if str(error).startswith(("group", "split", "fold")) else f"data {source}: "
            raise ConfigError(f"{prefix}{error}") from None
        return cases, split, told

    cases, split, told = distributed.from_main(found)
    for name, needs in (("weights", config.weights == "best"), ("patience", config.patience > 0)):
        if needs and not split.val:
            raise ConfigError(f"{name}: expected {'last' if name == 'weights' else '0'} without validation cases, got "
                              f"{getattr(config, name)}")  # fmt: skip
    if notes is not None:
        notes += told
    return cases, split


def brought_to(orientation: str | None, cases: CaseList, split: Split) -> tuple[CaseList, Split]:
    """The same cases, in this orientation when they are read; None: as stored."""
    cases = cases.with_info(orientation=orientation)
    return cases, Split(*([replace(case, info=cases.info) for case in part] for part in split))


def orientation_of(screening: Screening, split: Split) -> str | None:
    """That of the most training cases, of equals the one of the most cases; None where they are pictures."""
    every = [found for found in screening.orientations.values() if found]
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
    if not config.gamma:
        return
    given, crop = list(config.noise_patch_size), list(patch_size)
    if len(given) not in (1, len(crop)):
        raise ConfigError(f"noise_patch_size: expected 1 or {len(crop)} numbers for crops of {crop}, got {given}")
    sizes = given * len(crop) if len(given) == 1 else given
    fitting = [min(size, length - 1 + length % 2) for size, length in zip(sizes, crop, strict=True)]
    if fitting != sizes:
        raise ConfigError(
            f"noise_patch_size: expected noise that fits the crop of {','.join(map(str, crop))} voxels, got "
            f"{','.join(map(str, given))}; give --noise-patch-size {','.join(map(str, fitting))}"
        )
