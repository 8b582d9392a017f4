"""The tables of a comparison: Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..engine.files import write_table, write_text
from ..engine.table import in_unit, number
from ..metrics import Statistics
from .differences import LEVEL
from .results import DETECTION, USABLE, Comparison

MARKED = (
    f"Bold: better than every other method by more than chance (paired 95 % bootstrap interval), among those with at "
    f"least {USABLE:.0%} of the best mean Dice."
)
MAIN = {
    "dice": "Dice", "hd95_mm": "HD95 (mm)", "ece": "ECE", "ueo": "UEO", "auroc": "AUROC", "ucc_g": "UCC_g",
    "ucc_noise": "UCC_noise", "ucc_noise_std": "UCC_noise, by std",
}  # fmt: skip
"""Metrics of the table of differences."""
DETECTED = (
    "Over cases, clean and corrupted ones together: AURC with risk 1 − Dice, and the rank correlation of the "
    "uncertainty and Dice (wanted −1). OOD AUROC: how often a corrupted case is more uncertain than a clean one; "
    "0.5 is chance. The uncertainty of a case is the mean of u in the predicted foreground and within 4 voxels of it."
)


def main_metrics(comparison: Comparison) -> dict[str, str]:
    """`MAIN` in the unit of this data."""
    return {in_unit(key, comparison.unit): in_unit(title, comparison.unit) for key, title in MAIN.items()}


def write(comparison: Comparison, folder: Path) -> None:
    """results.csv: a row a preset, seed and case; results.json: the summaries; results.md, tables.tex and tables.csv:
    the tables."""
    metrics = comparison.metrics()
    rows = (
        [run.preset, run.seed, case["case"], *(case.get(metric) for metric in metrics)]
        for run in comparison.runs
        for case in run.results["per_case"]
    )
    write_table(folder / "results.csv", [["preset", "seed", "case", *metrics], *rows])
    write_table(folder / "tables.csv", _summary(comparison))
    texts = {"results.json": _json(comparison), "results.md": markdown(comparison), "tables.tex": latex(comparison)}
    for name, text in texts.items():
        write_text(folder / name, text)


def _summary(comparison: Comparison) -> list[list[Any]]:
    """A row a table, preset and metric."""
    rows: list[list[Any]] = [["table", "preset", "metric", *Statistics._fields, "seed_std", "best"]]
    for group, metrics in comparison.groups.items():
        for metric, (_, direction) in metrics.items():
            best = comparison.best(metric, direction)
            for preset in comparison.presets:
                statistics = comparison.statistics(preset, metric)
                spread = comparison.seed_std(preset, metric)
                rows.append([group, preset, metric, *statistics, spread, preset == best])
    return rows


def _json(comparison: Comparison) -> str:
    def plain(row: dict[str, Any]) -> dict[str, Any]:
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}

    methods: dict[str, dict[str, Any]] = {}
    for preset in comparison.presets:
        methods[preset] = {}
        for metric in (*comparison.metrics(), *comparison.detection_titles):
            statistics = comparison.statistics(preset, metric)._asdict()
            methods[preset][metric] = plain({**statistics, "seed_std": comparison.seed_std(preset, metric)})
    against = {
        metric: {
            preset: plain({**difference._asdict(), "p": p})
            for preset, (difference, p) in comparison.against(metric, comparison.reference).items()
        }
        for metric in main_metrics(comparison)
    }
    content = {
        **comparison.description,
        "class_names": comparison.class_names,
        "methods": methods,
        "differences": {"to": comparison.reference, "of": against},
        "robustness": {preset: [plain(row) for row in comparison.robustness(preset)] for preset in comparison.presets},
    }
    return json.dumps(content, indent=1)


def markdown(comparison: Comparison) -> str:
    """The tables of the report; in bold what is significantly the best."""
    lines = ["```bash", comparison.description["command"], "```", ""]
    cases = len(comparison.runs[0].results["per_case"])
    seeds = ", ".join(map(str, comparison.description["seeds"]))
    lines += [
        f"Means over {cases} test cases (seeds {seeds}), with 95 % bootstrap intervals over the cases. {MARKED}",
        "",
    ]
    for group, metrics in comparison.groups.items():
        if group == DETECTION:
            lines += [DETECTED, ""]
        titles = [f"{title} {'↑' if direction > 0 else '↓'}" for title, direction in metrics.values()]
        lines += [f"| {group} | " + " | ".join(titles) + " |", "| --- |" + " ---: |" * len(titles)]
        best = {metric: comparison.best(metric, direction) for metric, (_, direction) in metrics.items()}
        for preset in comparison.presets:
            cells = []
            for metric in metrics:
                statistics = comparison.statistics(preset, metric)
                mean = f"**{typeset(statistics.mean)}**" if preset == best[metric] else typeset(statistics.mean)
                cells.append(mean + interval(statistics, " ({} … {})"))
            lines.append(f"| {comparison.title(preset)} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join([*lines, *_differences(comparison)])


def _differences(comparison: Comparison) -> list[str]:
    """Markdown of the differences to the reference, of more than one preset."""
    if len(comparison.presets) < 2:
        return []
    metrics, reference = main_metrics(comparison), comparison.reference
    lines = [
        f"Differences to {comparison.title(reference)}, case by case, with 95 % bootstrap intervals; n. s.: not "
        f"significant (Wilcoxon's signed-rank test, Holm's correction for the number of methods, p ≥ {LEVEL:g}).",
        "",
        "| Difference | " + " | ".join(metrics.values()) + " |",
        "| --- |" + " ---: |" * len(metrics),
    ]
    columns = {metric: comparison.against(metric, reference) for metric in metrics}
    for preset in comparison.presets:
        if preset != reference:
            cells = [difference(*column[preset]) for column in columns.values()]
            lines.append(f"| {comparison.title(preset)} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def difference(statistics: Statistics, p: float) -> str:
    """Such as "+0.010 (+0.002 … +0.020)", and whether it is no more than chance; a dash where there is none."""
    sign = "+" if statistics.mean > 0 else ""
    mark = "" if p < LEVEL or math.isnan(statistics.mean) else " n. s."
    return f"{sign}{typeset(statistics.mean)}{interval(statistics, ' ({} … {})')}{mark}"


def interval(statistics: Statistics, form: str) -> str:
    """Both ends in `form`; nothing where there is none."""
    return "" if math.isnan(statistics.low) else form.format(typeset(statistics.low), typeset(statistics.high))


def typeset(value: float) -> str:
    return number(value).replace("-", "−")


def latex(comparison: Comparison) -> str:
    """The same tables for a paper: booktabs, the significantly best in bold, intervals small below the means."""
    lines = ["% needs \\usepackage{booktabs}", f"% {comparison.description['command']}"]
    for group, metrics in comparison.groups.items():
        arrows = ["\\uparrow" if direction > 0 else "\\downarrow" for _, direction in metrics.values()]
        titles = [f"{_escaped(title)} ${arrow}$" for (title, _), arrow in zip(metrics.values(), arrows, strict=True)]
        lines += [
            f"\n% {group}", f"\\begin{{tabular}}{{l{'r' * len(metrics)}}}", "\\toprule",
            " & ".join(["Method", *titles]) + " \\\\", "\\midrule",
        ]  # fmt: skip
        best = {metric: comparison.best(metric, direction) for metric, (_, direction) in metrics.items()}
        for preset in comparison.presets:
            cells = []
            for metric in metrics:
                statistics = comparison.statistics(preset, metric)
                mean = f"\\mathbf{{{number(statistics.mean)}}}" if preset == best[metric] else number(statistics.mean)
                bounds = "" if math.isnan(statistics.low) else (
                    f"\\,{{\\scriptstyle [{number(statistics.low)},\\,{number(statistics.high)}]}}"
                )  # fmt: skip
                cells.append("--" if math.isnan(statistics.mean) else f"${mean}{bounds}$")
            lines.append(" & ".join([_escaped(comparison.title(preset)), *cells]) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("%", "\\%").replace("_", "\\_").replace("&", "\\&")
