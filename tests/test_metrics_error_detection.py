from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from sure_fast.metrics import (
    compute_aurc,
    compute_error_auroc,
    compute_risk_coverage,
    compute_ueo,
    ueo_of_stats,
)

FUNCTIONS = (compute_ueo, compute_error_auroc, compute_aurc, compute_risk_coverage)


@pytest.fixture
def maps():
    """u with ties, prediction and target, [2, 9, 11]; errors where u tends to be large."""
    generator = torch.Generator().manual_seed(0)
    u = (torch.rand((2, 9, 11), generator=generator, dtype=torch.float64) * 40).ceil() / 40
    t = torch.randint(0, 3, (2, 9, 11), generator=generator)
    wrong = torch.rand((2, 9, 11), generator=generator) < 0.5 * u
    return u, torch.where(wrong, (t + 1) % 3, t), t


def test_auroc_is_scikit_learns_and_torchmetrics(maps):
    from sklearn.metrics import roc_auc_score
    from torchmetrics.classification import BinaryAUROC

    u, p, t = maps
    for n, got in enumerate(compute_error_auroc(u, p, t, 3).tolist()):
        wrong = (p[n] != t[n]).flatten()
        assert got == pytest.approx(roc_auc_score(wrong.numpy(), u[n].flatten().numpy()), abs=1e-12)
        assert got == pytest.approx(BinaryAUROC()(u[n].flatten(), wrong.long()).item(), abs=1e-6)
        assert 0.5 < got < 1


def test_aurc_is_the_mean_over_orders_of_ties(maps):
    u, p, t = maps
    rng = np.random.default_rng(0)
    risks = []
    for _ in range(4000):
        shuffled = rng.permutation(99)
        order = shuffled[np.argsort(u[0].flatten().numpy()[shuffled], kind="stable")]
        wrong = (p[0] != t[0]).flatten().numpy()[order]
        risks.append((wrong.cumsum() / np.arange(1, 100)).mean())
    assert np.std(risks) > 1e-3
    assert compute_aurc(u, p, t, 3)[0].item() == pytest.approx(np.mean(risks), abs=4 * np.std(risks) / 4000**0.5)
    distinct = u + torch.arange(99.0).reshape(9, 11) * 1e-6
    order = distinct[1].flatten().argsort()
    wrong = (p[1] != t[1]).flatten()[order].double()
    want = (wrong.cumsum(0) / torch.arange(1, 100)).mean()
    assert compute_aurc(distinct, p, t, 3)[1].item() == pytest.approx(want.item(), abs=1e-12)


def test_risk_coverage_ends_at_the_error_rate(maps):
    u, p, t = maps
    curve = compute_risk_coverage(u, p, t, 3, points=99)
    torch.testing.assert_close(curve.mean(1), compute_aurc(u, p, t, 3), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(curve[:, -1], (p != t).double().flatten(1).mean(1), rtol=1e-12, atol=1e-12)
    assert compute_risk_coverage(u, p, t, 3, points=10).shape == (2, 10)


def test_ueo_tries_every_threshold():
    # so many voxels that some lie between any two thresholds
    generator = torch.Generator().manual_seed(0)
    u = torch.rand((2, 70, 60), generator=generator, dtype=torch.float64)
    t = torch.randint(0, 3, u.shape, generator=generator)
    p = torch.where(torch.rand(u.shape, generator=generator) < 0.5 * u, (t + 1) % 3, t)
    for n in range(2):
        overlaps = {}
        for c in (0, 1, 2, "any"):
            wrong = p[n] != t[n] if c == "any" else (p[n] == c) != (t[n] == c)
            overlaps[c] = max(
                2 * (wrong & (u[n] > k / 100)).sum().item() / (wrong.sum() + (u[n] > k / 100).sum()).item()
                for k in range(1, 100)
            )
        assert compute_ueo(u, p, t, 3)[n].tolist() == pytest.approx([overlaps[c] for c in range(3)], abs=1e-12)
        assert compute_ueo(u, p, t, 3, per_class=False)[n].item() == pytest.approx(overlaps["any"], abs=1e-12)


def test_from_segmentation_stats():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 20, 22), generator=generator, dtype=torch.float64) * 4
    target = torch.randint(0, 3, (2, 20, 22), generator=generator)
    target[0, :5] = -1
    stats = sure_fast.segmentation_stats(logits, target, ignore_index=-1)
    u = sure_fast.dirichlet_uncertainty(logits)
    for per_class in (True, False):
        want = compute_ueo(u, logits.argmax(1), target, 3, ignore_index=-1, per_class=per_class)
        assert torch.equal(ueo_of_stats(stats, per_class=per_class), want)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_case_by_case_with_ignored_and_spoiled_voxels(function, maps):
    u, p, t = maps
    t[0, 4:] = -1
    got = function(u, p, t, 3, ignore_index=-1)
    torch.testing.assert_close(got[:1], function(u[:1, :4], p[:1, :4], t[:1, :4], 3), rtol=1e-12, atol=1e-12)
    assert torch.equal(function(u.flip(0), p.flip(0), t.flip(0), 3, ignore_index=-1), got.flip(0))
    arrays = (x.numpy() for x in (u[:, None], p, t))
    assert torch.equal(function(*arrays, 3, ignore_index=-1), got)
    spoiled = u.clone()
    spoiled[0, 8, 8] = spoiled[1, 8, 8] = math.nan  # ignored in the first image only
    again = function(spoiled, p, t, 3, ignore_index=-1)
    assert torch.equal(again[0], got[0])
    assert again[1].isnan().all()
    t[0] = -1
    assert function(u, p, t, 3, ignore_index=-1)[0].isnan().all()
    with pytest.raises(
        ValueError, match=r"^uncertainty: expected the shape of target \[2, 9, 11\], .*, got \[2, 9, 10\]$"
    ):
        function(u[..., 1:], p, t, 3, ignore_index=-1)


def test_without_errors(maps):
    u, _, t = maps
    assert compute_ueo(u, t, t, 3).isnan().all()
    assert compute_error_auroc(u, t, t, 3).isnan().all()
    assert compute_aurc(u, t, t, 3).tolist() == [0, 0]
    flat = torch.full_like(u, 0.5)
    assert compute_error_auroc(flat, (t + 1) % 3, t, 3).isnan().all()
    mixed = t.clone()
    mixed[:, 0] = (t[:, 0] + 1) % 3
    assert compute_error_auroc(flat, mixed, t, 3).tolist() == [0.5, 0.5]


def test_a_nan_spoils_ueo_of_stats_too():
    logits = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    logits[1, 0, 2, 2] = torch.nan
    stats = sure_fast.segmentation_stats(logits, torch.zeros(2, 6, 6, dtype=torch.long))
    undefined = ueo_of_stats(stats).isnan().all(1)
    assert undefined.tolist() == [False, True]
