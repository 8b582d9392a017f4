"""What docs/results.md says beside the tables of `compare`, from the runs it left:
python -m benchmarks.hippocampus DATA RESULTS --figure docs/results.png

Where the wrong voxels lie, by the image gradient; metrics under corruption, from RESULTS/results.json; three cases as a
figure. RESULTS holds runs of `evidential` and `sure`, seed 0, on DATA.
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
from sure_fast.engine import checkpoint
from sure_fast.engine.evaluation import Truth, load_truth
from sure_fast.engine.prediction import Predictor

CPU = torch.device("cpu")
PRESETS = ("evidential", "sure")
CASES, PICTURED = 20, 3
METRICS = {"dice": "Dice ↑", "ueo": "UEO ↑", "aurc": "AURC ↓", "ucc_g": "UCC_g ↓"}


def errors(predictor: Predictor, truths: Sequence[Truth]) -> str:
    """Share of the wrong voxels in the band d <= 1, and by quartile of the gradient there, with their u."""
    inside, rows = [], []
    for truth in truths:
        found = predictor(truth.image, truth.place)
        wrong, u = (found.labels != truth.label)[0], found.uncertainty[0]
        band, g = truth.distance[0] <= 1, truth.gradient[0]
        inside.append(float((wrong & band).sum() / wrong.sum()))
        quartile = torch.bucketize(g, torch.quantile(g[band], torch.tensor([0.25, 0.5, 0.75])))
        parts = [band & (quartile == k) for k in range(4)]
        rows.append([[float((wrong & p).sum() / (wrong & band).sum()), float(u[wrong & p].mean())] for p in parts])
    shares, uncertain = np.nanmean(rows, axis=0).T
    return (
        f"{np.mean(inside):.3f} of the wrong voxels in the band; by quartile of the gradient: "
        f"{', '.join(f'{x:.3f}' for x in shares)}; their u: {', '.join(f'{x:.3f}' for x in uncertain)}"
    )


def under_corruption(summary: dict[str, Any]) -> str:
    """A table of `METRICS` for every corruption that the sweep has."""
    found = {(p, r["kind"], r["severity"], r["metric"]): r["mean"] for p in PRESETS for r in summary["robustness"][p]}
    heads = [f"{title if preset == PRESETS[0] else ''} {preset}" for title in METRICS.values() for preset in PRESETS]
    lines = ["| | " + " | ".join(head.strip() for head in heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for kind, severity in dict.fromkeys((kind, severity) for _, kind, severity, _ in found):
        corruption = CORRUPTIONS.get(kind)
        title = (
            f"{corruption.title.lower()}, {corruption.severities[severity - 1]:g} {corruption.unit}"
            if corruption
            else kind
        )
        values = (found[preset, kind, severity, metric] for metric in METRICS for preset in PRESETS)
        lines.append(f"| {title} | " + " | ".join(typeset(value) for value in values) + " |")
    return "\n".join(lines)


def figure(predictors: dict[str, Predictor], truths: dict[str, Truth], path: Path) -> None:
    """Image, label, gradient and the uncertainty maps of the slice with most foreground."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = ("image", "label", "image gradient", *(f"u, {preset}" for preset in predictors))
    fig, axes = plt.subplots(len(truths), len(titles), figsize=(12, 7.6), constrained_layout=True)
    for row, (name, truth) in zip(axes, truths.items(), strict=True):
        at = int((truth.label[0] > 0).sum((0, 1)).argmax())
        label = truth.label[0, :, :, at].numpy().T
        maps = [predictor(truth.image, truth.place).uncertainty[0] for predictor in predictors.values()]
        volumes = (truth.image[0, 0], truth.label[0], truth.gradient[0], *maps)
        for axis, volume, title in zip(row, volumes, titles, strict=True):
            limits = {"vmin": 0.0, "vmax": 0.3} if title.startswith("u,") else {}
            colors = {"image": "gray", "label": "gray", "image gradient": "magma"}.get(title, "viridis")
            shown = axis.imshow(volume[:, :, at].numpy().T, cmap=colors, origin="lower", **limits)
            if title != "label":
                axis.contour(label, levels=[0.5, 1.5], colors="white", linewidths=0.5)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    fig.colorbar(shown, ax=axes[:, 3:], shrink=0.6, location="right")
    fig.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--figure", type=Path, required=True)
    options = parser.parse_args()
    runs = {preset: options.results / f"{preset}-seed0" for preset in PRESETS}
    names = json.loads((runs[PRESETS[0]] / "split.json").read_text(encoding="utf-8"))["test"][:CASES]
    cases = discover(options.data)
    truths = {case.name: load_truth(case, cases.info, CPU) for case in cases if case.name in names}
    predictors = {preset: checkpoint.load_predictor(run / "checkpoints" / "last.pt")[0] for preset, run in runs.items()}
    for preset, predictor in predictors.items():
        print(f"{preset}: {errors(predictor, list(truths.values()))}")
    print(under_corruption(json.loads((options.results / "results.json").read_text(encoding="utf-8"))))
    figure(predictors, {name: truths[name] for name in names[:PICTURED]}, options.figure)


if __name__ == "__main__":
    main()
