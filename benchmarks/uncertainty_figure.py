"""The figure of the README, from runs that `compare` left: python -m benchmarks.uncertainty_figure DATA RESULTS CASE...

RESULTS holds runs of `evidential` and `sure`, seed 0, on DATA; each CASE is one of the test cases, a row of the figure:
the image with its label, the image gradient, and u of both networks on one scale, all around the label.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from sure_fast.data import discover
from sure_fast.engine import checkpoint, slices
from sure_fast.engine.evaluation import load_truth

PRESETS = {"evidential": "u without supervision", "sure": "u supervised (SURE)"}
MARGIN = 18
"""Voxels around the label."""


def around(label: np.ndarray) -> tuple[slice, slice]:
    """A square that holds the foreground of a plane and a margin."""
    rows, columns = np.nonzero(label > 0)
    half = max(np.ptp(rows), np.ptp(columns)) // 2 + MARGIN
    middle = (int(rows.min() + rows.max()) // 2, int(columns.min() + columns.max()) // 2)
    return tuple(slice(max(0, m - half), m + half) for m in middle)  # type: ignore[return-value]


def main() -> None:
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--output", type=Path, default=Path("docs/uncertainty.png"))
    options = parser.parse_args()
    found = discover(options.data)
    by_name = {case.name: case for case in found}
    predictors = {name: checkpoint.load_predictor(options.results / f"{name}-seed0")[0] for name in PRESETS}
    rows = len(options.cases)
    figure = Figure(figsize=(11.5, 2.7 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, 4, squeeze=False)
    for row, name in zip(axes, options.cases, strict=True):
        truth = load_truth(by_name[name], found.info, torch.device("cpu"))
        uncertainty = [predictor(truth.image).uncertainty[0].numpy() for predictor in predictors.values()]
        volumes = [truth.image[0, 0].numpy(), truth.gradient.squeeze().numpy(), *uncertainty]
        label = truth.label[0].numpy()
        view = slices.view_of(label, uncertainty[0], truth.spacing_mm, truth.orientation)
        place = around(view.cut(label))
        for axis, volume, number in zip(row, volumes, range(4), strict=True):
            plane = view.cut(volume)[place]
            style = {"cmap": slices.UNCERTAINTY, "norm": slices.uncertainty_norm()} if number > 1 else {}
            colours = {0: "gray", 1: "viridis"}.get(number)
            drawn = axis.imshow(plane, aspect=view.aspect, **(style or {"cmap": colours}))
            axis.contour(
                view.cut(label)[place] > 0, levels=[0.5], colors="cyan" if number else "yellow", linewidths=0.8
            )
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], ("image and label", "image gradient", *PRESETS.values()), strict=True):
        axis.set_title(title)
    bar = figure.colorbar(drawn, ax=axes[:, 3], shrink=0.9)
    bar.set_ticks(slices.TICKS, labels=[f"{tick:g}" for tick in slices.TICKS])
    figure.savefig(options.output, dpi=90)


if __name__ == "__main__":
    main()
