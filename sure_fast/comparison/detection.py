"""What the uncertainty of whole cases is good for: bad segmentations and spoiled images are told by it, or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.corruptions import CORRUPTIONS
from ..engine.robustness import CLEAN
from ..metrics import Statistics, failure_detection, ood_auroc

SEVERITY = 3
"""Of the table; where a sweep has it not, its strongest."""
RESAMPLES = 400
FAILURE = {"failure_aurc": ("AURC of cases", -1), "failure_spearman": ("Spearman of u and Dice", -1)}
Table = dict[tuple[str, int], dict[str, tuple[float, float]]]
"""By condition and case: u of the case and Dice."""


def of_sweep(rows: Sequence[dict[str, Any]]) -> Table:
    found: Table = {}
    for row in rows:
        u, dice = (math.nan if row[name] is None else row[name] for name in ("case_uncertainty", "dice"))
        found.setdefault((row["kind"], row["severity"]), {})[row["case"]] = (u, dice)
    return found


def ood_metric(kind: str) -> str:
    return f"ood_{kind}"


def severity_of(table: Table, kind: str) -> int:
    severities = [severity for other, severity in table if other == kind]
    return SEVERITY if SEVERITY in severities else max(severities)


def kinds_of(table: Table) -> list[str]:
    return [kind for kind in CORRUPTIONS if any(other == kind for other, _ in table)]


def titles(table: Table) -> dict[str, tuple[str, int]]:
    """Columns of the table of detection: title, and 1 where larger is better, -1 where smaller is."""
    return FAILURE | {
        ood_metric(kind): (f"OOD AUROC, {CORRUPTIONS[kind].title} {severity_of(table, kind)}", 1)
        for kind in kinds_of(table)
    }


def values(tables: Sequence[Table]) -> dict[str, np.ndarray]:
    """Every metric of `titles`, its mean over the seeds: of the cases first, then of `RESAMPLES` bootstrap samples of
    them, which are the same for every method."""
    cases = list(tables[0][CLEAN, 0])
    drawn = np.random.default_rng(0).integers(0, len(cases), (RESAMPLES, len(cases)))
    samples = [np.arange(len(cases)), *drawn]
    found: dict[str, list[list[float]]] = {}
    for table in tables:
        clean = np.array([table[CLEAN, 0][case] for case in cases])
        every = np.array([[of[case] for case in cases] for of in table.values()])
        spoiled = {kind: np.array([table[kind, severity_of(table, kind)][case] for case in cases])[:, 0]
                   for kind in kinds_of(table)}  # fmt: skip
        of_seed: dict[str, list[float]] = {}
        for sample in samples:
            part = every[:, sample].reshape(-1, 2)
            for name, value in zip(FAILURE, failure_detection(*part.T.tolist()), strict=True):
                of_seed.setdefault(name, []).append(value)
            for kind, u in spoiled.items():
                of_seed.setdefault(ood_metric(kind), []).append(
                    ood_auroc(clean[sample, 0].tolist(), u[sample].tolist())
                )
        for name, numbers in of_seed.items():
            found.setdefault(name, []).append(numbers)
    return {name: np.mean(rows, axis=0) for name, rows in found.items()}


def statistics(row: np.ndarray) -> Statistics:
    """Of a metric of `values`: the number itself and its bootstrap interval over the cases."""
    low, high = np.nanquantile(row[1:], [0.025, 0.975]) if not np.isnan(row[1:]).all() else (math.nan, math.nan)
    return Statistics(
        mean=float(row[0]), std=float(np.nanstd(row[1:])), low=float(low), high=float(high),
        number=1, undefined=int(np.isnan(row[0])),
    )  # fmt: skip


def by_severity(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """OOD AUROC of every condition as a row of a robustness summary, mean over the seeds; without an interval."""
    rows = []
    for kind, severity in tables[0]:
        numbers = []
        for table in tables:
            clean, spoiled = ([u for u, _ in table[key].values()] for key in ((CLEAN, 0), (kind, severity)))
            numbers.append(ood_auroc(clean, spoiled))
        rows.append({"kind": kind, "severity": severity, "metric": "ood_auroc", "mean": float(np.mean(numbers)),
                     "std": math.nan, "low": math.nan, "high": math.nan, "number": len(tables[0][kind, severity]),
                     "undefined": 0})  # fmt: skip
    return rows
