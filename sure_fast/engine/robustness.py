"""How predictions hold up as images get worse: a resumable sweep over corruptions and severities."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..data.corruptions import CORRUPTIONS, corrupt
from ..data.resampling import Place
from ..metrics import Statistics, summarize
from . import console
from .config import ConfigError
from .evaluation import case_seed, load_truth, score, score_noise
from .files import write_table, write_text
from .prediction import Prediction
from .table import in_unit, number, unit_of

CLEAN = "clean"
ROWS = "robustness.jsonl"

NOISE_METRICS = ("ucc_d", "ur_d", "ucc_noise", "ur_noise")
SHOWN = {
    "dice": "Dice",
    "hd95_mm": "HD95 mm",
    "ece": "ECE",
    "ueo": "UEO",
    "aurc": "AURC",
    "mean_uncertainty": "mean u",
    "ucc_g": "UCC_g",
    "ucc_d": "UCC_d",
    "ucc_noise": "UCC_noise",
}
Conditions = tuple[tuple[str, int], ...]


SEVERITIES = (1, 2, 3, 4, 5)


def conditions(severities: Sequence[int] = SEVERITIES) -> Conditions:
    """(kind, severity) of every corruption, the clean image first."""
    return ((CLEAN, 0), *((kind, severity) for kind in CORRUPTIONS for severity in severities))


class RowFile:
    """JSON lines that outlive an interruption: the first says whose rows they are, each further one is a result.

    Raises:
        ConfigError: the file is there and belongs to something else.
    """

    def __init__(self, path: Path, owner: dict[str, Any]) -> None:
        self.path, self.rows = path, []
        if path.is_file():
            lines = path.read_text(encoding="utf-8").split("\n")
            whole = [json.loads(line) for line in lines[:-1]]  # what follows the last newline was cut off
            if whole and whole[0] != owner:
                differs = sorted(k for k in owner | whole[0] if owner.get(k) != whole[0].get(k))
                raise ConfigError(f"{path}: expected rows of this evaluation, got others ({', '.join(differs)} differ)")
            self.rows = whole[1:]
        write_text(path, "".join(json.dumps(row) + "\n" for row in [owner, *self.rows]))

    @staticmethod
    def owner(checkpoint: str, seed: int, data: str | None = None) -> dict[str, Any]:
        """Of the rows of a checkpoint on a data folder; None: on its own run's test cases."""
        return {"checkpoint": checkpoint, "data": data, "seed": seed, "sure_fast": __version__}

    def append(self, row: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)


def sweep(
    predictor: Callable[[Tensor, Place | None], Prediction],
    cases: Sequence[Any],
    file: RowFile,
    *,
    info: Any,
    device: torch.device,
    seed: int = 0,
    progress: bool = True,
    wanted: Conditions | None = None,
) -> list[dict[str, Any]]:
    """One row for every case, corruption and severity; those that `file` holds are not computed again.

    UCC_g and UR_g are of the clean image's gradient; UCC and UR of noise are of the change of u against the clean
    image.

    Returns:
        The rows: case, kind, severity and the metrics, an undefined one as None.
    """
    every = conditions() if wanted is None else wanted
    names = {case.name for case in cases}
    done = {(row["case"], row["kind"], row["severity"]) for row in file.rows}
    missing = {case.name: [c for c in every if (case.name, *c) not in done] for case in cases}
    whole = len(cases) * len(every)
    initial = whole - sum(map(len, missing.values()))
    with console.bar(None, "robustness", "image", total=whole, initial=initial, shown=progress) as bar:
        for case in cases:
            if not missing[case.name]:
                continue
            truth = load_truth(case, info, device)
            clean = predictor(truth.image, truth.place)
            for kind, severity in missing[case.name]:
                prediction, noise = clean, dict.fromkeys(NOISE_METRICS, math.nan)
                if kind != CLEAN:
                    corrupted = corrupt(truth.image, kind, severity, seeds=[case_seed(case.name, seed)])
                    prediction = predictor(corrupted, truth.place)
                    changed = [clean.uncertainty, prediction.uncertainty]
                    noise = score_noise(clean.uncertainty, changed, truth)
                    if clean.spoiled or prediction.spoiled:
                        noise = dict.fromkeys(noise, math.nan)
                metrics = {**score(prediction, truth, info), **noise}
                plain = {name: None if math.isnan(value) else value for name, value in metrics.items()}
                file.append({"case": case.name, "kind": kind, "severity": severity, **plain})
                bar.update()
    return [row for row in file.rows if row["case"] in names and (row["kind"], row["severity"]) in every]


def summaries(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Statistics over the cases, for every corruption, severity and metric."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["severity"]), []).append(row)
    order = [condition for condition in conditions() if condition in groups]
    result = []
    for kind, severity in order:
        group = groups[kind, severity]
        for metric in [key for key in group[0] if key not in ("case", "kind", "severity")]:
            statistics = summarize(math.nan if row[metric] is None else row[metric] for row in group)
            result.append({"kind": kind, "severity": severity, "metric": metric, **statistics._asdict()})
    return result


def write(folder: Path, rows: Sequence[dict[str, Any]], description: dict[str, Any], label: str) -> None:
    """robustness.csv, robustness.json and the curves robustness.png, each replaced in one step."""
    from .pictures import save_robustness

    table = summaries(rows)
    plain = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in table]
    columns = ["kind", "severity", "metric", *Statistics._fields]
    write_table(folder / "robustness.csv", [columns, *([row[name] for name in columns] for row in plain)])
    write_text(folder / "robustness.json", json.dumps({**description, "summary": plain}, indent=1))
    console.attempt("robustness.png", lambda: save_robustness(folder / "robustness.png", {label: table}), print)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a corruption and severity: the mean over the cases of the main metrics."""
    means = {(row["kind"], row["severity"], row["metric"]): row["mean"] for row in summaries(rows)}
    unit = unit_of({metric for _, _, metric in means})
    lines = [f"{'':22}" + "".join(f"{in_unit(title, unit):>11}" for title in SHOWN.values())]
    for kind, severity in dict.fromkeys((k, s) for k, s, _ in means):
        of = "clean" if kind == CLEAN else f"{CORRUPTIONS[kind].title} {CORRUPTIONS[kind].severities[severity - 1]:g}"
        numbers = (means[kind, severity, in_unit(metric, unit)] for metric in SHOWN)
        lines.append(f"{of:22}" + "".join(f"{number(x):>11}" for x in numbers))
    return "\n".join(lines)
