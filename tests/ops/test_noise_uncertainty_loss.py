from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from tests._golden import load

NAMES = ("sure_2d_two_class",)


def golden_case():
    golden = load(NAMES[0])
    u = [
        torch.from_numpy(golden[k]).requires_grad_()
        for k in ("uncertainty", "uncertainty_noise1", "uncertainty_noise2")
    ]
    d = torch.from_numpy(golden["boundary_distance"])
    centers = torch.from_numpy(golden["noise.patch_centres_yx"]).long()
    np.testing.assert_allclose(
        d.reshape(len(d), -1).gather(1, centers[..., 0] * d.shape[2] + centers[..., 1]),
        golden["noise.distance_at_centres"],
    )
    return golden, u, d, centers, torch.from_numpy(golden["noise.mu1_mu2"]).double()


def test_golden_order_and_distance():
    golden, u, d, centers, levels = golden_case()
    out = sure_fast.noise_uncertainty_loss(*u, d, centers, levels)
    for term, key in (("order", "noise_order"), ("distance", "noise_distance")):
        value = getattr(out, term)
        np.testing.assert_allclose(value.item(), golden[f"{key}.loss"], rtol=1e-6)
        gradients = torch.autograd.grad(value, u, retain_graph=True, allow_unused=True)
        assert gradients[0] is None  # u is a constant
        for gradient, which in zip(gradients[1:], ("noise1", "noise2"), strict=True):
            want = golden[f"{key}.grad_{which}"]
            np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-9)
            assert np.abs(want).max() > 0


@pytest.mark.parametrize("name", ["sure_2d_two_class", "sure_3d_three_class"])
def test_golden_far(name):
    golden = load(name)
    u = [
        torch.from_numpy(golden[k]).requires_grad_()
        for k in ("uncertainty", "uncertainty_noise1", "uncertainty_noise2")
    ]
    d = torch.from_numpy(golden["boundary_distance"])
    centers = torch.zeros(len(d), 1, d.dim() - 1, dtype=torch.long)
    for distance in (d, d.masked_fill(d > 4, math.inf)):
        out = sure_fast.noise_uncertainty_loss(*u, distance, centers, torch.rand(2))
        np.testing.assert_allclose(out.far.item(), golden["noise_far.loss"], rtol=1e-6)
        for gradient in torch.autograd.grad(out.far, u):
            np.testing.assert_allclose(gradient, golden["noise_far.grad_uncertainty"], rtol=1e-6)


def hand_case():
    # One row of voxels: centers at 0, 1 (d = 0, 2: near) and 4 (d = 5: beyond 4).
    d = torch.tensor([[[0.0, 2, 4.5, 4.7, 5]]], dtype=torch.float64)
    u = torch.tensor([[[0.5, 0.4, 0.1, 0.2, 0.3]]], dtype=torch.float64)
    u1 = torch.tensor([[[0.6, 0.3, 0.1, 0.2, 0.9]]], dtype=torch.float64, requires_grad=True)
    u2 = torch.tensor([[[0.4, 0.6, 0.1, 0.2, 0.7]]], dtype=torch.float64, requires_grad=True)
    return u, u1, u2, d, torch.tensor([[[0, 0], [0, 1], [0, 4]]]), torch.tensor([0.5, 1.0], dtype=torch.float64)


def test_by_hand():
    u, u1, u2, d, centers, levels = hand_case()
    out = sure_fast.noise_uncertainty_loss(
        u, u1, u2, d, centers, levels, order_weight=2.0, distance_weight=3.0, far_weight=4.0
    )
    # order: w12 = (-.2, .3) * .5; w1 = (.1, -.1) * .5; w2 = (-.1, .2) * 1 -> .1 + .05 + .1
    assert out.order.item() == pytest.approx(0.25, rel=1e-12)
    # distance: Δ¹ = (.1, -.1, 0): v01 = -2 * .2 < 0; v02 = -5 * .1 < 0; v12 = -3 * -.1 = .3          -> .3
    #           Δ² = (-.1, .2, 0): v01 = -2 * -.3 = .6; v02 = -5 * -.1 = .5; v12 = -3 * .2 < 0         -> .55
    assert out.distance.item() == pytest.approx(0.85, rel=1e-12)
    # far: voxels 2, 3, 4: (.1 + .2 + .3 + .1 + .2 + .9 + .1 + .2 + .7) / 3
    assert out.far.item() == pytest.approx(2.8 / 3, rel=1e-12)
    assert out.total.item() == pytest.approx(2 * 0.25 + 3 * 0.85 + 4 * 2.8 / 3, rel=1e-12)
    g1, g2 = torch.autograd.grad(out.order, (u1, u2))
    np.testing.assert_allclose(g1[0, 0, :2], [0.5, -0.5])
    np.testing.assert_allclose(g2[0, 0, :2], [-1.5, 0.0])


def test_invalid_centers_and_truncated_distances():
    u, u1, u2, d, centers, levels = hand_case()
    valid = torch.tensor([[True, True, False]])
    out = sure_fast.noise_uncertainty_loss(u, u1, u2, d, centers, levels, valid=valid)
    assert out.order.item() == pytest.approx(0.25, rel=1e-12)
    assert out.distance.item() == pytest.approx(0.6, rel=1e-12)  # only the pair (0, 1)
    truncated = sure_fast.noise_uncertainty_loss(u, u1, u2, d.masked_fill(d > 4, math.inf), centers, levels)
    assert truncated.distance.item() == pytest.approx(0.6, rel=1e-12)
    assert truncated.far.item() == pytest.approx(2.8 / 3, rel=1e-12)


def test_nothing_near_nothing_far():
    u = torch.rand(2, 1, 4, 4, requires_grad=True)
    centers = torch.zeros(2, 3, 2, dtype=torch.long)
    near = sure_fast.noise_uncertainty_loss(u, u, u, torch.zeros(2, 4, 4), centers, torch.rand(2))
    assert [v.item() for v in near] == [0, 0, 0, 0]
    none = sure_fast.noise_uncertainty_loss(u, u, u, torch.full((2, 4, 4), math.inf), centers[:, :0], torch.rand(2))
    assert none.order.item() == none.distance.item() == 0
    assert none.far.item() == pytest.approx(3 * u.mean().item(), rel=1e-6)


def test_gradcheck():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3)]
    d = torch.rand(2, 3, 4, 5, generator=generator) * 8
    centers = torch.stack([torch.randint(0, s, (2, 6), generator=generator) for s in (3, 4, 5)], -1)

    def total(u1, u2):
        return sure_fast.noise_uncertainty_loss(maps[0], u1, u2, d, centers, torch.tensor([0.3, 0.9])).total

    assert torch.autograd.gradcheck(total, maps[1:], eps=1e-7)
    far = sure_fast.noise_uncertainty_loss(*maps, d, centers, torch.tensor([0.3, 0.9])).far
    torch.testing.assert_close(torch.autograd.grad(far, maps[0])[0], (d > 4).double() / (d > 4).sum())


def test_nan_stays_nan_and_half_precision():
    u, u1, u2, d, centers, levels = hand_case()
    spoiled = u1.detach().clone()
    spoiled[0, 0, 0] = math.nan
    out = sure_fast.noise_uncertainty_loss(u, spoiled, u2, d, centers, levels)
    assert out.order.isnan()
    assert out.distance.isnan()
    want = sure_fast.noise_uncertainty_loss(u, u1, u2, d, centers, levels).total.item()
    half = sure_fast.noise_uncertainty_loss(u.bfloat16(), u1.bfloat16(), u2.bfloat16(), d, centers, levels).total
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(want, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"noisy1": torch.zeros(1, 4, 5)}, ValueError, "noisy1: expected the shape of uncertainty"),
        ({"centers": torch.zeros(1, 2, 3, dtype=torch.long)}, ValueError, r"centers: expected \[N=1, P, 2\]"),
        ({"centers": torch.full((1, 2, 2), 4)}, ValueError, r"centers: expected voxel indices inside \[4, 4\], got"),
        ({"centers": torch.zeros(1, 2, 2)}, TypeError, "centers: expected an integer tensor"),
        ({"valid": torch.ones(1, 3, dtype=torch.bool)}, ValueError, r"valid: expected bool \[1, 2\]"),
        ({"levels": torch.zeros(3)}, ValueError, r"levels: expected shape \[2\], got \[3\]"),
        ({"far_weight": -1.0}, ValueError, "far_weight: expected a finite number >= 0"),
    ],
)
def test_errors_name_the_argument(arguments, error, text):
    zeros = torch.zeros(1, 4, 4)
    defaults = {
        "uncertainty": zeros, "noisy1": zeros, "noisy2": zeros, "distance": zeros,
        "centers": torch.zeros(1, 2, 2, dtype=torch.long), "levels": torch.rand(2),
    }  # fmt: skip
    with pytest.raises(error, match=text):
        sure_fast.noise_uncertainty_loss(**{**defaults, **arguments})
