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

TITLES = {
    "total": "total loss",
    "data": "data term",
    "kl": "KL term",
    "dice": "Dice term",
    "gradient": "L_gu (gradient-uncertainty)",
    "order": "L_nu, order term",
    "distance": "L_nu, distance term",
    "far": "L_nu, far term",
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
    spacing_mm: Sequence[float],
    class_names: dict[int, str],
) -> None:
    """Image, label, prediction, uncertainty and image gradient side by side, on the slice with most foreground."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    maps = [x.numpy() for x in (image, label, prediction, uncertainty, gradient)]
    spacing = list(spacing_mm)
    if maps[0].ndim == 3:
        # NIfTI axes are x, y, z: an axial slice, turned so that the second axis points up.
        index = int((maps[1] > 0).sum((0, 1)).argmax())
        maps = [np.rot90(x[:, :, index]) for x in maps]
        aspect, where = spacing[1] / spacing[0], f", slice {index}"
    else:
        aspect, where = spacing[0] / spacing[1], ""
    shown, truth, predicted, u, g = maps
    classes = max(class_names) + 1
    palette = np.array([[0, 0, 0, 0], *_colours(classes - 1)])
    colours = ListedColormap(palette)
    height = 3.3 * shown.shape[0] * aspect / shown.shape[1]
    figure = Figure(figsize=(17.5, max(2.4, height) + 0.9), layout="constrained")
    axes = figure.subplots(1, 5)
    low, high = np.percentile(shown, [1, 99])
    grey = {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-6), "aspect": aspect}
    for axis, title in zip(axes, ("image", "label", "prediction", "uncertainty", "image gradient"), strict=True):
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].imshow(shown, **grey)
    for axis, classes_map in ((axes[1], truth), (axes[2], predicted)):
        axis.imshow(shown, **grey)
        overlay = {"cmap": colours, "vmin": -0.5, "vmax": classes - 0.5, "alpha": 0.6, "interpolation": "nearest"}
        axis.imshow(classes_map, aspect=aspect, **overlay)
    for axis, values, name in ((axes[3], u, "magma"), (axes[4], g, "viridis")):
        drawn = axis.imshow(values, cmap=name, vmin=0, aspect=aspect)
        figure.colorbar(drawn, ax=axis, shrink=0.85)
        if (truth > 0).any():
            axis.contour(truth > 0, levels=[0.5], colors="white", linewidths=0.6)
    handles = [Patch(color=palette[c], label=class_names[c]) for c in sorted(class_names) if c > 0]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(f"{path.stem}{where}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def _colours(count: int) -> list[tuple[float, float, float, float]]:
    from matplotlib import colormaps

    cycle = colormaps["tab10"]
    return [cycle(i % 10) for i in range(count)]


def save_curves(metrics_jsonl: Path, folder: Path) -> None:
    """Mean loss terms per epoch and validation Dice, as losses.png."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

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
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
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
