from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from tests._golden import load
from tests._tolerances import tolerance

NAMES = ("sure_2d_two_class",)
BACKENDS = ("cpu", "reference")


def logits_of(u):
    """Two-class logits [N, 2, *S] whose evidence, taken as relu(z), gives this uncertainty map [N, *S]."""
    return (1 / u - 1).unsqueeze(1).expand(len(u), 2, *u.shape[1:])


def of_maps(u, u1, u2, *args, **options):
    """The loss of three uncertainty maps."""
    return sure_fast.noise_uncertainty_loss(*(logits_of(x) for x in (u, u1, u2)), *args, evidence="relu", **options)


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


@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_order_and_distance(backend):
    golden, u, d, centers, levels = golden_case()
    out = of_maps(*u, d, centers, levels, backend=backend)
    for term, key in (("order", "noise_order"), ("distance", "noise_distance")):
        value = getattr(out, term)
        np.testing.assert_allclose(value.item(), golden[f"{key}.loss"], rtol=1e-6)
        gradients = torch.autograd.grad(value, u, retain_graph=True, allow_unused=True)
        assert gradients[0] is None or not gradients[0].any()  # u is a constant
        for gradient, which in zip(gradients[1:], ("noise1", "noise2"), strict=True):
            want = golden[f"{key}.grad_{which}"]
            np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-9)
            assert np.abs(want).max() > 0


@pytest.mark.parametrize("name", ["sure_2d_two_class", "sure_3d_three_class"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_far(name, backend):
    golden = load(name)
    u = [
        torch.from_numpy(golden[k]).requires_grad_()
        for k in ("uncertainty", "uncertainty_noise1", "uncertainty_noise2")
    ]
    d = torch.from_numpy(golden["boundary_distance"])
    centers = torch.zeros(len(d), 1, d.dim() - 1, dtype=torch.long)
    for distance in (d, d.masked_fill(d > 4, math.inf)):
        out = of_maps(*u, distance, centers, torch.rand(2), backend=backend)
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_by_hand(backend):
    u, u1, u2, d, centers, levels = hand_case()
    out = of_maps(u, u1, u2, d, centers, levels, order_weight=2.0, distance_weight=3.0, far_weight=4.0, backend=backend)
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_invalid_centers_and_truncated_distances(backend):
    u, u1, u2, d, centers, levels = hand_case()
    valid = torch.tensor([[True, True, False]])
    out = of_maps(u, u1, u2, d, centers, levels, valid=valid, backend=backend)
    assert out.order.item() == pytest.approx(0.25, rel=1e-12)
    assert out.distance.item() == pytest.approx(0.6, rel=1e-12)  # only the pair (0, 1)
    truncated = of_maps(u, u1, u2, d.masked_fill(d > 4, math.inf), centers, levels, backend=backend)
    assert truncated.distance.item() == pytest.approx(0.6, rel=1e-12)
    assert truncated.far.item() == pytest.approx(2.8 / 3, rel=1e-12)


def test_nothing_near_nothing_far():
    u = torch.rand(2, 4, 4, requires_grad=True)
    centers = torch.zeros(2, 3, 2, dtype=torch.long)
    near = of_maps(u, u, u, torch.zeros(2, 4, 4), centers, torch.rand(2))
    assert [v.item() for v in near] == [0, 0, 0, 0]
    none = of_maps(u, u, u, torch.full((2, 4, 4), math.inf), centers[:, :0], torch.rand(2))
    assert none.order.item() == none.distance.item() == 0
    assert none.far.item() == pytest.approx(3 * u.mean().item(), rel=1e-6)


def random_case(shape, dtype=torch.float64, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (shape[0], classes, *shape[1:])
    z = [torch.randn(size, dtype=torch.float64, generator=generator).to(dtype).requires_grad_() for _ in range(3)]
    d = torch.rand(shape, generator=generator) * 8
    centers = torch.stack([torch.randint(0, s, (shape[0], 6), generator=generator) for s in shape[1:]], -1)
    valid = torch.rand((shape[0], 6), generator=generator) < 0.8
    return z, d, centers, torch.tensor([0.3, 0.9]), valid


def run(z, d, centers, levels, valid, **options):
    """The terms, and the gradient of a weighted sum of them in all three logits."""
    out = sure_fast.noise_uncertainty_loss(*z, d, centers, levels, valid=valid, **options)
    total = out.order * 3 + out.distance * 2 + out.far
    return torch.stack(out[1:]).detach(), torch.autograd.grad(1024 * total, z)


@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 70, 61), (1, 20, 21, 22)], ids=str)
def test_kernel_agrees_with_the_reference(shape, dtype, evidence):
    z, d, centers, levels, valid = random_case(shape, dtype)
    terms, gradients = run(z, d, centers, levels, valid, evidence=evidence, backend="cpu")
    wide = [x.detach().double().requires_grad_() for x in z]
    want, wanted = run(wide, d, centers, levels, valid, evidence=evidence, backend="reference")
    compute = dtype if dtype == torch.float64 else torch.float32
    torch.testing.assert_close(terms.double(), want, **tolerance(compute))
    for got, x, g in zip(gradients, z, wanted, strict=True):
        assert got.dtype == x.dtype
        scale = g.abs().max()
        torch.testing.assert_close(got.double() / scale, g / scale, **tolerance(dtype))


@pytest.mark.parametrize("layout", ["channels_last", "halves of a batch"])
def test_strides_and_threads(layout, threads):
    z, d, centers, levels, valid = random_case((2, 40, 30, 11), torch.float32)
    want = run(z, d, centers, levels, valid, backend="cpu")
    if layout == "channels_last":
        z = [x.detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_() for x in z]
    else:
        both = torch.cat([x.detach() for x in z[1:]])
        z = [z[0], both[:2].requires_grad_(), both[2:].requires_grad_()]
    for count in (1, 2, 5):
        threads(count)
        got = run(z, d, centers, levels, valid, backend="cpu")
        assert torch.equal(got[0], want[0])
        assert all(torch.equal(g, w) for g, w in zip(got[1], want[1], strict=True))


def test_a_voxel_drawn_twice_gets_both_slopes():
    z, d, centers, levels, valid = random_case((1, 5, 6))
    centers[:] = centers[:, :1]
    results = [run(z, d * 0 + 1, centers, levels, valid | True, backend=backend) for backend in BACKENDS]
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


def test_reference_gradcheck():
    z, d, centers, levels, _ = random_case((2, 3, 4, 5))

    def total(z1, z2):
        return sure_fast.noise_uncertainty_loss(z[0], z1, z2, d, centers, levels, backend="reference").total

    assert torch.autograd.gradcheck(total, z[1:], eps=1e-7)


def test_operator_is_registered_properly_and_compiles_whole():
    z, d, centers, levels, valid = random_case((2, 3, 4, 5), torch.float32)
    torch.library.opcheck(
        torch.ops.sure_fast.noise_uncertainty_loss.default, (*z, d, centers, levels, valid, 4.0, "softplus", "cpu")
    )
    compiled = torch.compile(sure_fast.noise_uncertainty_loss, fullgraph=True, backend="aot_eager")
    want = sure_fast.noise_uncertainty_loss(*z, d, centers, levels)
    assert torch.equal(compiled(*z, d, centers, levels).total, want.total)


def test_nan_stays_nan_and_half_precision():
    u, u1, u2, d, centers, levels = hand_case()
    spoiled = u1.detach().clone()
    spoiled[0, 0, 0] = math.nan
    out = of_maps(u, spoiled, u2, d, centers, levels)
    assert out.order.isnan()
    assert out.distance.isnan()
    want = of_maps(u, u1, u2, d, centers, levels).total.item()
    half = of_maps(u.bfloat16(), u1.bfloat16(), u2.bfloat16(), d, centers, levels).total
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(want, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"noisy1": torch.zeros(1, 2, 4, 5)}, ValueError, "noisy1: expected the shape of logits"),
        ({"distance": torch.zeros(1, 4, 5)}, ValueError, "distance: expected the shape of one channel of logits"),
        ({"evidence": "square"}, ValueError, "evidence: expected one of 'softplus'"),
        ({"centers": torch.zeros(1, 2, 3, dtype=torch.long)}, ValueError, r"centers: expected \[N=1, P, 2\]"),
        ({"centers": torch.full((1, 2, 2), 4)}, ValueError, r"centers: expected voxel indices inside \[4, 4\], got"),
        ({"centers": torch.zeros(1, 2, 2)}, TypeError, "centers: expected an integer tensor"),
        ({"valid": torch.ones(1, 3, dtype=torch.bool)}, ValueError, r"valid: expected bool \[1, 2\]"),
        ({"levels": torch.zeros(3)}, ValueError, r"levels: expected shape \[2\], got \[3\]"),
        ({"far_weight": -1.0}, ValueError, "far_weight: expected a finite number >= 0"),
    ],
)
def test_errors_name_the_argument(arguments, error, text):
    zeros = torch.zeros(1, 2, 4, 4)
    defaults = {
        "logits": zeros, "noisy1": zeros, "noisy2": zeros, "distance": zeros[:, 0],
        "centers": torch.zeros(1, 2, 2, dtype=torch.long), "levels": torch.rand(2),
    }  # fmt: skip
    with pytest.raises(error, match=text):
        sure_fast.noise_uncertainty_loss(**{**defaults, **arguments})
