from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sure_fast
from tests._golden import GOLDEN, load
from tests.ops.backends import Backend, assert_same_bits, on
from tests.ops.inputs import random, strided

REFERENCE = Backend("noise_uncertainty_loss", "reference")
RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Of sums of a few numbers that u = 1 / (z + 1) is rounded to."""


def logits_of(u):
    """Two-class logits [N, 2, *S] whose evidence, taken as relu(z), gives this uncertainty map [N, *S]."""
    return (1 / u - 1).unsqueeze(1).expand(len(u), 2, *u.shape[1:])


def of_maps(backend, u, u1, u2, *args, **options):
    """The loss of three uncertainty maps."""
    return backend(*(logits_of(x) for x in (u, u1, u2)), *args, evidence="relu", **options)


def golden_case(name, dtype):
    """Golden values, the three maps of u and the distance, in no wider dtype than this."""
    golden = load(name)
    names = ("uncertainty", "uncertainty_noise1", "uncertainty_noise2", "boundary_distance")
    *u, d = (torch.from_numpy(golden[k]) for k in names)
    u = [x.to(min(x.dtype, dtype, key=lambda t: t.itemsize)).requires_grad_() for x in u]
    return golden, u, d.to(u[0].dtype)


def test_golden_order_and_distance(backend):
    golden, u, d = golden_case("sure_2d_two_class", backend.widest)
    centers = torch.from_numpy(golden["noise.patch_centres_yx"]).long()
    np.testing.assert_allclose(
        d.reshape(len(d), -1).gather(1, centers[..., 0] * d.shape[2] + centers[..., 1]),
        golden["noise.distance_at_centres"],
    )
    out = of_maps(backend, *u, d, centers, torch.from_numpy(golden["noise.mu1_mu2"]).to(d.dtype))
    for term, key in (("order", "noise_order"), ("distance", "noise_distance")):
        value = getattr(out, term)
        np.testing.assert_allclose(value.item(), golden[f"{key}.loss"], rtol=1e-6)
        gradients = torch.autograd.grad(value, u, retain_graph=True, allow_unused=True)
        assert gradients[0] is None or not gradients[0].any()  # u is a constant
        for gradient, which in zip(gradients[1:], ("noise1", "noise2"), strict=True):
            want = golden[f"{key}.grad_{which}"]
            np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-9)
            assert np.abs(want).max() > 0


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_far(name, backend):
    golden, u, d = golden_case(name, backend.widest)
    centers = torch.zeros(len(d), 1, d.dim() - 1, dtype=torch.long)
    for distance in (d, d.masked_fill(d > 4, math.inf)):
        out = of_maps(backend, *u, distance, centers, torch.rand(2))
        np.testing.assert_allclose(out.far.item(), golden["noise_far.loss"], rtol=1e-6)
        for gradient in torch.autograd.grad(out.far, u):
            np.testing.assert_allclose(gradient, golden["noise_far.grad_uncertainty"], rtol=1e-6)


def hand_case(dtype=torch.float64):
    # One row of voxels: centers at 0, 1 (d = 0, 2: near) and 4 (d = 5: beyond 4).
    d = torch.tensor([[[0.0, 2, 4.5, 4.7, 5]]], dtype=torch.float64)
    u = torch.tensor([[[0.5, 0.4, 0.1, 0.2, 0.3]]], dtype=torch.float64)
    u1 = torch.tensor([[[0.6, 0.3, 0.1, 0.2, 0.9]]], dtype=torch.float64, requires_grad=True)
    u2 = torch.tensor([[[0.4, 0.6, 0.1, 0.2, 0.7]]], dtype=torch.float64, requires_grad=True)
    u, u1, u2 = (x.detach().to(dtype).requires_grad_(x.requires_grad) for x in (u, u1, u2))
    return u, u1, u2, d.to(dtype), torch.tensor([[[0, 0], [0, 1], [0, 4]]]), torch.tensor([0.5, 1.0], dtype=dtype)


def test_by_hand(backend):
    u, u1, u2, d, centers, levels = hand_case(backend.widest)
    out = of_maps(backend, u, u1, u2, d, centers, levels, order_weight=2.0, distance_weight=3.0, far_weight=4.0)
    # order: w12 = (-.2, .3) * .5; w1 = (.1, -.1) * .5; w2 = (-.1, .2) * 1 -> .1 + .05 + .1
    assert out.order.item() == pytest.approx(0.25, rel=RELATIVE[backend.widest])
    # distance: Δ¹ = (.1, -.1, 0): v01 = -2 * .2 < 0; v02 = -5 * .1 < 0; v12 = -3 * -.1 = .3          -> .3
    #           Δ² = (-.1, .2, 0): v01 = -2 * -.3 = .6; v02 = -5 * -.1 = .5; v12 = -3 * .2 < 0         -> .55
    assert out.distance.item() == pytest.approx(0.85, rel=RELATIVE[backend.widest])
    # far: voxels 2, 3, 4: (.1 + .2 + .3 + .1 + .2 + .9 + .1 + .2 + .7) / 3
    assert out.far.item() == pytest.approx(2.8 / 3, rel=RELATIVE[backend.widest])
    assert out.total.item() == pytest.approx(2 * 0.25 + 3 * 0.85 + 4 * 2.8 / 3, rel=RELATIVE[backend.widest])
    g1, g2 = torch.autograd.grad(out.order, (u1, u2))
    np.testing.assert_allclose(g1[0, 0, :2], [0.5, -0.5], rtol=1e-5)
    np.testing.assert_allclose(g2[0, 0, :2], [-1.5, 0.0], rtol=1e-5, atol=1e-6)


def test_invalid_centers_and_truncated_distances(backend):
    u, u1, u2, d, centers, levels = hand_case(backend.widest)
    valid = torch.tensor([[True, True, False]])
    out = of_maps(backend, u, u1, u2, d, centers, levels, valid=valid)
    assert out.order.item() == pytest.approx(0.25, rel=RELATIVE[backend.widest])
    assert out.distance.item() == pytest.approx(0.6, rel=RELATIVE[backend.widest])  # only the pair (0, 1)
    truncated = of_maps(backend, u, u1, u2, d.masked_fill(d > 4, math.inf), centers, levels)
    assert truncated.distance.item() == pytest.approx(0.6, rel=RELATIVE[backend.widest])
    assert truncated.far.item() == pytest.approx(2.8 / 3, rel=RELATIVE[backend.widest])


def test_nothing_near_nothing_far(backend):
    u = torch.rand(2, 4, 4, requires_grad=True)
    centers = torch.zeros(2, 3, 2, dtype=torch.long)
    near = of_maps(backend, u, u, u, torch.zeros(2, 4, 4), centers, torch.rand(2))
    assert [v.item() for v in near] == [0, 0, 0, 0]
    none = of_maps(backend, u, u, u, torch.full((2, 4, 4), math.inf), centers[:, :0], torch.rand(2))
    assert none.order.item() == none.distance.item() == 0
    assert none.far.item() == pytest.approx(3 * u.mean().item(), rel=1e-6)


def case(shape, dtype=torch.float32, patches=6, classes=3):
    """Logits of an image and its two noisy copies, distances, centers, levels and which centers exist."""
    generator = torch.Generator().manual_seed(0)
    z = [random((shape[0], classes, *shape[1:]), dtype, seed=k) for k in range(3)]
    d = torch.rand(shape, generator=generator) * 8
    sizes = [max(s, 1) for s in shape[1:]]
    centers = torch.stack([torch.randint(0, s, (shape[0], patches), generator=generator) for s in sizes], -1)
    valid = torch.rand((shape[0], patches), generator=generator) < 0.8
    return z, d, centers, torch.tensor([0.3, 0.9]), valid


def run(backend, z, d, centers, levels, valid, **options):
    """The terms, and the gradient of a weighted sum of them in all three logits."""
    leaves = [backend.leaf(x) for x in z]
    out = backend(*leaves, d, centers, levels, valid=valid, **options)
    total = out.order * 3 + out.distance * 2 + out.far
    return torch.stack(out[1:]).detach(), torch.autograd.grad(1024 * total, leaves)


def check(kernel, z, *others, **options):
    terms, gradients = run(kernel, z, *others, **options)
    want, wanted = run(REFERENCE, [x.double() for x in z], *others, **options)
    assert terms.dtype == torch.promote_types(z[0].dtype, torch.float32)
    kernel.agree(terms, want)
    for got, x, g in zip(gradients, z, wanted, strict=True):
        assert got.dtype == x.dtype
        kernel.agree(got, g, scaled=True)
    return terms, gradients


@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 40, 31), (1, 1, 1)], ids=str)
def test_kernel_agrees_with_the_reference(shape, evidence, variant, dtype):
    check(variant, *case(shape, dtype), evidence=evidence)


@on("cpu")
@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
@pytest.mark.parametrize("shape", [(3, 70, 61), (1, 20, 21, 22)], ids=str)
def test_large_images_agree_with_the_reference(shape, evidence, kernel, dtype):
    check(kernel, *case(shape, dtype), evidence=evidence)


@pytest.mark.parametrize("layout", ["channels_last", "halves of a batch", "transposed"])
def test_strides_change_nothing(layout, kernel):
    z, d, centers, levels, valid = case((2, 5, 6, 7) if kernel.interpreted else (2, 40, 30, 11))
    both = torch.cat(z[1:])
    turned = [z[0], both[:2], both[2:]] if "halves" in layout else [strided(x, layout) for x in z]
    others = [strided(x, "transposed") for x in (d, centers)]
    others += [strided(levels, "every other voxel"), strided(valid, "transposed")]
    assert_same_bits([check(kernel, turned, *others), run(kernel, z, d, centers, levels, valid)])


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 40, 31), (1, 1, 1), (2, 40, 30, 11)], ids=str)
def test_same_bits_however_it_runs(shape, variant):
    arguments = case([min(size, 40) for size in shape[:3]] if variant.interpreted else shape)
    assert_same_bits(run(variant, *arguments) for _ in variant.ways())


def test_many_centers_and_one_voxel_drawn_twice(kernel):
    z, d, centers, levels, valid = case((1, 20, 21), kernel.widest, patches=130)
    check(kernel, z, d, centers, levels, valid)
    check(kernel, z, d * 0 + 1, centers[:, :7] * 0 + 3, levels, valid[:, :7] | True)


def test_distances_of_one_kind_and_no_centers(kernel):
    z, d, centers, levels, valid = case((2, 4, 5))
    for distance in (d * 0, d + math.inf, d + 5):
        for exist in (valid, valid & False):
            check(kernel, z, distance, centers, levels, exist)
    check(kernel, z, d, centers[:, :0], levels, valid[:, :0])
    check(kernel, *case((2, 0, 5), patches=0))


def test_reference_gradcheck():
    z, d, centers, levels, _ = case((2, 3, 4, 5), torch.float64)
    z = [x.requires_grad_() for x in z]

    def total(z1, z2):
        return REFERENCE(z[0], z1, z2, d, centers, levels).total

    assert torch.autograd.gradcheck(total, z[1:], eps=1e-7)


@on("triton")
@pytest.mark.parametrize("shape", [(2, 60, 55), (1, 9, 50, 40)], ids=str)
def test_from_bytes(shape, kernel):
    """The fused training step gives squared distances in bytes, and u of the clean far voxels itself."""
    from sure_fast.kernels import noise_uncertainty_loss as kernels

    z, _, centers, levels, valid = case(shape)
    centers[:, 0], centers[:, 1], valid[:, :2] = 1, 4, True
    label = torch.zeros(shape, dtype=torch.int64)
    label[:, :3, :3] = 1
    label[:, -1, -1] = 2
    exact = sure_fast.boundary_distance(label, ignore_index=2, backend="reference")
    steps = (exact**2).round()
    squared = torch.where(steps <= 16, steps, 255.0).masked_fill(label == 2, 254).to(torch.uint8)
    exact = exact.masked_fill(label == 2, math.nan)
    z, centers, levels, valid, exact, squared = kernel.put((z, centers, levels, valid, exact, squared))
    settings = (centers, levels, valid, 4.0, "softplus")
    by_terms, results = kernel.put(random((2,), torch.float64, 3.0)), []
    for arguments in ({"distance": exact}, {"squared": squared, "clean_far": False}):
        a = kernels.Arguments(tuple(z), *settings, **arguments)
        terms, far, at_centers = (
            torch.full(size, math.nan, dtype=torch.float64, device=kernel.device)
            for size in ((2,), (4,), (2, 2, centers.shape[0] * 6))
        )
        far = far if "distance" in arguments else far[:2]
        kernels.forward(a, terms, far, at_centers)
        gradients = [torch.full_like(x, math.nan).flatten(2) for x in z]
        coefficients = kernel.put(torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64))
        kernels.backward(a, coefficients, by_terms, at_centers, gradients)
        results.append((terms, far[-3:-1] if "distance" in arguments else far, at_centers, *gradients[1:]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert float(results[1][0][1]) != 0


@on("triton")
def test_distances_in_float64_are_refused(kernel):
    z, d, *others, valid = case((2, 4, 5))
    with pytest.raises(ValueError, match="the distance is float64"):
        kernel(*z, d.double(), *others, valid=valid)


def test_operator_is_registered_properly_and_compiles_whole(kernel):
    z, d, centers, levels, valid = kernel.put(case((2, 4, 5) if kernel.interpreted else (2, 3, 4, 5)))
    z = [x.requires_grad_() for x in z]
    torch.library.opcheck(
        torch.ops.sure_fast.noise_uncertainty_loss.default,
        (*z, d, centers, levels, valid, 4.0, "softplus", kernel.name),
    )

    def step(*z):
        return sure_fast.noise_uncertainty_loss(*z, d, centers, levels, backend=kernel.requested).total

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(*z), z[1:]) for f in (compiled, step))
    torch.testing.assert_close((compiled(*z), *got), (step(*z), *want))


def test_nan_stays_nan_and_half_precision(backend):
    u, u1, u2, d, centers, levels = hand_case(torch.float32)
    spoiled = u1.detach().clone()
    spoiled[0, 0, 0] = math.nan
    out = of_maps(backend, u, spoiled, u2, d.float(), centers, levels)
    assert out.order.isnan()
    assert out.distance.isnan()
    want = of_maps(backend, u, u1, u2, d.float(), centers, levels).total.item()
    half = of_maps(backend, u.bfloat16(), u1.bfloat16(), u2.bfloat16(), d.float(), centers, levels).total
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(want, rel=0.03)


def test_nan_at_a_near_center_is_not_far(backend):
    z, d, centers, levels, valid = case((2, 4, 5))
    d[0, 0, 0], centers[0, 0], valid[0, 0] = 1.0, 0, True
    z[1][0, 1, 0, 0] = math.nan
    out = backend(*z, d, centers, levels, valid=valid)
    assert out.order.isnan()
    assert out.distance.isnan()
    assert not out.far.isnan()


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
def test_errors_name_the_argument(arguments, error, text, backend):
    zeros = torch.zeros(1, 2, 4, 4)
    defaults = {
        "logits": zeros, "noisy1": zeros, "noisy2": zeros, "distance": zeros[:, 0],
        "centers": torch.zeros(1, 2, 2, dtype=torch.long), "levels": torch.rand(2),
    }  # fmt: skip
    with pytest.raises(error, match=text):
        backend(**{**defaults, **arguments})
