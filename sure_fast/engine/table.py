"""The results of an evaluation as a table on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable

from . import console
from .evaluation import EvaluationResult

SINGLE = {
    "adaptive_ece": ("Adaptive ECE", "0"),
    "brier": ("Brier", "0"),
    "nll": ("NLL", "0"),
    "ueo": ("UEO", "1"),
    "aurc": ("AURC", "0"),
    "auroc": ("Error AUROC", "1"),
    "mean_uncertainty": ("mean u", ""),
    "case_uncertainty": ("u of the case", ""),
    "window_uncertainty": ("u of a window", ""),
    "ucc_g": ("UCC_g", "-1"),
    "ucc_d": ("UCC_d", "-1"),
    "ucc_noise": ("UCC_noise", "+1"),
    "ucc_noise_std": ("UCC_noise, by std", "+1"),
    "ur_g": ("UR_g", "1"),
    "ur_d": ("UR_d", "1"),
    "ur_noise": ("UR_noise", "1"),
    "ur_noise_std": ("UR_noise, by std", "1"),
}
"""Metrics without classes: title, and the value that is wanted."""


EXPLANATIONS = {
    "UCC": "rank correlation of the uncertainty u with what it should follow: UCC_g with the image gradient at the "
    "boundary (wanted -1), UCC_d of its rise under noise of mean 0.9 with the distance to the boundary (-1), UCC_noise "
    "with the noise level (+1); 0 is no relation",
    "UR": "share of pairs of voxels (UR_noise: of voxels) whose uncertainty is ordered as wanted; 0.5 is chance, 1 all",
}
CHANCE = {key: 0.5 if key.startswith("ur_") else 0.0 for key in SINGLE if key.startswith(("ucc_", "ur_"))}
"""Of UCC and UR: what no relation gives."""


def wrong_sides(result: EvaluationResult) -> list[str]:
    """UCC and UR that are on the wrong side of chance, their whole 95 % interval with them, or that of one case."""
    wrong = []
    for key, chance in CHANCE.items():
        if key not in result.statistics:
            continue
        title, wanted = SINGLE[key]
        statistics = result.statistics[key]
        sign = -1.0 if wanted.startswith("-") else 1.0
        bounds = [b for b in (statistics.low, statistics.high) if not math.isnan(b)] or [statistics.mean]
        if all(sign * (bound - chance) < 0 for bound in bounds):
            wrong.append(f"{title} {number(statistics.mean)} (wanted {wanted}, chance {chance:g})")
    return wrong


def decimals(value: float) -> int:
    return 3 if abs(value) >= 0.01 else 5


def number(value: float) -> str:
    """Three decimals, of a small one five; "–" for what is undefined."""
    if math.isnan(value):
        return "–"
    return f"{value:.{decimals(value)}f}" if value else "0"


def unit_of(metrics: Iterable[str]) -> str:
    """The unit of the distances among these metrics: "px" of pictures, which name no spacing, else "mm"."""
    return "px" if "hd95_px" in metrics else "mm"


def in_unit(text: str, unit: str) -> str:
    """A metric's name or title that says mm, with this unit.

    Example:
        >>> in_unit("hd95_mm", "px"), in_unit("HD95 (mm)", "px")
        ('hd95_px', 'HD95 (px)')
    """
    return text.replace("mm", unit)


def table(result: EvaluationResult, of: str = "cases") -> str:
    """One line a metric: mean, its 95 % interval, standard deviation over the cases, how many leave it undefined."""
    classes = [name for c, name in sorted(result.class_names.items()) if c > 0]
    unit = unit_of(result.metrics())
    rows: list[tuple[str, str, str]] = []
    for title, key, wanted in (
        ("Dice", "dice", "1"),
        ("IoU", "iou", "1"),
        ("HD95 (mm)", "hd95_mm", "0"),
        ("ASSD (mm)", "assd_mm", "0"),
        ("NSD 1 mm", "nsd", "1"),
        ("ECE", "ece", "0"),
    ):
        title, key = in_unit(title, unit), in_unit(key, unit)
        rows += [(f"{title} {name}", f"{key}/{name}", wanted) for name in classes]
        rows.append((f"{title} top label" if key == "ece" else f"{title} mean", key, wanted))
    rows += [(title, key, wanted) for key, (title, wanted) in SINGLE.items()]
    statistics = result.statistics
    rows = [row for row in rows if row[1] in statistics]  # what a tool left may allow some alone
    width = max(len(title) for title, _, _ in rows)
    head = f"{'':{width}}  {'mean':>8}  {'95 % interval':>18}  {'std':>8}  wanted  undefined"
    lines = [f"{head}   ({len(result.per_case)} {of})"]
    for title, key, wanted in rows:
        row = statistics[key]
        mean, low, high, std = map(number, (row.mean, row.low, row.high, row.std))
        interval = "–" if low == "–" else f"{low} … {high}"
        lines.append(f"{title:{width}}  {mean:>8}  {interval:>18}  {std:>8}  {wanted:>6}  {row.undefined:>9}")
    absent = [f"{name} in {number}" for name, number in result.absent.items() if number]
    if absent:
        lines.append(f"in neither label nor prediction (Dice 1, HD95 0): {', '.join(absent)} of the cases")
    if result.spoiled:
        lines.append(f"NaN or infinity in the prediction, every metric undefined: {', '.join(result.spoiled)}")
    return "\n".join(lines)


def explanation(result: EvaluationResult) -> str:
    """What the numbers of the uncertainty mean, and which are not as they should be."""
    told = [name for name in EXPLANATIONS if any(key.startswith(f"{name.lower()}_") for key in result.metrics())]
    lines = [f"{name}: {EXPLANATIONS[name]}." for name in told]
    wrong = wrong_sides(result)
    if wrong:
        lines.append(f"on the wrong side: {'; '.join(wrong)}.")
    return "\n".join(lines)


def print_table(result: EvaluationResult) -> None:
    slices = "" if result.slices is None else "\nper slice:\n" + table(result.slices, "slices")
    console.say(f"{table(result)}{slices}\n{explanation(result)}".rstrip())
