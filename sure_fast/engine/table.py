"""The results of an evaluation as a table on the terminal."""

from __future__ import annotations

import math

from .evaluation import UNCERTAINTY, EvaluationResult

WANTED = {"ucc_g": "-1", "ucc_d": "-1", "ucc_noise": "+1", "ur_g": "1", "ur_d": "1", "ur_noise": "1"}
NAMES = {
    "ucc_g": "UCC_g",
    "ucc_d": "UCC_d",
    "ucc_noise": "UCC_noise",
    "ur_g": "UR_g",
    "ur_d": "UR_d",
    "ur_noise": "UR_noise",
}


def table(result: EvaluationResult) -> str:
    """One line a metric: mean, its 95 % interval, standard deviation over the cases, how many leave it undefined."""
    classes = [name for c, name in sorted(result.class_names.items()) if c > 0]
    rows: list[tuple[str, str, str]] = []
    for title, key, wanted in (
        ("Dice", "dice", "1"),
        ("HD95 (mm)", "hd95_mm", "0"),
        ("ASSD (mm)", "assd_mm", "0"),
        ("NSD 1 mm", "nsd", "1"),
        ("ECE", "ece", "0"),
    ):
        rows += [(f"{title} {name}", f"{key}/{name}", wanted) for name in classes]
        rows.append((f"{title} top label" if key == "ece" else f"{title} mean", key, wanted))
    rows += [(NAMES[key], key, WANTED[key]) for key in UNCERTAINTY]
    width = max(len(title) for title, _, _ in rows)
    head = f"{'':{width}}  {'mean':>8}  {'95 % interval':>18}  {'std':>8}  wanted  undefined"
    lines = [f"{head}   ({len(result.per_case)} cases)"]
    statistics = result.statistics
    for title, key, wanted in rows:
        found = statistics[key]
        mean, low, high, std = (
            "–" if math.isnan(v) else f"{v:.3f}" for v in (found.mean, found.low, found.high, found.std)
        )
        interval = "–" if low == "–" else f"{low} … {high}"
        lines.append(f"{title:{width}}  {mean:>8}  {interval:>18}  {std:>8}  {wanted:>6}  {found.undefined:>9}")
    absent = [f"{name} in {number}" for name, number in result.absent.items() if number]
    if absent:
        lines.append(f"in neither label nor prediction (Dice 1, HD95 0): {', '.join(absent)} of the cases")
    return "\n".join(lines)


def print_table(result: EvaluationResult) -> None:
    print(table(result), flush=True)
