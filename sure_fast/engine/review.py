"""In which order a person should look at predictions, and where in each: review.csv."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data import load_case, read_image, read_label
from ..data.resampling import Place
from ..metrics import compute_case_uncertainty, compute_dice
from . import console, distributed
from .files import write_table, write_text
from .prediction import Prediction, home

TABLE = "review.csv"
VALIDATION = "validation.json"
"""Of a run: what its weights say of the validation cases, which others are held against."""
LEVEL = 0.5
"""From which u counts as uncertain where no validation case says better."""


class Validation(NamedTuple):
    """What a network says of its validation cases."""

    checkpoint: str
    """Fingerprint of the weights."""
    case_uncertainty: dict[str, float]
    dice: dict[str, float]
    level: float
    """The median over the cases of the median u of their wrong voxels: as uncertain as an error is."""

    def percentile(self, uncertainty: float) -> float:
        """Share in % of the validation cases that are less uncertain, equal ones counting half; NaN without any."""
        known = np.array([u for u in self.case_uncertainty.values() if not math.isnan(u)])
        if not len(known) or math.isnan(uncertainty):
            return math.nan
        return float(100 * ((known < uncertainty).mean() + (known == uncertainty).mean() / 2))

    def write(self, folder: Path) -> None:
        plain = {name: {case: None if math.isnan(x) else x for case, x in values.items()}
                 for name, values in (("case_uncertainty", self.case_uncertainty), ("dice", self.dice))}  # fmt: skip
        content = {"checkpoint": self.checkpoint, "level": self.level, **plain}
        write_text(folder / VALIDATION, json.dumps(content, indent=1))


def read(folder: Path, checkpoint: str) -> tuple[Validation, str | None]:
    """What a run says of its validation cases; where it is not of these weights, none of them, and why."""
    nothing = Validation(checkpoint, {}, {}, LEVEL)
    try:
        content = json.loads((folder / VALIDATION).read_text(encoding="utf-8"))
        uncertainty, dice = (
            {case: math.nan if x is None else float(x) for case, x in content[name].items()}
            for name in ("case_uncertainty", "dice")
        )
        found = Validation(str(content["checkpoint"]), uncertainty, dice, float(content["level"]))
    except FileNotFoundError:
        return nothing, f"{folder / VALIDATION} is not there"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return nothing, f"{folder / VALIDATION} is damaged"
    return (found, None) if found.checkpoint == checkpoint else (nothing, f"{folder / VALIDATION} is of other weights")


def validate(
    predictor: Callable[[torch.Tensor, Place | None], Prediction],
    cases: Sequence[Any],
    checkpoint: str,
    *,
    info: Any,
    device: torch.device,
    progress: bool = True,
) -> Validation:
    """Predicts the validation cases; of several ranks each predicts its share, and all get the same."""
    own: dict[str, tuple[float, float, float]] = {}
    shown = progress and distributed.is_main()
    for case in console.bar(distributed.share(cases), "validation cases", "case", shown=shown):
        sample = load_case(case, normalized=True)
        assert sample.label is not None
        where = home(device, sample.label.shape, info.num_classes)
        label = sample.label[None].to(where)
        prediction = predictor(sample.image[None].to(where), sample.place)
        if prediction.spoiled:
            own[case.name] = math.nan, math.nan, math.nan
            continue
        wrong = prediction.labels != label
        if info.ignore_index is not None:
            wrong &= label != info.ignore_index
        dice = compute_dice(prediction.labels, label, info.num_classes, ignore_index=info.ignore_index)[0]
        own[case.name] = (
            float(compute_case_uncertainty(prediction.uncertainty, prediction.labels)),
            float(dice.mean()),
            float(prediction.uncertainty[wrong].median()) if wrong.any() else math.nan,
        )
    rows = {name: row for part in distributed.gather(own) for name, row in part.items()}
    rows = {case.name: rows[case.name] for case in cases}
    levels = [level for _, _, level in rows.values() if not math.isnan(level)]
    level = float(np.median(levels)) if levels else LEVEL
    uncertainty, dice_of = ({name: row[k] for name, row in rows.items()} for k in (0, 1))
    return Validation(checkpoint, uncertainty, dice_of, level)


class Row(NamedTuple):
    """One predicted case."""

    case: str
    case_uncertainty: float
    percentile: float
    region_size: float
    """Of the largest connected region of uncertain voxels, in ml, of pictures in pixels."""
    region_uncertainty: float
    """The largest u in it, at the place that follows."""
    place: tuple[float, ...]
    """In mm of the scanner (x to the right, y to the front, z to the head); of pictures column and row."""


def row_of(
    case: str, segmentation: np.ndarray, uncertainty: np.ndarray, affine: np.ndarray | None, validation: Validation
) -> Row:
    """What is to be known of a case.

    Args:
        segmentation: class numbers [*S]. uncertainty: [*S]. affine: 4×4, voxel to mm; None: a picture.
    """
    from scipy import ndimage

    u = torch.from_numpy(np.ascontiguousarray(uncertainty, dtype=np.float64))[None]
    of_case = float(compute_case_uncertainty(u, torch.from_numpy(segmentation.astype(np.int64))[None]))
    regions, number = ndimage.label(uncertainty >= validation.level)
    if not number:
        size, at = 0.0, np.unravel_index(int(np.argmax(uncertainty)), uncertainty.shape)
    else:
        sizes = np.bincount(regions.ravel())[1:]
        inside = np.where(regions == int(sizes.argmax()) + 1, uncertainty, -1.0)
        size, at = float(sizes.max()), np.unravel_index(int(inside.argmax()), inside.shape)
    place: tuple[float, ...] = tuple(float(k) for k in reversed(at))
    if affine is not None:
        index = np.array([*at, *[0] * (3 - len(at)), 1], dtype=np.float64)
        place = tuple(float(x) for x in (affine @ index)[:3])
        size *= abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    return Row(case, of_case, validation.percentile(of_case), size, float(uncertainty[at]), place)


def row_of_files(case: str, segmentation: Path, uncertainty: Path, validation: Validation) -> Row:
    """The same of a prediction as it was written."""
    label, _ = read_label(segmentation)
    u, grid = read_image(uncertainty)
    scale = 65535.0 if grid.affine is None else 1.0  # a picture of 16 bits
    # where every region has a map of its own, the most uncertain one counts
    return row_of(case, label, u.max(0) / scale, grid.affine, validation)


def write(folder: Path, rows: Sequence[Row], validation: Validation | None = None) -> list[Row]:
    """review.csv, the most uncertain case first, and the validation cases that they are held against, so that
    sure_fast.view finds the same places; returns the rows in that order."""
    if validation is not None and validation.case_uncertainty:
        validation.write(folder)
    ordered = sorted(rows, key=lambda row: (-row.case_uncertainty, row.case))
    pictures = all(len(row.place) == 2 for row in rows)
    unit, axes = ("px", ("column", "row")) if pictures else ("ml", ("x_mm", "y_mm", "z_mm"))
    lines = []
    for row in ordered:
        # of pictures among volumes, which have no mm, these cells are empty
        measured = [row.region_size, row.region_uncertainty, *row.place]
        if len(row.place) != len(axes):
            measured = [math.nan, row.region_uncertainty, *[math.nan] * len(axes)]
        numbers = (row.case_uncertainty, row.percentile, *measured)
        lines.append([row.case, *(float(f"{number:.6g}") for number in numbers)])
    head = ["case", "case_uncertainty", "percentile", f"region_{unit}", "region_uncertainty", *axes]
    write_table(folder / TABLE, [head, *lines])
    return ordered


def describe(folder: Path, ordered: Sequence[Row], number: int = 3) -> str:
    """One line: which cases to look at first."""
    first = ", ".join(
        f"{row.case} (u {row.case_uncertainty:.3g}"
        + ("" if math.isnan(row.percentile) else f", above {row.percentile:.0f} % of the validation cases")
        + ")"
        for row in ordered[:number]
    )
    more = f" and {len(ordered) - number} more" if len(ordered) > number else ""
    return f"to look at first: {first}{more}; {folder / TABLE} has all in this order"
