"""Every case of the Decathlon's Task04_Hippocampus loads and normalises, where the data is at hand."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from sure_fast.data import SegmentationDataset, discover, load_case, normalize, split_cases

ROOT = os.environ.get("SURE_FAST_HIPPOCAMPUS", "")
pytestmark = pytest.mark.skipif(not ROOT, reason="SURE_FAST_HIPPOCAMPUS does not name the Task04_Hippocampus folder")


@pytest.mark.slow
def test_all_cases(capsys):
    cases = discover(ROOT)
    assert cases.info.class_names == {0: "background", 1: "Anterior", 2: "Posterior"}
    shapes, spacings, extremes, counts, worst = [], [], [], np.zeros(3), 0.0
    for case in cases:
        sample = load_case(case)
        assert sample.image.shape[1:] == sample.label.shape
        image = normalize(sample.image)
        assert torch.isfinite(image).all()
        assert abs(float(image.mean())) < 1e-4
        assert abs(float(image.std(correction=0)) - 1) < 1e-3
        worst = max(worst, float(image.abs().max()))
        shapes.append(tuple(sample.label.shape))
        spacings.append(sample.spacing_mm)
        extremes.append((float(sample.image.min()), float(sample.image.max())))
        counts += torch.bincount(sample.label.flatten(), minlength=3).numpy()
    assert worst < 12
    assert (counts > 0).all()
    low, high = np.array(extremes).T
    with capsys.disabled():
        print(f"\n{len(cases)} cases, orientation of the last {sample.orientation}")
        print("shape min/median/max", *(f(np.array(shapes), axis=0).tolist() for f in (np.min, np.median, np.max)))
        print("spacing min/max", np.min(spacings, axis=0).tolist(), np.max(spacings, axis=0).tolist())
        print("minimum", low.min(), "to", low.max(), "maximum", high.min(), "median", np.median(high), "to", high.max())
        print("normalised |max|", worst, "class shares", (counts / counts.sum()).round(5).tolist())


def test_split_and_crops():
    cases = discover(ROOT)
    split = split_cases(cases)
    assert sum(map(len, split)) == len(cases)
    dataset = SegmentationDataset(split.val, (32, 40, 32), augment="mirror")
    found = torch.bincount(torch.cat([dataset[i]["label"].flatten() for i in range(len(dataset))]), minlength=3)
    assert (found > 0).all()
