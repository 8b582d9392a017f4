"""Methods on the same data: what is missing is trained, all is evaluated, and put side by side."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import DataError, load_case
from ..engine import checkpoint, resume, robustness
from ..engine.config import INDEPENDENT, ConfigError, TrainConfig, load_stored
from ..engine.map_evaluation import evaluate_maps
from ..engine.maps import MapFolders, load
from ..engine.resume import PLANNED
from ..engine.table import in_unit, unit_of
from ..methods import DEFAULT, METHODS
from ..metrics import Statistics, summarize
from . import curves, detection, differences

USABLE = 0.9
"""Of the best mean Dice: a method below it is not marked as the best in anything."""
GROUPS: dict[str, dict[str, tuple[str, int]]] = {
    "Segmentation": {
        "dice": ("Dice", 1), "iou": ("IoU", 1), "hd95_mm": ("HD95 (mm)", -1), "assd_mm": ("ASSD (mm)", -1),
        "nsd": ("NSD 1 mm", 1),
    },
    "Calibration": {
        "ece": ("ECE", -1), "adaptive_ece": ("Adaptive ECE", -1), "brier": ("Brier", -1), "nll": ("NLL", -1),
    },
    "Error detection": {"ueo": ("UEO", 1), "aurc": ("AURC", -1), "auroc": ("AUROC", 1)},
    "Principles: correlation": {
        "ucc_g": ("UCC_g", -1), "ucc_d": ("UCC_d", -1), "ucc_noise": ("UCC_noise", 1),
        "ucc_noise_std": ("UCC_noise, by std", 1),
    },
    "Principles: pairs in order": {
        "ur_g": ("UR_g", 1), "ur_d": ("UR_d", 1), "ur_noise": ("UR_noise", 1), "ur_noise_std": ("UR_noise, by std", 1),
    },
}  # fmt: skip
"""Metrics of the tables: title, and 1 where larger is better, -1 where smaller is."""
DETECTION = "Failure and OOD detection"
ADDED = ("#000000", "#6b4c9a", "#008080", "#b8860b")
"""Colours of methods that were not trained here."""


@dataclass
class Run:
    """One trained and evaluated network, or ensemble."""

    preset: str
    seed: int
    folder: Path
    results: dict[str, Any]
    """results.json."""
    sweep: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the robustness sweep."""
    curves: dict[str, Any] = field(default_factory=dict)


@dataclass
class Comparison:
    """Every run, and what they have in common."""

    runs: list[Run]
    class_names: dict[int, str]
    description: dict[str, Any]
    added: tuple[str, ...] = ()
    """Names of methods that were not trained here: of what some tool left, in the order they were given."""
    _robustness: dict[str, list[dict[str, Any]]] = field(default_factory=dict, init=False, repr=False)

    @property
    def presets(self) -> list[str]:
        there = {run.preset for run in self.runs}
        return [preset for preset in (*METHODS, *self.added) if preset in there]

    def title(self, preset: str) -> str:
        return preset if preset in self.added else METHODS[preset].title

    def colour(self, preset: str) -> str:
        return ADDED[self.added.index(preset) % len(ADDED)] if preset in self.added else METHODS[preset].colour

    def of(self, preset: str) -> list[Run]:
        return [run for run in self.runs if run.preset == preset]

    def metrics(self) -> list[str]:
        return list(self.runs[0].results["mean"])

    @property
    def unit(self) -> str:
        """Of distances, "mm" or "px"."""
        return unit_of(self.metrics())

    @property
    def groups(self) -> dict[str, dict[str, tuple[str, int]]]:
        """`GROUPS` with the unit of this data, and what a sweep tells of detection."""
        groups = {
            group: {in_unit(key, self.unit): (in_unit(title, self.unit), d) for key, (title, d) in metrics.items()}
            for group, metrics in GROUPS.items()
        }
        return {**groups, DETECTION: self.detection_titles} if self.detection else groups

    @property
    def reference(self) -> str:
        """The preset that others are held against: this package's own where it is among them, else the last."""
        trained = [preset for preset in self.presets if preset not in self.added]
        return DEFAULT if DEFAULT in trained else trained[-1]

    @cached_property
    def detection(self) -> dict[str, dict[str, np.ndarray]]:
        """`detection.values` of every preset that was trained here; none where a run has no sweep."""
        trained = [preset for preset in self.presets if preset not in self.added]
        if not all(run.sweep for preset in trained for run in self.of(preset)):
            return {}
        return {
            preset: detection.values([detection.of_sweep(run.sweep) for run in self.of(preset)]) for preset in trained
        }

    @property
    def detection_titles(self) -> dict[str, tuple[str, int]]:
        """Of the metrics of detection; none without a sweep."""
        return detection.titles(detection.of_sweep(self.runs[0].sweep)) if self.detection else {}

    def statistics(self, preset: str, metric: str) -> Statistics:
        """Over the cases, each the mean over the seeds where it is defined; undefined counts cases and seeds."""
        if metric in self.detection.get(preset, ()):
            return detection.statistics(self.detection[preset][metric])
        values = self._values(preset, metric)
        statistics = summarize(self._by_case(preset, metric))
        return statistics._replace(undefined=int(np.isnan(values).sum()))

    def seed_std(self, preset: str, metric: str) -> float:
        """Standard deviation of the seeds' means; NaN of one seed, and of detection, which is of all cases."""
        if metric in self.detection.get(preset, ()):
            return math.nan
        means = [m for m in map(_mean, self._values(preset, metric)) if not math.isnan(m)]
        return float(np.std(means, ddof=1)) if len(means) > 1 else math.nan

    def _values(self, preset: str, metric: str) -> np.ndarray:
        """[seeds, cases]."""
        rows = [[case.get(metric) for case in run.results["per_case"]] for run in self.of(preset)]
        return np.array([[math.nan if v is None else v for v in row] for row in rows], dtype=np.float64)

    def usable(self) -> list[str]:
        """The presets whose mean Dice is at least `USABLE` times the best."""
        dice = {preset: self.statistics(preset, "dice").mean for preset in self.presets}
        top = max((value for value in dice.values() if not math.isnan(value)), default=math.nan)
        return [preset for preset, value in dice.items() if value >= USABLE * top]

    def best(self, metric: str, direction: int) -> str | None:
        """The usable preset that is better than every other usable one, by more than chance; else None.

        Better by more than chance: the 95 % bootstrap interval of the mean difference over the cases, each paired with
        itself, lies above 0.
        """
        if metric in self.detection_titles:
            rows = {p: direction * self.detection[p][metric] for p in self.usable() if p in self.detection}
            rows = {preset: row for preset, row in rows.items() if not np.isnan(row[0])}
            best, lowest = (lambda row: float(row[0])), (lambda row: detection.statistics(row).low)
        else:
            rows = {preset: direction * self._by_case(preset, metric) for preset in self.usable()}
            rows = {preset: row for preset, row in rows.items() if not np.isnan(row).all()}
            best, lowest = (lambda row: float(np.nanmean(row))), (lambda row: summarize(row).low)
        if len(rows) < 2:
            return None
        first = max(rows, key=lambda preset: best(rows[preset]))
        others = (row for preset, row in rows.items() if preset != first)
        return first if all(lowest(rows[first] - row) > 0 for row in others) else None

    def against(self, metric: str, reference: str) -> dict[str, tuple[Statistics, float]]:
        """Of every other preset the difference to `reference` over the cases, each paired with itself, and its p by
        Wilcoxon's test with Holm's correction for the number of presets."""
        rows = {preset: self._by_case(preset, metric) for preset in self.presets}
        p = differences.corrected_p(rows, reference)
        return {preset: (summarize(rows[preset] - rows[reference]), p[preset]) for preset in p}

    def _by_case(self, preset: str, metric: str) -> np.ndarray:
        """[cases]: the mean over the seeds where it is defined."""
        return np.array([_mean(row) for row in self._values(preset, metric).T])

    def robustness(self, preset: str) -> list[dict[str, Any]]:
        """Summaries of the sweep over the cases, each the mean over the seeds; computed once."""
        if preset not in self._robustness:
            self._robustness[preset] = self._summaries(preset)
        return self._robustness[preset]

    def _summaries(self, preset: str) -> list[dict[str, Any]]:
        groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        for row in (row for run in self.of(preset) for row in run.sweep):
            groups.setdefault((row["case"], row["kind"], row["severity"]), []).append(row)
        rows = []
        for (case, kind, severity), group in groups.items():
            merged = {"case": case, "kind": kind, "severity": severity}
            for metric in (name for name in group[0] if name not in merged):
                merged[metric] = _mean(np.array([math.nan if r[metric] is None else r[metric] for r in group]))
            rows.append(merged)
        tables = [detection.of_sweep(run.sweep) for run in self.of(preset) if run.sweep]
        return [*robustness.summaries(rows), *(detection.by_severity(tables) if tables else [])]

    def curve(self, preset: str, *keys: str) -> list[float]:
        """Mean over the seeds; NaN where undefined."""
        rows = []
        for run in self.of(preset):
            values: Any = run.curves
            for key in keys:
                values = values[key]
            rows.append([math.nan if v is None else v for v in values])
        return [_mean(np.array(column)) for column in zip(*rows, strict=True)]


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def is_complete(folder: Path, config: TrainConfig) -> bool:
    """Whether a run of this configuration is there whole.

    Raises:
        ConfigError: the folder holds a run of another configuration.
    """
    if not (folder / "results.json").is_file():
        return False
    differ = _differences(folder, config)
    if differ:
        raise ConfigError(
            f"output {folder}: holds a run with another {', '.join(differ)}; choose another output or remove it"
        )
    return True


def is_started(folder: Path, config: TrainConfig) -> bool:
    """Whether a run of this configuration is there to go on with."""
    return resume.is_started(folder) and not _differences(folder, config)


def _differences(folder: Path, config: TrainConfig) -> list[str]:
    stored = load_stored(folder).flat()
    wanted = config.flat()
    ignored = {*INDEPENDENT, *(name for name in PLANNED if not wanted.get(name, True))}
    return sorted(k for k in wanted.keys() | stored.keys() if k not in ignored and wanted.get(k) != stored.get(k))


def load_run(preset: str, seed: int, folder: Path) -> Run:
    return Run(preset, seed, folder, json.loads((folder / "results.json").read_text(encoding="utf-8")))


def check_same(runs: Sequence[Run]) -> None:
    """Refuses runs that cannot stand in one table: of other classes, or evaluated on other cases."""
    first = runs[0]
    for run in runs[1:]:
        for what, of in (("classes", lambda r: r.results["class_names"]),
                         ("cases", lambda r: [case["case"] for case in r.results["per_case"]])):  # fmt: skip
            if of(run) != of(first):
                raise ConfigError(f"{run.folder}: expected the {what} of {first.folder}, got others")


def examine(
    run: Run,
    cases: Sequence[Any],
    *,
    info: Any,
    device: torch.device,
    conditions: robustness.Conditions,
    progress: bool = True,
) -> None:
    """Curves, slices and robustness sweep of a run; what is there already is not computed again."""
    path = checkpoint.find(run.folder)
    predictor, content = checkpoint.load_predictor(path, device)
    owner = checkpoint.fingerprint(path)
    seed = content["config"].run.seed

    def answer(case: Any, truth: Any) -> Any:
        return predictor(truth.image, truth.place)

    run.curves = curves.collect(answer, cases, run.folder, owner=owner, info=info, device=device, progress=progress)
    if len(conditions) > 1:
        file = robustness.RowFile(run.folder / "robustness" / robustness.ROWS, robustness.RowFile.owner(owner, seed))
        run.sweep = robustness.sweep(
            predictor, cases, file, info=info, device=device, seed=seed, progress=progress, wanted=conditions
        )


def examine_maps(
    name: str, folders: MapFolders, cases: Sequence[Any], folder: Path, *, info: Any, progress: bool = True
) -> Run:
    """Evaluates what a tool left of the cases as a method beside the others; curves and slices go into `folder`.

    Raises:
        DataError: a case without a file, or a file that does not fit.
    """
    digest = hashlib.sha256()
    for case in cases:
        for kind in folders.kinds:
            path = folders.file(case.name, kind)
            if path is None:
                raise DataError(
                    f"add {name}: expected a file of case {case.name} in {getattr(folders, kind)}, got none"
                )
            digest.update(f"{path.resolve()} {path.stat().st_mtime_ns} {path.stat().st_size}".encode())
    evaluated = evaluate_maps(folders, cases, info=info, progress=progress).to_json()
    run = Run(name, 0, folder, evaluated)

    def answer(case: Any, truth: Any) -> Any:
        return load(folders, case, load_case(case), info.num_classes)[0]

    device = torch.device("cpu")
    run.curves = curves.collect(
        answer, cases, folder, owner=digest.hexdigest(), info=info, device=device, progress=progress
    )
    return run


def describe(
    command: Sequence[str], configs: Sequence[TrainConfig], seeds: Sequence[int], split: dict[str, list[str]]
) -> dict[str, Any]:
    """What somebody needs to repeat it."""
    import monai

    from .. import __version__
    from .._cpu import isa

    varying = ("run.seed", "network.dropout")
    shared = {k: v for k, v in configs[0].flat().items() if not k.startswith("method.") and k not in varying}
    methods = {config.method.preset: config.method for config in configs}
    return {
        "command": shlex.join(["python", "-m", "sure_fast.compare", *command]),
        "versions": {
            "sure_fast": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "monai": monai.__version__,
            "numpy": np.__version__,
            "system": f"{platform.system()} {platform.machine()}, {isa()}, {torch.get_num_threads()} threads",
        },
        "presets": list(methods),
        "seeds": list(seeds),
        "config": shared,
        "options": {preset: method.options for preset, method in methods.items()},
        "split": split,
    }


def evaluated_cases(cases: Sequence[Any], run: Run) -> list[Any]:
    """The cases that a run was evaluated on."""
    names = [case["case"] for case in run.results["per_case"]]
    by_name = {case.name: case for case in cases}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ConfigError(f"{run.folder}: was evaluated on {missing[0]}, which is not among the cases")
    return [by_name[name] for name in names]
