"""Pictures of a case and of a training run, drawn with matplotlib without a display."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..data.corruptions import CORRUPTIONS
from . import slices

TITLES = {
    "total": "total loss",
    "data": "data term",
    "kl": "KL term",
    "dice": "Dice term",
    "gradient": "L_gu (gradient-uncertainty)",
    "noise": "L_nu (noise-uncertainty)",
    "order": "L_nu, order term",
    "distance": "L_nu, distance term",
    "far": "L_nu, far term",
    "noisy": "L_nu, segmentation of noisy copies",
    "cross_entropy": "cross-entropy",
    "calibration": "DEviS, calibration term",
    "contrast": "PriUS, contrast",
    "corruption": "PriUS, corruption",
    "geometry": "PriUS, geometry",
}

BASIC = ("total", "data", "kl", "dice", "cross_entropy")
"""Terms that apply in every epoch; the others are drawn from the epoch on where they do."""


def save_case(
    path: Path,
    image: Tensor,
    label: Tensor,
    prediction: Tensor,
    uncertainty: Tensor,
    gradient: Tensor,
    *,
    spacing: Sequence[float],
    class_names: dict[int, str],
    orientation: str | None = None,
) -> None:
    """Image, label, prediction, its errors, uncertainty and image gradient of one slice side by side; maps [*S]."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    arrays = [x.numpy() for x in (image, label, prediction, uncertainty, gradient)]
    view = slices.view_of(arrays[1], arrays[3], spacing, orientation)
    shown, truth, predicted, u, g = (view.cut(x) for x in arrays)
    classes = max(class_names) + 1
    palette = slices.palette(classes)
    height = 2.9 * min(3.0, max(0.3, shown.shape[0] * view.aspect / shown.shape[1]))
    figure = Figure(figsize=(18.5, height + 0.9), layout="constrained")
    axes = figure.subplots(1, 6)
    low, high = slices.grey_limits(shown)
    titles = ("image", "label", "prediction", "errors", "uncertainty (0 to 1)", "image gradient")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in axes[:4]:
        axis.imshow(shown, cmap="gray", vmin=low, vmax=high, aspect=view.aspect)
    clear = ListedColormap([(0, 0, 0, 0), *palette[1:]])
    overlay = {"vmin": -0.5, "vmax": classes - 0.5, "alpha": 0.6, "interpolation": "nearest", "aspect": view.aspect}
    for axis, numbers in ((axes[1], truth), (axes[2], predicted)):
        axis.imshow(np.where((numbers >= 0) & (numbers < classes), numbers, 0), cmap=clear, **overlay)
    errors = slices.wrong(predicted, truth, classes)
    axes[3].imshow(
        errors, cmap=ListedColormap([(0, 0, 0, 0), slices.WRONG]), aspect=view.aspect, interpolation="nearest"
    )
    for axis, values, options in (
        (axes[4], u, {"cmap": slices.UNCERTAINTY, "norm": slices.uncertainty_norm()}),
        (axes[5], g, {"cmap": "viridis", "vmin": 0}),
    ):
        drawn = axis.imshow(values, aspect=view.aspect, **options)
        bar = figure.colorbar(drawn, ax=axis, shrink=0.85)
        if values is u:
            bar.set_ticks(slices.TICKS, labels=[f"{tick:g}" for tick in slices.TICKS])
        if min(truth.shape) > 1 and (truth > 0).any() and not (truth > 0).all():
            axis.contour(truth > 0, levels=[0.5], colors="white", linewidths=0.6)
    _letter(axes[0], view.letters)
    handles = [Patch(color=palette[c], label=class_names[c]) for c in sorted(class_names) if c > 0]
    handles.append(Patch(color=slices.WRONG, label="wrong"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 10), frameon=False)
    figure.suptitle(f"{path.stem}, {view.title}" if view.title else path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def _letter(axis: Any, letters: Sequence[str]) -> None:
    """Where the patient's left, right, front, back, head and feet are."""
    edges = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"), (0.5, 0.98, "center", "top"),
              (0.5, 0.02, "center", "bottom"))  # fmt: skip
    for letter, (x, y, horizontal, vertical) in zip(letters, edges, strict=True):
        axis.text(x, y, letter, color="yellow", transform=axis.transAxes, ha=horizontal, va=vertical)


def save_curves(metrics_jsonl: Path, folder: Path) -> None:
    """Mean loss terms per epoch and validation Dice, as losses.png."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    sums: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    validation: list[tuple[int, float]] = []
    for line in metrics_jsonl.read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == "step":
            for term in TITLES.keys() & row.keys():
                sums[term][row["epoch"]].append(row[term])
        elif row.get("val_dice") is not None:
            validation.append((row["epoch"], row["val_dice"]))
    drawn = [term for term in TITLES if any(any(values) for values in sums[term].values())]
    columns = 4
    panels = len(drawn) + bool(validation)
    rows = max(1, -(-panels // columns))
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, term in zip(axes, drawn, strict=False):
        epochs = [e for e, values in sums[term].items() if term in BASIC or any(values)]
        axis.plot(epochs, [float(np.mean(sums[term][e])) for e in epochs], marker="o" if len(epochs) < 4 else None)
        axis.set_title(TITLES[term])
    if validation:
        axes[len(drawn)].plot(*zip(*validation, strict=True), color="tab:green", marker="o", markersize=3)
        axes[len(drawn)].set_title("validation Dice")
    for axis in axes[:panels]:
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axis.grid(alpha=0.3)
    for axis in axes[panels:]:
        axis.remove()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "losses.png", dpi=90)


def save_robustness(path: Path, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Curves of the main metrics against severity: a column a corruption, a line with its interval a table."""
    from matplotlib.figure import Figure

    metrics = {"dice": "Dice", "ece": "ECE", "ueo": "UEO", "mean_uncertainty": "mean u", "ucc_g": "UCC_g"}
    some = next(iter(tables.values()))
    kinds = [kind for kind in CORRUPTIONS if any(row["kind"] == kind for row in some)]
    figure = Figure(figsize=(2.7 * max(len(kinds), 2), 2.1 * len(metrics) + 0.6), layout="constrained")
    axes = figure.subplots(len(metrics), len(kinds), squeeze=False, sharex="col", sharey="row")
    for column, kind in enumerate(kinds):
        for row, (metric, title) in enumerate(metrics.items()):
            axis = axes[row, column]
            for number, (name, table) in enumerate(tables.items()):
                points = [r for r in table if r["metric"] == metric and r["kind"] in ("clean", kind)]
                severity = [r["severity"] for r in points]
                colour = f"C{number % 10}"
                axis.plot(severity, [r["mean"] for r in points], marker="o", markersize=3, color=colour, label=name)
                low, high = ([r[end] for r in points] for end in ("low", "high"))
                axis.fill_between(severity, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.grid(alpha=0.3)
            if row == 0:
                axis.set_title(CORRUPTIONS[kind].title)
            if column == 0:
                axis.set_ylabel(title)
        levels = CORRUPTIONS[kind].severities
        axes[-1, column].set_xticks(range(len(levels) + 1), ["clean", *(f"{level:g}" for level in levels)], fontsize=8)
        axes[-1, column].set_xlabel(CORRUPTIONS[kind].unit)
    if len(tables) > 1:
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 8), frameon=False)
    figure.savefig(path, dpi=110)
