"""Evaluation case by case: segmentation, calibration, error detection and uncertainty metrics."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data import load_case
from ..data.corruptions import NOISE_STD
from ..data.resampling import Place
from ..metrics import (
    Statistics,
    compute_adaptive_ece,
    compute_aurc,
    compute_brier,
    compute_case_uncertainty,
    compute_dice,
    compute_error_auroc,
    compute_nll,
    compute_surface_metrics,
    compute_ucc,
    compute_ucc_noise,
    compute_ur,
    compute_ur_noise,
    compute_window_uncertainty,
    dice_of_stats,
    ece_of_stats,
    gradient_and_distance,
    iou_of_stats,
    summarize,
    ueo_of_stats,
)
from ..metrics.uncertainty import GRADIENT_THRESHOLD, NOISE_THRESHOLD
from . import console, distributed
from .files import write_table, write_text
from .pictures import save_case
from .prediction import Prediction, WholeImage, home

MEANS = (0.1, 0.9)
DEVIATIONS = (0.1, 0.5)
PICTURES = 4
OF_MAPS = {
    "probabilities": ("ece", "adaptive_ece", "brier", "nll"),
    "uncertainty": ("ueo", "aurc", "auroc", "mean_uncertainty", "case_uncertainty", "window_uncertainty", "ucc_g",
                    "ur_g", "ucc_d", "ur_d", "ucc_noise", "ur_noise", "ucc_noise_std", "ur_noise_std"),
}  # fmt: skip
"""Metrics that need a map."""


@dataclass
class EvaluationResult:
    """Metrics per case, and their mean over the cases where they are defined."""

    class_names: dict[int, str]
    per_case: list[dict[str, Any]] = field(default_factory=list)
    spoiled: list[str] = field(default_factory=list)
    """Cases whose prediction holds a NaN or infinity: all their metrics are undefined."""
    slices: EvaluationResult | None = None
    """The same of every slice, where the network sees volumes slice by slice."""

    def metrics(self) -> list[str]:
        return [key for key, value in self.per_case[0].items() if isinstance(value, float)] if self.per_case else []

    @property
    def statistics(self) -> dict[str, Statistics]:
        """Mean, standard deviation, bootstrap interval and number of undefined cases of every metric."""
        return {metric: summarize(case[metric] for case in self.per_case) for metric in self.metrics()}

    @property
    def mean(self) -> dict[str, float]:
        return {metric: statistics.mean for metric, statistics in self.statistics.items()}

    @property
    def absent(self) -> dict[str, int]:
        """In how many cases a class is in neither label nor prediction: perfect, Dice 1 and HD95 0, without merit."""
        names = [self.class_names[c] for c in sorted(self.class_names) if c > 0]
        return {name: sum(name in case["absent"] for case in self.per_case) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Plain data; an undefined value is null."""

        def plain(values: dict[str, Any]) -> dict[str, Any]:
            return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}

        statistics = self.statistics
        return {
            "cases": len(self.per_case),
            "class_names": {str(k): v for k, v in self.class_names.items()},
            **{name: plain({m: getattr(s, name) for m, s in statistics.items()}) for name in Statistics._fields},
            "absent": self.absent,
            "spoiled": self.spoiled,
            "per_case": [plain(case) for case in self.per_case],
        }

    def write(self, folder: Path, name: str = "results") -> None:
        """NAME.json, and NAME.csv with a row a case; with a row a slice NAME-slices."""
        write_text(folder / f"{name}.json", json.dumps(self.to_json(), indent=1))
        metrics = self.metrics()
        rows = ([case["case"], *(case[metric] for metric in metrics)] for case in self.per_case)
        write_table(folder / f"{name}.csv", [["case", *metrics], *rows])
        if self.slices is not None:
            self.slices.write(folder, f"{name}-slices")


@torch.no_grad()
def validation_dice(
    model: nn.Module, cases: Sequence[Any], *, info: Any, patch_size: Sequence[int], device: torch.device
) -> dict[str, float]:
    """Mean Dice per foreground class over the cases, and their mean as "mean"; each rank reads its share of them."""
    if not cases:
        raise ValueError("cases: expected at least one to validate on, got none")
    training = model.training
    model.eval()
    predict = WholeImage(model, patch_size, info)
    rows = []
    for case in distributed.share(cases):
        sample = load_case(case, normalized=True)
        assert sample.label is not None
        where = home(device, sample.label.shape, info.num_classes)
        prediction, label = predict(sample.image[None].to(where), sample.place).argmax(1), sample.label[None].to(where)
        rows.append(compute_dice(prediction, label, info.num_classes, ignore_index=info.ignore_index)[0][0])
    model.train(training)
    dice = torch.stack(distributed.interleave(distributed.gather([row.cpu() for row in rows]))).mean(0)
    names = [info.class_names[c] for c in range(1, info.num_classes)]
    return {**dict(zip(names, dice.tolist(), strict=True)), "mean": float(dice.mean())}


def case_seed(name: str, seed: int) -> int:
    """What is drawn for a case follows from its name and the seed alone, not from the order or number of cases."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "little")


class Truth(NamedTuple):
    """A case as metrics see it, on the network's device or, when it is large, in main memory."""

    image: Tensor
    """[1, K, *S]."""
    label: Tensor
    """[1, *S]."""
    gradient: Tensor
    """[1, *S], as the distance."""
    distance: Tensor
    spacing_mm: tuple[float, ...]
    orientation: str | None
    """Axis codes such as "RAS"; None where they are not known."""
    place: Place | None = None
    """What the network needs to know of it."""

    def slice(self, axis: int, number: int) -> Truth:
        """One slice of a volume as an image of two axes."""

        def cut(x: Tensor) -> Tensor:
            return x.select(x.dim() - 3 + axis, number).contiguous()

        spacing = tuple(s for k, s in enumerate(self.spacing_mm) if k != axis)
        return Truth(cut(self.image), cut(self.label), cut(self.gradient), cut(self.distance), spacing, None)


def load_truth(case: Any, info: Any, device: torch.device) -> Truth:
    """Reads a case; ValueError where it has no label."""
    if case.label is None:
        raise ValueError(f"{case.image}: evaluation needs a label, and the case has none")
    return truth_of(load_case(case, normalized=True), info, device)


def truth_of(sample: Any, info: Any, device: torch.device) -> Truth:
    """The same of a case that was read, with its label."""
    device = home(device, sample.label.shape, info.num_classes)
    image, label = sample.image[None].to(device), sample.label[None].to(device)
    gradient, distance = _maps(image, label, info)
    return Truth(image, label, gradient, distance, tuple(sample.spacing_mm), sample.orientation, sample.place)


def _maps(image: Tensor, label: Tensor, info: Any) -> tuple[Tensor, Tensor]:
    """Image gradient and boundary distance, [1, *S]; of a network of slices within each slice."""
    axis = info.slice_axis
    if axis is None:
        gradient, distance = gradient_and_distance(image, label, ignore_index=info.ignore_index)
        return gradient[:, 0], distance[:, 0]
    slices = image.movedim(axis + 2, 0)[:, 0].contiguous(), label.movedim(axis + 1, 0)[:, 0].contiguous()
    gradient, distance = gradient_and_distance(*slices, ignore_index=info.ignore_index)
    back = [x[:, 0].movedim(0, axis)[None].contiguous() for x in (gradient, distance)]
    return back[0], back[1]


def score(prediction: Prediction, truth: Truth, info: Any) -> dict[str, float]:
    """Metrics of one prediction, by name: "dice/CLASS" of a class, "dice" over the classes. NaN where it is spoiled.

    Distances are "hd95_mm" and "assd_mm", and "nsd" is that of 1 mm; of pictures, which name no spacing, they are in
    pixels, "hd95_px" and "assd_px".
    """
    classes, ignore, label = info.num_classes, info.ignore_index, truth.label
    spoiled = prediction.spoiled
    if spoiled:  # which the metrics refuse; of anything else they give the names
        p, u = prediction.probabilities, prediction.uncertainty
        prediction = Prediction(torch.full_like(p, 1.0 / classes), torch.zeros_like(u))
    stats = prediction.stats(label, ignore)
    of_labels = prediction.stats_of_labels(label, ignore, stats)
    surface = compute_surface_metrics(prediction.labels, label, classes, truth.spacing_mm, ignore_index=ignore)
    by_class = {
        "dice": dice_of_stats(of_labels).values,
        "iou": iou_of_stats(of_labels).values,
        f"hd95_{info.spacing_unit}": surface.hd95_mm,
        f"assd_{info.spacing_unit}": surface.assd_mm,
        "nsd": surface.nsd,
    }
    ece, ueo = ece_of_stats(stats)[0], ueo_of_stats(of_labels)[0]
    row: dict[str, float] = {}
    for c in range(1, classes):
        name = info.class_names[c]
        row.update({f"{metric}/{name}": float(values[0, c - 1]) for metric, values in by_class.items()})
        row[f"ece/{name}"], row[f"ueo/{name}"] = float(ece[c]), float(ueo[c])
    row.update({metric: float(values.mean()) for metric, values in by_class.items()})
    p, u = prediction.probabilities, prediction.uncertainty
    errors = (u, prediction.labels, label, classes)
    row["ece"] = float(ece_of_stats(stats, top_label=True))
    row["adaptive_ece"] = float(compute_adaptive_ece(p, label, top_label=True, ignore_index=ignore))
    row["brier"] = float(compute_brier(p, label, ignore_index=ignore).sum())
    row["nll"] = float(compute_nll(p, label, ignore_index=ignore).sum())
    row["ueo"] = float(ueo_of_stats(of_labels, per_class=False))
    row["aurc"] = float(compute_aurc(*errors, ignore_index=ignore))
    row["auroc"] = float(compute_error_auroc(*errors, ignore_index=ignore))
    counts = torch.ones_like(label, dtype=torch.bool) if ignore is None else label != ignore
    row["mean_uncertainty"] = float(u[counts].double().mean())
    row["case_uncertainty"] = float(compute_case_uncertainty(u, prediction.labels))
    row["window_uncertainty"] = float(compute_window_uncertainty(u))
    boundary = truth.distance <= GRADIENT_THRESHOLD
    row["ucc_g"] = float(compute_ucc(truth.gradient, u, mask=boundary))
    row["ur_g"] = float(compute_ur(truth.gradient, u, mask=boundary))
    if spoiled:
        return dict.fromkeys(row, math.nan)
    unknown = unknown_metrics(prediction)
    return {key: math.nan if key.split("/")[0] in unknown else value for key, value in row.items()}


def unknown_metrics(prediction: Prediction) -> set[str]:
    """Those that need a map which there is not."""
    return {name for kind, names in OF_MAPS.items() if kind not in prediction.known for name in names}


def score_noise(clean: Tensor, noisy: Sequence[Tensor], truth: Truth) -> dict[str, float]:
    """UCC and UR of the noise principle: u under rising noise; for distance its change under the strongest."""
    near = truth.distance <= NOISE_THRESHOLD
    change = noisy[-1].double() - clean.double()
    return {
        "ucc_d": float(compute_ucc(truth.distance, change, mask=near)),
        "ur_d": float(compute_ur(truth.distance, change, mask=near)),
        "ucc_noise": float(compute_ucc_noise(noisy, mask=near)),
        "ur_noise": float(compute_ur_noise(noisy, mask=near)),
    }


def save_picture(path: Path, truth: Truth, prediction: Prediction, info: Any, report: Callable[[str], object]) -> None:
    maps = (truth.image[:, 0], truth.label, prediction.labels, prediction.uncertainty, truth.gradient)

    def draw() -> None:
        save_case(
            path,
            *(x[0].cpu() for x in maps),
            spacing=truth.spacing_mm,
            class_names=info.class_names,
            orientation=truth.orientation,
        )

    console.attempt(path.name, draw, report)


def evaluate_cases(
    predictor: Callable[[Tensor, Place | None], Prediction],
    cases: Sequence[Any],
    *,
    info: Any,
    device: torch.device,
    seed: int = 0,
    progress: bool = True,
    pictures: Path | None = None,
    report: Callable[[str], object] = print,
) -> EvaluationResult:
    """Evaluates every case: the metrics of `score`; UCC and UR of the three principles.

    The noisy images of UCC and UR carry noise of mean 0.1 and 0.9, standard deviation 0.3, over the whole image; those
    of "ucc_noise_std" and "ur_noise_std" of mean 0, standard deviation 0.1 and 0.5. Of a case they share one field, so
    that the level alone differs. UCC_d and UR_d are taken at mean 0.9.
    With `info.slice_axis` gradient and distance are those within the slices, and `slices` has every slice as a case.
    Voxels of the label `info.ignore_index` enter nothing but the uncertainty of the case, which knows no label. Of
    several ranks each evaluates its share of the cases, and all get the same result; rank 0 writes pictures of its
    first few cases to `pictures` where it is given, and tells `report` of one that cannot be drawn.

    Raises:
        ValueError: no case, or one without a label.
    """
    if not cases:
        raise ValueError("cases: expected at least one to evaluate, got none")
    for case in cases:
        if case.label is None:
            raise ValueError(f"{case.image}: evaluation needs a label, and the case has none")
    result = EvaluationResult(dict(info.class_names))
    by_slice: list[list[dict[str, Any]]] = []
    own = distributed.share(cases)
    shown = progress and distributed.is_main()
    for number, case in enumerate(console.bar(own, "evaluate", "case", shown=shown)):
        truth = load_truth(case, info, device)
        prediction = predictor(truth.image, truth.place)
        generator = torch.Generator().manual_seed(case_seed(case.name, seed))
        noisy = []
        noise = torch.randn(truth.image.shape, generator=generator).to(truth.image)  # of a case the same at every level
        for mean, deviation in (*((mean, NOISE_STD) for mean in MEANS), *((0.0, std) for std in DEVIATIONS)):
            noisy.append(predictor(truth.image + noise * deviation + mean, truth.place).uncertainty)
        if prediction.spoiled:
            result.spoiled.append(case.name)
        result.per_case.append(_row(case.name, prediction, noisy, truth, info))
        if info.slice_axis is not None:
            by_slice.append(_slice_rows(case.name, prediction, noisy, truth, info))
        if pictures is not None and number < PICTURES and distributed.is_main():
            save_picture(pictures / f"{case.name}.png", truth, prediction, info, report)
    result.per_case = distributed.interleave(distributed.gather(result.per_case))
    spoiled = {name for part in distributed.gather(result.spoiled) for name in part}
    result.spoiled = [case.name for case in cases if case.name in spoiled]
    if info.slice_axis is not None:
        rows = [row for of_case in distributed.interleave(distributed.gather(by_slice)) for row in of_case]
        result.slices = EvaluationResult(result.class_names, rows)
    return result


def _row(name: str, prediction: Prediction, noisy: Sequence[Tensor], truth: Truth, info: Any) -> dict[str, Any]:
    """Every metric of a case, or of a slice."""
    of_noise = score_noise(prediction.uncertainty, noisy[:2], truth)
    by_deviation = score_noise(prediction.uncertainty, noisy[2:], truth)
    of_noise.update({f"{name}_std": by_deviation[name] for name in ("ucc_noise", "ur_noise")})
    if prediction.spoiled:
        of_noise = dict.fromkeys(of_noise, math.nan)
    return {
        "case": name, **score(prediction, truth, info), **of_noise, "absent": absent_classes(prediction, truth, info)
    }  # fmt: skip


def absent_classes(prediction: Prediction, truth: Truth, info: Any) -> list[str]:
    """Names of the classes that are in neither label nor prediction."""
    _, absent = compute_dice(prediction.labels, truth.label, info.num_classes, ignore_index=info.ignore_index)
    return [info.class_names[c] for c in range(1, info.num_classes) if bool(absent[0, c - 1])]


def _slice_rows(
    name: str, prediction: Prediction, noisy: Sequence[Tensor], truth: Truth, info: Any
) -> list[dict[str, Any]]:
    axis = info.slice_axis
    rows = []
    for number in range(truth.label.shape[axis + 1]):
        rows.append(
            _row(
                f"{name} slice {number}",
                prediction.slice(axis, number),
                [u.select(axis + 1, number) for u in noisy],
                truth.slice(axis, number),
                info,
            )
        )
    return rows
