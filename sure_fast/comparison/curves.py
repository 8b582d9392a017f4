"""What a report draws of a run beside its numbers: reliability, risk and coverage, u against g and d, slices."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..engine import console, slices
from ..engine.evaluation import Truth, load_truth
from ..engine.files import write_text
from ..engine.prediction import Prediction
from ..metrics import compute_risk_coverage
from ..metrics.ties import tie_mean
from ..metrics.uncertainty import GRADIENT_THRESHOLD
from ..ops.boundary_distance import boundary_distance

POINTS = 50  # of the risk-coverage curve
GRADIENT_BINS = 10
FARTHEST = 10  # voxels from the boundary
SLICES = 3  # cases that are shown
_HEIGHT = 220  # pixels


def collect(
    answer: Callable[[Any, Truth], Prediction],
    cases: Sequence[Any],
    folder: Path,
    *,
    owner: str,
    info: Any,
    device: torch.device,
    progress: bool = True,
) -> dict[str, Any]:
    """Curves of a run over the cases, as plain data; kept in `folder`/curves.json and, of the same owner, read there.

    Args:
        answer: what is predicted of a case.

    Returns:
        reliability: per bin of the top label's probability, pooled over the cases, the number of voxels, their mean
        probability and the share predicted right. risk: at coverages 1/50 … 1, mean over the cases. gradient: in tenths
        of the boundary voxels by gradient, the mean rank of u, 0 … 1. distance: mean u at 0 … 10 voxels from the
        boundary. slices: names of the cases whose pictures are in `folder`/slices.
    """
    path = folder / "curves.json"
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["owner"] == owner:
            return kept
    bins: list[np.ndarray] = []
    curves: dict[str, list[np.ndarray]] = {"risk": [], "gradient": [], "distance": []}
    shown = {cases[len(cases) * k // SLICES].name for k in range(SLICES)}  # far apart in the list: of several patients
    for case in console.bar(cases, "curves", "case", shown=progress):
        truth = load_truth(case, info, device)
        prediction = answer(case, truth)
        if not prediction.spoiled and "probabilities" in prediction.known:
            stats = prediction.stats(truth.label, info.ignore_index)
            bins.append(torch.stack([x[0, -1].double() for x in stats[1:4]]).cpu().numpy())
        if not prediction.spoiled and "uncertainty" in prediction.known:
            risk = compute_risk_coverage(
                prediction.uncertainty, prediction.labels, truth.label, info.num_classes,
                points=POINTS, ignore_index=info.ignore_index,
            )  # fmt: skip
            curves["risk"].append(risk[0].cpu().numpy())
            curves["gradient"].append(_against_gradient(prediction, truth))
            curves["distance"].append(_against_distance(prediction, truth, info.ignore_index))
        if case.name in shown:
            save_slices(folder / "slices", case.name, truth, prediction, info.num_classes)
    total = np.sum(bins, axis=0) if bins else np.zeros((3, 10))
    with np.errstate(invalid="ignore"):
        reliability = {"number": total[0], "confidence": total[1] / total[0], "accuracy": total[2] / total[0]}
    result = {
        "owner": owner,
        "reliability": {name: _plain(values) for name, values in reliability.items()},
        **{name: _plain(_mean(values)) for name, values in curves.items()},
        "slices": [case.name for case in cases if case.name in shown],
    }
    write_text(path, json.dumps(result))
    return result


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(v) else float(v) for v in values]


def _mean(rows: list[np.ndarray]) -> np.ndarray:
    """Over the cases where it is defined."""
    if not rows:
        return np.zeros(0)
    table = np.stack(rows)
    number = (~np.isnan(table)).sum(0)
    return np.where(number > 0, np.nansum(table, 0) / np.maximum(number, 1), np.nan)


def _against_gradient(prediction: Prediction, truth: Truth) -> np.ndarray:
    band = (truth.distance <= GRADIENT_THRESHOLD)[0]
    u, g = (x[0][band].double().cpu() for x in (prediction.uncertainty, truth.gradient))
    if len(u) < GRADIENT_BINS:
        return np.full(GRADIENT_BINS, np.nan)
    ordered, order = u.sort()
    rank = torch.empty_like(u)
    rank[order] = tie_mean(ordered, torch.linspace(0, 1, len(u), dtype=torch.float64))
    steepness, order = g.sort()
    by_gradient = tie_mean(steepness, rank[order]).numpy()
    return np.array([part.mean() for part in np.array_split(by_gradient, GRADIENT_BINS)])


def _against_distance(prediction: Prediction, truth: Truth, ignore_index: int | None) -> np.ndarray:
    distance = boundary_distance(truth.label, max_distance=float(FARTHEST) + 0.5, ignore_index=ignore_index)
    bin_of = distance.round().clamp(max=FARTHEST + 1).long()
    if ignore_index is not None:
        bin_of = bin_of.masked_fill(truth.label == ignore_index, FARTHEST + 1)
    bin_of = bin_of.flatten().cpu()
    sums = torch.zeros(FARTHEST + 2, dtype=torch.float64)
    sums = sums.index_add_(0, bin_of, prediction.uncertainty.flatten().double().cpu())
    return (sums / bin_of.bincount(minlength=FARTHEST + 2))[: FARTHEST + 1].numpy()


def save_slices(folder: Path, name: str, truth: Truth, prediction: Prediction, classes: int) -> None:
    """NAME-image, -label, -prediction, -errors and -uncertainty.png of one slice, in true proportions.

    The slice follows from the case alone, so that every method shows the same one.
    """
    from matplotlib import colormaps

    maps = [x[0].cpu().numpy() for x in (truth.image[:, 0], truth.label, prediction.labels, prediction.uncertainty)]
    view = slices.view_of(maps[1], truth.gradient[0].cpu().numpy(), truth.spacing_mm, truth.orientation)
    image, label, predicted, u = (view.cut(x) for x in maps)
    low, high = slices.grey_limits(image)
    grey = np.repeat((np.clip((image - low) / (high - low), 0, 1) * 0.9)[..., None], 3, 2)
    palette = slices.palette(classes)
    folder.mkdir(parents=True, exist_ok=True)

    def overlay(labels: np.ndarray) -> np.ndarray:
        inside = np.where((labels >= 0) & (labels < classes), labels, 0)
        return np.where((inside > 0)[..., None], 0.45 * grey + 0.55 * palette[inside], grey)

    errors = np.where(slices.wrong(predicted, label, classes)[..., None], np.array(slices.WRONG), grey)
    heat = colormaps[slices.UNCERTAINTY](slices.uncertainty_norm()(np.nan_to_num(u)))[..., :3]
    pictures = {"image": grey, "label": overlay(label), "prediction": overlay(predicted), "errors": errors}
    if "uncertainty" in prediction.known:
        pictures["uncertainty"] = heat
    for kind, picture in pictures.items():
        _save(folder / f"{name}-{kind}.png", picture, view.aspect)


def _save(path: Path, picture: np.ndarray, aspect: float) -> None:
    from PIL import Image

    width = _HEIGHT * picture.shape[1] / (picture.shape[0] * aspect)
    size = (min(max(1, round(width)), 4 * _HEIGHT), _HEIGHT)
    whole = Image.fromarray((picture * 255).round().astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    whole.save(path, optimize=True)
