from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sure_fast.metrics import (
    compute_ucc,
    compute_ucc_noise,
    compute_uncertainty_metrics,
    compute_ur,
    compute_ur_noise,
    gradient_and_distance,
    thin_by_gradient,
)
from tests._golden import GOLDEN, load


def brute_force_ur(a, b, protocol, sign):
    i, j = torch.triu_indices(len(a), len(a), 1)
    da, db = a[i] - a[j], b[i] - b[j]
    s = sign * da * db
    if protocol == "paper":
        passed = s >= 0
    elif protocol == "sure":
        passed = (s > 0) | ((da == 0) & (db == 0))
    else:
        passed = (s > 0) | (db == 0) | ((da == 0) & (db.abs() < 1e-4))
    return passed.double().mean().item()


@pytest.mark.parametrize("protocol", ["paper", "sure", "prius"])
@pytest.mark.parametrize(("expected", "sign"), [("negative", -1), ("positive", 1)])
def test_ur_counts_every_pair(protocol, expected, sign):
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 6, (3, 8, 9), generator=generator).double()
    b = torch.randint(0, 5, (3, 8, 9), generator=generator).double() / 5
    b = b + torch.randint(0, 3, b.shape, generator=generator) * 0.6e-4  # |Δ| of 0.6e-4 and 1.2e-4
    mask = torch.rand((3, 8, 9), generator=generator) < 0.7
    got = compute_ur(a, b, expected=expected, protocol=protocol, mask=mask)
    for k in range(3):
        want = brute_force_ur(a[k][mask[k]], b[k][mask[k]], protocol, sign)
        assert got[k].item() == pytest.approx(want, abs=1e-12)


def test_close_pairs_are_counted_exactly_over_any_range():
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 300, (800,), generator=generator).double()
    b = torch.randint(0, 4, (800,), generator=generator) * 3e-5 + torch.randint(0, 2, (800,), generator=generator) * 1e9
    got = compute_ur(a[None], b[None], protocol="prius").item()
    assert got == pytest.approx(brute_force_ur(a, b, "prius", -1), abs=1e-12)
    # a equal, b infinite: (inf, inf) is equal, (inf, 1) twice is neither; the last voxel, a = 2, b = 1: two pairs are
    # ordered, one has b equal
    infinite = compute_ur(torch.tensor([[1.0, 1, 1, 2]]), torch.tensor([[math.inf, math.inf, 1, 1]]), protocol="prius")
    assert infinite.item() == pytest.approx(4 / 6)


@pytest.mark.parametrize("protocol", ["paper", "sure", "prius"])
def test_a_constant_map_has_no_ratio(protocol):
    a = torch.tensor([[1.0, 2.0, 3.0, 3.0]])
    flat = torch.ones(1, 4)
    for pair in ((a, flat), (flat, a), (flat, flat)):
        assert compute_ur(*pair, protocol=protocol).isnan().all()
    # constant where the mask looks, and only there
    mask = torch.tensor([[False, False, True, True]])
    assert compute_ur(a, -a, mask=mask, protocol=protocol).isnan().all()
    assert compute_ur(a, -a, mask=mask | (a == 1), protocol=protocol).isfinite().all()


def test_shapes_are_named():
    a = torch.rand(2, 9)
    with pytest.raises(ValueError, match=r"^b: expected the shape of a \[2, 9\], .*, got \[2, 8\]$"):
        compute_ur(a, a[:, 1:])
    with pytest.raises(ValueError, match=r"^mask: expected the shape of a \[2, 9\], .*, got \[2, 8\]$"):
        compute_ur(a, a, mask=a[:, 1:] > 0)


def test_undefined_is_nan():
    a = torch.tensor([[1.0, 2.0, 3.0]])
    none = torch.zeros(1, 3, dtype=torch.bool)
    assert compute_ucc(a, a, mask=none).isnan().all()
    assert compute_ur(a, a, mask=none).isnan().all()
    assert compute_ucc(a, torch.ones(1, 3)).isnan().all()
    assert compute_ur(a, a * math.nan).isnan().all()
    with pytest.raises(ValueError, match="protocol: expected one of 'paper', 'sure', 'prius', got 'x'"):
        compute_ur(a, a, protocol="x")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    golden = {k: torch.from_numpy(np.array(v)) for k, v in load(name).items() if not k.startswith("edl")}
    u, u1, u2 = (golden[k] for k in ("uncertainty", "uncertainty_noise1", "uncertainty_noise2"))
    g, d = golden["gradient_central"].double(), golden["boundary_distance"].double()
    near = d <= 4
    got = compute_uncertainty_metrics(u, g, d, u1, u2, protocol="sure", thin=0.04)
    torch.testing.assert_close(got["ur_noise"], golden["metric.ur_noise"].double(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(got["ucc_noise"], golden["metric.ucc_noise"].double(), rtol=1e-6, atol=1e-9)
    # the golden distance metrics are of the first noisy map
    ur_d = compute_ur(d, u1 - u, protocol="sure", mask=near)
    torch.testing.assert_close(ur_d, golden["metric.ur_distance_all_pairs"].double(), rtol=1e-6, atol=1e-9)
    # ordinal ranks in an arbitrary tie order: near the tie-averaged value
    ucc_d = compute_ucc(d, u1 - u, mask=near)
    torch.testing.assert_close(ucc_d, golden["metric.ucc_distance"].double(), rtol=0, atol=0.05)
    # thinned voxels have no ties here, so ordinal and average ranks are the same
    torch.testing.assert_close(got["ur_g"], golden["metric.ur_gradient"].double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(got["ucc_g"], golden["metric.ucc_gradient"].double(), rtol=0, atol=1e-6)


def test_thinning_takes_the_nearest_voxel_of_each_grid_point_once():
    g = torch.tensor([[0.0, 0.01, 0.05, 0.051, 0.4]])
    mask = torch.tensor([[True, True, True, True, True]])
    # grid 0, .04, .08, … .4: 0 -> 0; .04 -> .05; .08 … .2 -> .051; .24 … .4 -> .4
    assert thin_by_gradient(g, mask).tolist() == [[True, False, True, True, True]]
    assert not thin_by_gradient(g, ~mask).any()
    spoiled = g.clone()
    spoiled[0, 2] = math.nan
    assert torch.equal(thin_by_gradient(spoiled, mask), mask)
    with pytest.raises(ValueError, match="step: expected a finite number > 0"):
        thin_by_gradient(g, mask, 0.0)


def test_principles_fulfilled_and_broken():
    g = torch.rand(1, 40, generator=torch.Generator().manual_seed(0)).reshape(1, 5, 8)
    d = torch.arange(40.0).reshape(1, 5, 8) / 20
    u = 1 - g
    d_effect = 2 - d
    good = compute_uncertainty_metrics(u, g, d, u + 0.1 * d_effect, u + 0.9 * d_effect)
    assert good["ucc_g"].item() == pytest.approx(-1)
    assert good["ucc_d"].item() == pytest.approx(-1)
    assert good["ucc_noise"].item() == good["ur_noise"].item() == good["ur_g"].item() == good["ur_d"].item() == 1
    bad = compute_uncertainty_metrics(1 - u, g, d, u + 0.9, u + 0.1)
    assert bad["ucc_g"].item() == pytest.approx(1)
    assert bad["ucc_noise"].item() == -1
    assert bad["ur_noise"].item() == bad["ur_g"].item() == 0
    with pytest.raises(ValueError, match="levels: expected the weaker noise level first"):
        compute_uncertainty_metrics(u, g, d, u, u, levels=(0.9, 0.1))


def test_several_noise_levels():
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(0)
    u = torch.randint(0, 4, (4, 2, 5, 6), generator=generator).double() / 4
    mask = torch.rand((2, 5, 6), generator=generator) < 0.8
    ucc = compute_ucc_noise(list(u), mask=mask)
    ur = {
        protocol: compute_ur_noise(list(u.numpy()), mask=mask.numpy(), protocol=protocol)
        for protocol in ("sure", "paper")
    }
    for n in range(2):
        voxels = u[:, n, mask[n]].T.numpy()
        want = [0.0 if np.ptp(v) == 0 else spearmanr([0, 1, 2, 3], v).statistic for v in voxels]
        assert ucc[n].item() == pytest.approx(np.mean(want), abs=1e-12)
        pairs = [(v[i], v[j]) for v in voxels for i in range(4) for j in range(i + 1, 4)]
        assert ur["sure"][n].item() == pytest.approx(np.mean([b > a for a, b in pairs]), abs=1e-12)
        assert ur["paper"][n].item() == pytest.approx(np.mean([b >= a for a, b in pairs]), abs=1e-12)
    two = compute_ucc_noise(list(u[:2]), mask=mask)
    want = ((u[1] - u[0]).sign() * mask).flatten(1).sum(1) / mask.flatten(1).sum(1)
    torch.testing.assert_close(two, want, rtol=1e-12, atol=1e-12)
    u[2, 1][mask[1]] = math.nan
    assert compute_ucc_noise(list(u), mask=mask).isnan().tolist() == [False, True]
    assert compute_ur_noise(list(u), mask=mask & False).isnan().all()
    with pytest.raises(ValueError, match=r"^noisy: expected the uncertainty under at least two levels, got 1$"):
        compute_ucc_noise([u[0]])
    with pytest.raises(ValueError, match=r"^mask: expected the shape of noisy\[0\]"):
        compute_ur_noise(list(u), mask=mask[:, 1:])


def test_gradient_and_distance():
    image = torch.arange(12.0).expand(1, 1, 10, 12)
    label = torch.zeros(1, 10, 12, dtype=torch.long)
    label[..., 6:] = 1
    gradient, distance = gradient_and_distance(image, label)
    assert gradient[0, 0, 5, 5] == 1
    assert distance[0, 0, 5].tolist() == [math.inf, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, math.inf]
    gradient, distance = gradient_and_distance(image.numpy(), label[:, None].numpy(), spacing=(1.0, 2.0))
    assert gradient[0, 0, 5, 5] == 0.5
    assert distance[0, 0, 5, 3:8].tolist() == [4, 2, 0, 0, 2]
    label[:, :4] = 9
    _, distance = gradient_and_distance(image, label, ignore_index=9)
    assert distance[0, 0, :4].isinf().all()
    assert distance[0, 0, 5, 5] == 0
    _, distance = gradient_and_distance(image, torch.zeros_like(label))
    assert distance.isinf().all()  # no boundary: every uncertainty metric is undefined
    assert compute_uncertainty_metrics(distance, gradient, distance, distance, distance)["ucc_g"].isnan().all()
