"""Evaluation of what any tool left of a data set, as far as its files allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data import discover, load_case
from ..data.cases import Case
from . import console
from .evaluation import (
    PICTURES,
    EvaluationResult,
    absent_classes,
    save_picture,
    score,
    score_noise,
    truth_of,
    unknown_metrics,
)
from .maps import UNCERTAINTY, MapFolders, load


def evaluate_folders(
    data: Path,
    folders: MapFolders,
    *,
    layout: str = "auto",
    pictures: Path | None,
    report: Callable[[str, bool], object],
) -> EvaluationResult:
    """Every labelled case of a data folder of which there is a result; `report` gets lines, and whether it is a note.

    Raises:
        DataError: no such case, or a file that does not fit, named.
    """
    cases = discover(data, layout, part="all", require_labels=False)
    chosen, notes = folders.choose(cases)
    for note in [*(note.reason for note in cases.notes), *notes]:
        report(f"note: {note}", True)
    read = ", ".join([*folders.kinds, *(["noisy"] if folders.noisy else [])])
    report(f"{len(chosen)} cases of {data}; reads {read}", False)
    return evaluate_maps(folders, chosen, info=cases.info, pictures=pictures)


def evaluate_maps(
    folders: MapFolders,
    cases: Sequence[Case],
    *,
    info: Any,
    progress: bool = True,
    pictures: Path | None = None,
    report: Callable[[str], object] = print,
) -> EvaluationResult:
    """Evaluates what a tool left of every case: the metrics that its files allow, and no others.

    UCC and UR of noise are of the maps under rising noise, of which a single one counts beside the clean one. Distance
    is held against the change of u under the strongest.

    Raises:
        DataError: a file that does not fit, named.
    """
    result = EvaluationResult(dict(info.class_names))
    for number, case in enumerate(console.bar(cases, "evaluate", "case", shown=progress)):
        sample = load_case(case, normalized=True)
        prediction, noisy = load(folders, case, sample, info.num_classes)
        truth = truth_of(sample, info, torch.device("cpu"))
        row: dict[str, Any] = {"case": case.name}
        scores = score(prediction, truth, info)
        if noisy and UNCERTAINTY in prediction.known:
            rising = noisy if len(noisy) > 1 else [prediction.uncertainty, *noisy]
            scores.update(score_noise(prediction.uncertainty, rising, truth))
        unknown = unknown_metrics(prediction)
        row.update({key: value for key, value in scores.items() if key.split("/")[0] not in unknown})
        row["absent"] = absent_classes(prediction, truth, info)
        result.per_case.append(row)
        if pictures is not None and number < PICTURES:
            save_picture(pictures / f"{case.name}.png", truth, prediction, info, report)
    return result
