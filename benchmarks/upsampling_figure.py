"""Two uncertainty maps of one case: python -m benchmarks.upsampling_figure DATA BEFORE AFTER --output FIGURE

BEFORE and AFTER are runs on DATA with the same cases, evaluated on those of the validation into a folder val. Shown is
the case with the median Dice of AFTER, and below each map its roughness far from boundaries, where u should be smooth:
the mean difference of u from the mean of its two neighbours along an axis, relative to the mean of u.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from sure_fast.data import discover
from sure_fast.engine import checkpoint, slices
from sure_fast.engine.evaluation import load_truth

from .uncertainty_figure import around

CPU = torch.device("cpu")
FAR = 4.0
"""Voxels from the nearest boundary."""


def roughness(u: np.ndarray, far: np.ndarray) -> float:
    """How much u differs from the mean of its two neighbours along an axis, where `far` says, relative to u: a mean."""
    found = []
    for axis in range(u.ndim):
        before, at, behind = (np.take(u, range(k, u.shape[axis] - 2 + k), axis) for k in range(3))
        counts = np.take(far, range(1, u.shape[axis] - 1), axis)
        found.append(np.abs(at - (before + behind) / 2)[counts].mean() / at[counts].mean())
    return float(np.mean(found))


def middle_case(run: Path) -> str:
    """The validation case with the median Dice."""
    rows = json.loads((run / "val" / "results.json").read_text(encoding="utf-8"))["per_case"]
    return sorted((row["dice"], row["case"]) for row in rows)[len(rows) // 2][1]


def main() -> None:
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/upsampling.png"))
    options = parser.parse_args()
    found = discover(options.data)
    name = middle_case(options.after)
    case = next(case for case in found if case.name == name)
    figure = Figure(figsize=(11, 3.7), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, run, title in zip(axes[1:], (options.before, options.after), ("before", "after"), strict=True):
        predictor, content = checkpoint.load_predictor(run, CPU)
        truth = load_truth(case, found.with_info(**content["plan"].preparation).info, CPU)
        u = predictor(truth.image, truth.place).uncertainty[0].numpy()
        label = truth.label[0].numpy()
        view = slices.view_of(label, u, truth.spacing_mm, truth.orientation)
        place = around(view.cut(label))
        drawn = axis.imshow(
            view.cut(u)[place], cmap=slices.UNCERTAINTY, norm=slices.uncertainty_norm(), aspect=view.aspect
        )
        found_roughness = 100 * roughness(u, truth.distance[0].numpy() > FAR)
        axis.set(
            xticks=[], yticks=[], title=f"u, {title}", xlabel=f"roughness far from boundaries {found_roughness:.1f} %"
        )
        print(f"{run}: {name}: roughness {found_roughness:.2f} %")
        if title == "after":
            outline = view.cut(label)[place]
            axes[0].imshow(view.cut(truth.image[0, 0].numpy())[place], cmap="gray", aspect=view.aspect)
            for number in range(1, int(label.max()) + 1):
                axes[0].contour(outline == number, levels=[0.5], colors="white", linewidths=0.8)
            axes[0].set(xticks=[], yticks=[], title="image and label")
    figure.colorbar(drawn, ax=axes[1:], shrink=0.9)
    figure.savefig(options.output, dpi=90)


if __name__ == "__main__":
    main()
