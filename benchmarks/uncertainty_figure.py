"""The figure of the README, from runs that `compare` left: python -m benchmarks.uncertainty_figure DATA RESULTS

RESULTS holds runs of `evidential` and `sure`, seed 0, on DATA. The test case is shown whose UCC_g changed by the
median: the image with its label, the image gradient, u of both networks on one scale, and over all test cases the
mean rank of u at the boundary against the image gradient there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sure_fast.comparison.curves import GRADIENT_BINS
from sure_fast.data import discover
from sure_fast.engine import checkpoint, slices
from sure_fast.engine.evaluation import load_truth

PRESETS = {"evidential": "u, not supervised", "sure": "u, supervised"}
COLOURS = {"evidential": "#1f77b4", "sure": "#d62728"}
MARGIN = 9
"""Pixels around the label."""


def around(label: np.ndarray) -> tuple[slice, slice]:
    """A square that holds the foreground of a plane and a margin, as far as the plane goes."""
    rows, columns = np.nonzero(label > 0)
    half = max(np.ptp(rows), np.ptp(columns)) // 2 + MARGIN
    middle = (int(rows.min() + rows.max()) // 2, int(columns.min() + columns.max()) // 2)
    rows_shown, columns_shown = (slice(max(0, m - half), m + half) for m in middle)
    return rows_shown, columns_shown


def median_case(results: Path) -> str:
    """The test case whose UCC_g changed by the median."""
    tables = []
    for preset in PRESETS:
        content = json.loads((results / f"{preset}-seed0" / "results.json").read_text(encoding="utf-8"))
        tables.append({case["case"]: case["ucc_g"] for case in content["per_case"]})
    changes = sorted((tables[1][name] - tables[0][name], name) for name in tables[0])
    return changes[len(changes) // 2][1]


def draw_curves(axis: Any, results: Path) -> None:
    for preset, title in PRESETS.items():
        curve = json.loads((results / f"{preset}-seed0" / "curves.json").read_text(encoding="utf-8"))["gradient"]
        x = [(k + 0.5) / GRADIENT_BINS for k in range(len(curve))]
        axis.plot(x, curve, marker="o", markersize=3, color=COLOURS[preset], label=title)
    axis.set(xlabel="boundary voxels by gradient, weakest first", ylabel="mean rank of u", xlim=(0, 1), ylim=(0, 1))
    axis.set_title("all test cases")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)


def main() -> None:
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/uncertainty.png"))
    options = parser.parse_args()
    found = discover(options.data)
    name = median_case(options.results)
    truth = load_truth(next(case for case in found if case.name == name), found.info, torch.device("cpu"))
    predictors = (checkpoint.load_predictor(options.results / f"{preset}-seed0")[0] for preset in PRESETS)
    maps = [predictor(truth.image, truth.place).uncertainty[0].numpy() for predictor in predictors]
    label = truth.label[0].numpy()
    view = slices.view_of(label, maps[0], truth.spacing_mm, truth.orientation)
    place = around(view.cut(label))
    outline = view.cut(label)[place]
    figure = Figure(figsize=(14.5, 3.3), layout="constrained")
    axes = figure.subplots(1, 5, width_ratios=(1, 1, 1, 1, 1.35))
    volumes = (truth.image[0, 0].numpy(), truth.gradient[0].numpy(), *maps)
    top = max(float(view.cut(u)[place].max()) for u in maps)
    styles = ({"cmap": "gray"}, {"cmap": "viridis"}, *[{"cmap": "magma", "vmin": 0.0, "vmax": top}] * 2)
    titles = ("image and label", "image gradient", *PRESETS.values())
    for axis, volume, style, title in zip(axes, volumes, styles, titles, strict=False):
        drawn = axis.imshow(view.cut(volume)[place], aspect=view.aspect, **style)
        for number in range(1, int(label.max()) + 1):
            axis.contour(outline == number, levels=[0.5], colors="white", linewidths=0.8)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title)
    figure.colorbar(drawn, ax=axes[2:4], shrink=0.9)
    draw_curves(axes[4], options.results)
    figure.savefig(options.output, dpi=80)
    print(f"{options.output}: {name}")


if __name__ == "__main__":
    main()
