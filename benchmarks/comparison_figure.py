"""What docs/results.md shows of a comparison beside its tables, from the folder that `compare` left:
python -m benchmarks.comparison_figure RESULTS --figure docs/hippocampus.png [--presets evidential,sure,dense]

A figure: slices of the first cases with the errors and the uncertainty of every method, on one scale. Printed: the
methods under every corruption, and where the wrong voxels lie by the image gradient (with --data DATA).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sure_fast.comparison.tables import typeset
from sure_fast.data import CORRUPTIONS, discover
from sure_fast.engine import checkpoint, slices
from sure_fast.engine.evaluation import load_truth
from sure_fast.methods import METHODS

MARGIN = 0.12
"""Around the label, as a share of the slice."""
METRICS = {"dice": "Dice ↑", "auroc": "AUROC ↑", "ece": "ECE ↓", "ucc_g": "UCC_g ↓", "ood_auroc": "OOD AUROC ↑"}
QUARTILES = (0.25, 0.5, 0.75)


def around(image: np.ndarray, label: np.ndarray) -> tuple[slice, slice]:
    """Where the label's colours lie, and a margin."""
    spans = []
    coloured = (abs(image - label) > 0.05).any(2)  # more than the rounding of two grey levels
    for axis in (0, 1):
        (at,) = np.nonzero(coloured.any(1 - axis))
        size = image.shape[axis]
        margin = round(MARGIN * size)
        spans.append(slice(max(0, at.min() - margin), at.max() + margin) if len(at) else slice(0, size))
    return spans[0], spans[1]


def figure(results: Path, presets: Sequence[str], seed: int, cases: int, path: Path) -> None:
    """Two rows a case: image and errors of every method; label and uncertainty of every method."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    folders = [results / f"{preset}-seed{seed}" for preset in presets]
    names = json.loads((folders[0] / "curves.json").read_text(encoding="utf-8"))["slices"][:cases]

    def picture(folder: Path, name: str, kind: str) -> np.ndarray:
        return imread(folder / "slices" / f"{name}-{kind}.png")[..., :3]

    drawn = Figure(figsize=(1.3 * (len(presets) + 1) + 0.6, 2.75 * len(names) + 0.3), layout="constrained")
    axes = drawn.subplots(2 * len(names), len(presets) + 1, squeeze=False)
    for k, name in enumerate(names):
        image, label = (picture(folders[0], name, kind) for kind in ("image", "label"))
        part = around(image, label)
        for row, first, kind in ((axes[2 * k], image, "errors"), (axes[2 * k + 1], label, "uncertainty")):
            for axis, shown in zip(row, [first, *(picture(folder, name, kind) for folder in folders)], strict=True):
                axis.imshow(shown[part], interpolation="nearest")
                axis.set(xticks=[], yticks=[])
        axes[2 * k, 0].set_ylabel(name.removesuffix("_0000"), fontsize=6)
    for axis, title in zip(axes[0], ["image, label", *(METHODS[preset].title for preset in presets)], strict=True):
        axis.set_title(title, fontsize=8)
    scale = ScalarMappable(slices.uncertainty_norm(), slices.UNCERTAINTY)
    bar = drawn.colorbar(scale, ax=axes, location="right", shrink=0.4, aspect=25, label="uncertainty u")
    bar.set_ticks(slices.TICKS, labels=[f"{tick:g}" for tick in slices.TICKS])
    drawn.savefig(path, dpi=110)


def under_corruption(summary: dict[str, Any], presets: Sequence[str]) -> str:
    """A table of `METRICS` for every corruption that the sweep has."""
    found = {(p, r["kind"], r["severity"], r["metric"]): r["mean"] for p in presets for r in summary["robustness"][p]}
    heads = [
        f"{title if preset == presets[0] else ''} {METHODS[preset].title}".strip()
        for title in METRICS.values()
        for preset in presets
    ]
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for kind, severity in dict.fromkeys((kind, severity) for _, kind, severity, _ in found):
        corruption = CORRUPTIONS.get(kind)
        title = (
            f"{corruption.title.lower()}, {corruption.severities[severity - 1]:g} {corruption.unit}"
            if corruption
            else kind
        )
        values = (found[preset, kind, severity, metric] for metric in METRICS for preset in presets)
        lines.append(f"| {title} | " + " | ".join(typeset(value) for value in values) + " |")
    return "\n".join(lines)


def errors(run: Path, data: Path) -> str:
    """Share of the wrong voxels in the band d <= 1, and by quartile of the gradient there, with their mean u."""
    predictor, content = checkpoint.load_predictor(run / "checkpoints" / "last.pt")
    names = json.loads((run / "split.json").read_text(encoding="utf-8"))["test"]
    cases = discover(data, label_map=content["config"].data.label_map or None)
    inside, rows = [], []
    for case in (case for case in cases if case.name in names):
        truth = load_truth(case, cases.info, torch.device("cpu"))
        found = predictor(truth.image, truth.place)
        wrong, u = (found.labels != truth.label)[0], found.uncertainty[0]
        band, g = truth.distance[0] <= 1, truth.gradient[0]
        if not (wrong & band).any():
            continue
        inside.append(float((wrong & band).sum() / wrong.sum()))
        quartile = torch.bucketize(g, torch.quantile(g[band], torch.tensor(QUARTILES)))
        parts = [band & (quartile == k) for k in range(4)]
        rows.append([[float((wrong & p).sum() / (wrong & band).sum()), float(u[wrong & p].mean())] for p in parts])
    shares, uncertain = np.nanmean(rows, axis=0).T
    return (
        f"{np.mean(inside):.3f} of the wrong voxels in the band; by quartile of the gradient: "
        f"{', '.join(f'{x:.3f}' for x in shares)}; their u: {', '.join(f'{x:.3f}' for x in uncertain)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--figure", type=Path, required=True)
    parser.add_argument("--presets", help="comma-separated (default: all of the comparison)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=3)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    summary = json.loads((options.results / "results.json").read_text(encoding="utf-8"))
    presets = options.presets.split(",") if options.presets else summary["presets"]
    if any(summary["robustness"].values()):
        print(under_corruption(summary, presets))
    for preset in presets if options.data else ():
        print(f"{preset}: {errors(options.results / f'{preset}-seed{options.seed}', options.data)}")
    figure(options.results, presets, options.seed, options.cases, options.figure)


if __name__ == "__main__":
    main()
