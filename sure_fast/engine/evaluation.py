"""Evaluation of a network case by case: segmentation, calibration and uncertainty metrics."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ..data import load_case
from ..metrics import (
    Statistics,
    compute_dice,
    compute_surface_metrics,
    compute_uncertainty_metrics,
    dice_of_stats,
    ece_of_stats,
    gradient_and_distance,
    summarize,
)
from ..ops.dirichlet_uncertainty import dirichlet_uncertainty
from ..ops.segmentation_stats import segmentation_stats
from .pictures import save_case

LEVELS = (0.1, 0.9)
NOISE_STD = 0.3
UNCERTAINTY = ("ucc_g", "ucc_d", "ucc_noise", "ur_g", "ur_d", "ur_noise")
_PICTURES = 4


@dataclass
class EvaluationResult:
    """Metrics per case, and their mean over the cases where they are defined."""

    class_names: dict[int, str]
    per_case: list[dict[str, Any]] = field(default_factory=list)

    def metrics(self) -> list[str]:
        return [key for key, value in self.per_case[0].items() if isinstance(value, float)] if self.per_case else []

    @property
    def statistics(self) -> dict[str, Statistics]:
        """Mean, standard deviation, bootstrap interval and number of undefined cases of every metric."""
        return {metric: summarize(case[metric] for case in self.per_case) for metric in self.metrics()}

    @property
    def mean(self) -> dict[str, float]:
        return {metric: found.mean for metric, found in self.statistics.items()}

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
            "per_case": [plain(case) for case in self.per_case],
        }


def predictor(model: nn.Module, patch_size: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Logits of a whole image [1, K, *S]: sliding windows of the training crop, blended with a Gaussian."""
    from monai.inferers.utils import sliding_window_inference

    def predict(image: Tensor) -> Tensor:
        missing = [max(0, p - s) for p, s in zip(patch_size, image.shape[2:], strict=True)]
        before = [m // 2 for m in missing]
        pad = [n for b, m in zip(reversed(before), reversed(missing), strict=True) for n in (b, m - b)]
        whole = functional.pad(image, pad, mode="replicate") if any(missing) else image
        logits = sliding_window_inference(whole, tuple(patch_size), 4, model, overlap=0.5, mode="gaussian")
        for axis, (start, size) in enumerate(zip(before, image.shape[2:], strict=True)):
            logits = logits.narrow(axis + 2, start, size)  # type: ignore[union-attr]
        return logits  # type: ignore[return-value]

    return predict


@torch.no_grad()
def validation_dice(
    model: nn.Module, cases: Sequence[Any], *, info: Any, patch_size: Sequence[int], device: torch.device
) -> dict[str, float]:
    """Mean Dice per foreground class over the cases, and their mean as "mean"."""
    if not cases:
        raise ValueError("cases: expected at least one to validate on, got none")
    training = model.training
    model.eval()
    predict = predictor(model, patch_size)
    rows = []
    for case in cases:
        sample = load_case(case, normalized=True)
        assert sample.label is not None
        prediction, label = predict(sample.image[None].to(device)).argmax(1), sample.label[None].to(device)
        rows.append(compute_dice(prediction, label, info.num_classes, ignore_index=info.ignore_index)[0][0])
    model.train(training)
    dice = torch.stack(rows).mean(0).cpu()
    names = [info.class_names[c] for c in range(1, info.num_classes)]
    return {**dict(zip(names, dice.tolist(), strict=True)), "mean": float(dice.mean())}


def case_generator(name: str, seed: int) -> torch.Generator:
    """Noise of a case follows from its name and the seed alone, not from the order or number of cases."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


@torch.no_grad()
def evaluate_cases(
    model: nn.Module,
    cases: Sequence[Any],
    *,
    info: Any,
    patch_size: Sequence[int],
    evidence: str = "softplus",
    device: torch.device,
    seed: int = 0,
    progress: bool = True,
    pictures: Path | None = None,
) -> EvaluationResult:
    """Evaluates every case: Dice, HD95 and ASSD in mm, NSD at 1 mm, ECE; UCC and UR of the three principles.

    The noisy images of UCC and UR carry noise of mean 0.1 and 0.9, standard deviation 0.3, over the whole image.
    Voxels of the label `info.ignore_index` enter nothing.
    Pictures of the first few cases are written to `pictures` where it is given.

    Raises:
        ValueError: no case, or one without a label.
    """
    if not cases:
        raise ValueError("cases: expected at least one to evaluate, got none")
    model.eval()
    predict = predictor(model, patch_size)
    classes = info.num_classes
    unlabelled = [case for case in cases if case.label is None]
    if unlabelled:
        raise ValueError(f"{unlabelled[0].image}: evaluation needs a label, and the case has none")
    result = EvaluationResult(dict(info.class_names))
    for number, case in enumerate(tqdm(cases, desc="evaluate", unit="case", disable=not progress)):
        sample = load_case(case, normalized=True)
        assert sample.label is not None  # checked above
        image, label = sample.image[None].to(device), sample.label[None].to(device)
        logits = predict(image)
        prediction = logits.argmax(1)
        stats = segmentation_stats(logits, label, evidence=evidence, ignore_index=info.ignore_index)
        uncertainty = dirichlet_uncertainty(logits, evidence=evidence)[:, 0]
        generator = case_generator(case.name, seed)
        noisy = []
        for level in LEVELS:
            noise = torch.randn(image.shape, generator=generator).to(device) * NOISE_STD + level
            noisy.append(dirichlet_uncertainty(predict(image + noise), evidence=evidence)[:, 0])
        gradient, distance = gradient_and_distance(image, label, ignore_index=info.ignore_index)
        maps = compute_uncertainty_metrics(uncertainty, gradient, distance, noisy[0], noisy[1], levels=LEVELS)
        ece, top_label_ece = ece_of_stats(stats)[0], ece_of_stats(stats, top_label=True)
        dice, absent = dice_of_stats(stats)
        surface = compute_surface_metrics(prediction, label, classes, sample.spacing_mm, ignore_index=info.ignore_index)
        row: dict[str, Any] = {"case": case.name}
        for c in range(1, classes):
            name = info.class_names[c]
            row[f"dice/{name}"] = float(dice[0, c - 1])
            row[f"hd95_mm/{name}"] = float(surface.hd95_mm[0, c - 1])
            row[f"assd_mm/{name}"] = float(surface.assd_mm[0, c - 1])
            row[f"nsd/{name}"] = float(surface.nsd[0, c - 1])
            row[f"ece/{name}"] = float(ece[c])
        row.update(dice=float(dice.mean()), hd95_mm=float(surface.hd95_mm.mean()))
        row.update(assd_mm=float(surface.assd_mm.mean()), nsd=float(surface.nsd.mean()), ece=float(top_label_ece))
        row.update({name: float(maps[name][0]) for name in UNCERTAINTY})
        row["absent"] = [info.class_names[c] for c in range(1, classes) if bool(absent[0, c - 1])]
        result.per_case.append(row)
        if pictures is not None and number < _PICTURES:
            volumes = [x[0].cpu() for x in (image[:, 0], label, prediction, uncertainty, gradient)]
            save_case(
                pictures / f"{case.name}.png", *volumes, spacing_mm=sample.spacing_mm, class_names=info.class_names
            )
    return result
