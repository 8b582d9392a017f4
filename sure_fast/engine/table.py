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
    """One line a metric: mean, standard deviation over the cases, and how many cases leave it undefined."""
    mean, std, undefined = result.mean, result.std, result.undefined
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
    lines = [f"{'':{width}}  {'mean':>8}  {'std':>8}  wanted  undefined   ({len(result.per_case)} cases)"]
    for title, key, wanted in rows:
        numbers = ["–" if math.isnan(v) else f"{v:.3f}" for v in (mean[key], std[key])]
        lines.append(f"{title:{width}}  {numbers[0]:>8}  {numbers[1]:>8}  {wanted:>6}  {undefined[key]:>9}")
    absent = [f"{name} in {number}" for name, number in result.absent.items() if number]
    if absent:
        lines.append(f"in neither label nor prediction (Dice 1, HD95 0): {', '.join(absent)} of the cases")
    return "\n".join(lines)


def print_table(result: EvaluationResult) -> None:
    print(table(result), flush=True)
