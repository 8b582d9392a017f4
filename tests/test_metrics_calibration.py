from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from sure_fast.metrics import (
    compute_adaptive_ece,
    compute_brier,
    compute_ece,
    compute_nll,
    ece_of_stats,
    probability_stats,
)

FUNCTIONS = (compute_ece, compute_adaptive_ece, compute_brier, compute_nll)


@pytest.fixture
def maps():
    """Probabilities [2, 3, 20, 22] without ties, and labels that they are overconfident about."""
    generator = torch.Generator().manual_seed(0)
    p = torch.softmax(torch.randn((2, 3, 20, 22), generator=generator, dtype=torch.float64) * 2, 1)
    drawn = torch.rand((2, 20, 22), generator=generator)
    return p, torch.where(drawn < 0.6, p.argmax(1), torch.randint(0, 3, (2, 20, 22), generator=generator))


def columns(p, t, n):
    """Of image n: [voxels, C] and [voxels]."""
    return p[n].flatten(1).T, t[n].flatten()


def test_ece_by_hand():
    # Two voxels at p = .9 of which one is right, two at .6 of which both are: (2/4) |.5 - .9| + (2/4) |1 - .6|
    p1 = torch.tensor([0.9, 0.9, 0.6, 0.6])
    p = torch.stack([p1, 1 - p1])[None, :, None, :]
    t = torch.tensor([[[0, 1, 0, 0]]])
    assert compute_ece(p, t, top_label=True).tolist() == pytest.approx([0.4])
    assert compute_ece(p, t)[0].tolist() == pytest.approx([0.4, 0.4])
    one = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    assert compute_ece(one, torch.zeros(1, 1, 1, dtype=torch.long), top_label=True).item() == 0


def test_ece_is_torchmetrics(maps):
    from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

    p, t = maps
    for n in range(2):
        probabilities, labels = columns(p, t, n)
        want = MulticlassCalibrationError(3, n_bins=10, norm="l1")(probabilities.float(), labels)
        assert compute_ece(p, t, top_label=True)[n].item() == pytest.approx(want.item(), abs=1e-6)
        for c in range(3):
            want = BinaryCalibrationError(n_bins=10, norm="l1")(probabilities[:, c], (labels == c).long())
            assert compute_ece(p, t)[n, c].item() == pytest.approx(want.item(), abs=1e-9)


def test_adaptive_ece_is_the_gap_of_quantile_bins(maps):
    from sklearn.calibration import calibration_curve

    p, t = maps
    for c in range(3):
        probabilities, labels = columns(p, t, 1)
        # 440 voxels in 11 bins of 40: scikit-learn's quantile edges then part the same voxels
        hit, mean = calibration_curve(
            (labels == c).numpy(), probabilities[:, c].numpy(), n_bins=11, strategy="quantile"
        )
        got = compute_adaptive_ece(p, t, bins=11)[1, c].item()
        assert got == pytest.approx(np.abs(hit - mean).mean(), abs=0.02)
        order = probabilities[:, c].argsort()
        gaps = ((labels == c).double() - probabilities[:, c])[order].reshape(11, 40).mean(1)
        assert got == pytest.approx(gaps.abs().mean().item(), abs=1e-12)


def test_adaptive_ece_knows_no_order_of_ties(maps):
    p, t = maps
    rounded = (p[:, :2] * 4).round() / 4  # of two classes quarters, of three what is left
    rounded[:, 1] = torch.minimum(rounded[:, 1], 1 - rounded[:, 0])
    rounded = torch.cat([rounded, 1 - rounded.sum(1, keepdim=True)], 1)
    shuffled = torch.randperm(t[0].numel(), generator=torch.Generator().manual_seed(1))
    again = rounded.flatten(2)[..., shuffled], t.flatten(1)[..., shuffled]
    for top_label in (False, True):
        want = compute_adaptive_ece(rounded, t, bins=7, top_label=top_label)
        if not top_label:  # the top label of equal classes is the first
            got = compute_adaptive_ece(again[0][..., None], again[1][..., None], bins=7)
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
        assert (want > 0).all()


def test_brier_and_nll_are_scikit_learns(maps):
    from sklearn.metrics import brier_score_loss, log_loss

    p, t = maps
    p[0, :, 0, 0] = torch.tensor([0.0, 0.0, 1.0])
    t[0, 0, 0] = 1  # as wrong as can be: p is kept off 0
    for n in range(2):
        probabilities, labels = (x.numpy() for x in columns(p, t, n))
        want = log_loss(labels, probabilities, labels=[0, 1, 2])
        assert compute_nll(p, t)[n].sum().item() == pytest.approx(want, rel=1e-9)
        want = brier_score_loss(labels, probabilities, labels=[0, 1, 2], scale_by_half=False)
        assert compute_brier(p, t)[n].sum().item() == pytest.approx(want, rel=1e-9)
        want = brier_score_loss(labels == 2, probabilities[:, 2], scale_by_half=True)
        assert compute_brier(p, t)[n, 2].item() == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_case_by_case(function, maps):
    p, t = maps
    both = function(p, t)
    assert torch.equal(both, torch.cat([function(p[n : n + 1], t[n : n + 1]) for n in (0, 1)]))
    assert torch.equal(function(p.flip(0), t.flip(0)), both.flip(0))
    assert torch.equal(function(p.numpy(), t[:, None].numpy()), both)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_ignored_undefined_and_spoiled(function, maps):
    p, t = maps
    t[0, 7:] = -1
    got = function(p, t, ignore_index=-1)
    torch.testing.assert_close(got[:1], function(p[:1, :, :7], t[:1, :7]), rtol=1e-12, atol=1e-12)
    spoiled = p.clone()
    spoiled[0, :, 9, 9] = 7.0  # ignored
    assert torch.equal(function(spoiled, t, ignore_index=-1), got)
    spoiled[1, :, 3, 3] = math.nan
    with pytest.raises(ValueError, match=r"^probabilities: expected numbers in \[0, 1\], got NaN$"):
        function(spoiled, t, ignore_index=-1)
    t[0] = -1
    assert function(p, t, ignore_index=-1)[0].isnan().all()
    assert function(p[..., :0], t[..., :0], ignore_index=-1).isnan().all()


def test_bad_arguments_are_named(maps):
    p, t = maps
    for function in FUNCTIONS:
        with pytest.raises(ValueError, match=r"^target: expected \[2, 20, 22\] or \[N, 1, \*S\] to match"):
            function(p, t[:, 1:])
        with pytest.raises(ValueError, match=r"^target: expected labels in \[0, 3\), got 7$"):
            function(p, t.where(t != 1, 7))
        with pytest.raises(ValueError, match=r"^probabilities: expected \[N, C, \*S\] with at least 2 classes"):
            function(p[:, :1], t)
    for function in FUNCTIONS[:2]:
        with pytest.raises(ValueError, match=r"^bins: expected at least 1, got 0$"):
            function(p, t, bins=0)


def test_from_segmentation_stats():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 20, 22), generator=generator, dtype=torch.float64) * 4
    target = torch.randint(0, 3, (2, 20, 22), generator=generator)
    target[0, :5] = -1
    stats = sure_fast.segmentation_stats(logits, target, evidence="softplus", ignore_index=-1)
    alpha = torch.nn.functional.softplus(logits) + 1
    total = alpha.sum(1, keepdim=True)
    p = alpha / total
    for top_label in (False, True):
        want = compute_ece(p, target, ignore_index=-1, top_label=top_label)
        torch.testing.assert_close(ece_of_stats(stats, top_label=top_label), want, rtol=1e-12, atol=1e-12)
    mine = probability_stats(p, target, uncertainty=3 / total, ignore_index=-1)
    for name, got, want in zip(stats._fields, mine, stats, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
