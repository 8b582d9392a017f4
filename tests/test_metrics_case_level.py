from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from sklearn.metrics import roc_auc_score

from sure_fast.metrics import (
    CaseUncertaintyMetric,
    compute_case_uncertainty,
    compute_window_uncertainty,
    failure_detection,
    ood_auroc,
)


def case(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.zeros(shape, dtype=torch.long)
    prediction[(slice(None), *(slice(n // 3, n // 2 + 1) for n in shape[1:]))] = 2
    return torch.rand(shape, generator=generator, dtype=torch.float64), prediction


@pytest.mark.parametrize("shape", [(2, 20, 30), (2, 12, 14, 9)], ids=str)
@pytest.mark.parametrize("rim", [0.0, 1.0, 2.5])
def test_the_rim_is_that_of_scipy(shape, rim):
    u, prediction = case(shape)
    got = compute_case_uncertainty(u, prediction, rim=rim)
    for n in range(shape[0]):
        inside = prediction[n].numpy() > 0
        box = np.ones((3,) * inside.ndim)
        # a boundary voxel has another label within its neighbourhood, on either side
        boundary = scipy.ndimage.binary_dilation(inside, box) & scipy.ndimage.binary_dilation(~inside, box)
        near = inside | (scipy.ndimage.distance_transform_edt(~boundary) <= rim)
        assert got[n].item() == pytest.approx(u[n].numpy()[near].mean())
    with_channel = compute_case_uncertainty(u[:, None], prediction[:, None], rim=rim)
    assert torch.equal(got, with_channel)


def test_without_foreground_it_is_the_whole_image():
    u, prediction = case((2, 8, 9))
    prediction[1] = 0
    got = compute_case_uncertainty(u, prediction)
    assert got[1].item() == pytest.approx(u[1].mean().item())
    u[0, 3, 3] = math.nan
    assert compute_case_uncertainty(u, prediction).isnan().tolist() == [True, False]
    metric = CaseUncertaintyMetric()
    metric.update(u, prediction)
    assert metric.compute().mean[0].item() == pytest.approx(u[1].mean().item())


def test_maps_that_do_not_fit_are_refused():
    u, prediction = case((2, 8, 9))
    with pytest.raises(ValueError, match="uncertainty: expected the shape of prediction"):
        compute_case_uncertainty(u[:, 1:], prediction)
    with pytest.raises(ValueError, match="rim: expected a finite number >= 0"):
        compute_case_uncertainty(u, prediction, rim=-1.0)


@pytest.mark.parametrize("shape", [(2, 25, 31), (2, 13, 14, 9), (3, 17)], ids=str)
def test_the_window_is_every_window(shape):
    u, _ = case((*shape[:1], *shape[1:]))
    got = compute_window_uncertainty(u, window=10)
    for n in range(shape[0]):
        size = tuple(min(10, s) for s in shape[1:])
        windows = np.lib.stride_tricks.sliding_window_view(u[n].numpy(), size)
        means = windows.mean(tuple(range(-len(size), 0)))
        assert got[n].item() == pytest.approx(means.max())


def test_the_window_of_no_voxel():
    assert compute_window_uncertainty(torch.zeros(2, 0, 4)).isnan().all()
    assert compute_window_uncertainty(torch.zeros(0, 3, 4)).shape == (0,)


def test_failure_detection_by_hand_and_with_scipy():
    # sorted by u: Dice 0.9, 0.5, 0.7: risks 0.1, 0.5, 0.3; means of the first k: 0.1, 0.3, 0.3
    found = failure_detection([0.3, 0.1, 0.2], [0.7, 0.9, 0.5])
    assert found.aurc == pytest.approx((0.1 + 0.3 + 0.3) / 3)
    generator = np.random.default_rng(0)
    u, dice = generator.random(40).round(1), generator.random(40)
    found = failure_detection(u.tolist(), dice.tolist())
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(u, dice).statistic)
    ordered = sorted(zip(u, dice, strict=True), key=lambda x: x[0])
    by_ties = [np.mean([1 - d for v, d in ordered if v == w]) for w, _ in ordered]
    assert found.aurc == pytest.approx(np.mean(np.cumsum(by_ties) / np.arange(1, 41)))
    perfect, worst = (
        failure_detection((1 - dice).tolist(), dice.tolist()),
        failure_detection(dice.tolist(), dice.tolist()),
    )
    assert perfect.aurc < found.aurc < worst.aurc
    assert all(math.isnan(x) for x in failure_detection([0.1, math.nan], [0.5, 0.7]))
    with pytest.raises(ValueError, match="dice: expected one for each of the 2 cases, got 1"):
        failure_detection([0.1, 0.2], [0.5])


def test_ood_auroc_is_scikit_learns():
    generator = np.random.default_rng(1)
    clean, corrupted = generator.random(30).round(2), (generator.random(20) + 0.2).round(2)
    want = roc_auc_score([0] * 30 + [1] * 20, [*clean, *corrupted])
    assert ood_auroc(clean.tolist(), corrupted.tolist()) == pytest.approx(want)
    assert ood_auroc([*clean, math.nan], corrupted.tolist()) == pytest.approx(want)
    assert math.isnan(ood_auroc([], [0.3]))
