"""The Triton kernels against the float64 reference: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import torch

import sure_fast
from sure_fast.ops import _triton
from tests.ops.test_boundary_distance import labels
from tests.ops.test_evidential_loss import strided
from tests.ops.triton_cases import DEVICE, DTYPES, GRADIENT_SHAPES, LAYOUTS, SHAPES, agree, evidential_case, random

# --- scalar formulas ---------------------------------------------------------------------------------------------


def evaluate(name: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from tests.kernels.formula import formula

    v = torch.from_numpy(x).to(DEVICE)
    out = [torch.full_like(v, math.nan) for _ in range(2)]
    formula[(-(-len(v) // 4096),)](v, *out, len(v), name, 4096)
    return tuple(o.double().cpu().numpy() for o in out)


def test_gamma_family():
    x = np.concatenate([1 + np.logspace(-7, 2, 20_001), np.logspace(0, 2, 20_001), [1.0, 5.0]]).astype(np.float32)
    wide = x.astype(np.float64)
    psi, gamma = scipy.special.digamma(wide), scipy.special.gammaln(wide)
    trigamma = scipy.special.polygamma(1, wide)
    entropic = (wide - 1) * psi - gamma - wide
    for got, want in zip(evaluate(2, x), (psi, entropic), strict=True):
        assert np.max(np.abs(got - want) / np.maximum(np.abs(want), 1)) < 1e-6
    got, slope = evaluate(3, x)
    assert np.max(np.abs(got / trigamma - 1)) < 1e-6
    assert np.max(np.abs(slope - ((wide - 1) * trigamma - 1))) < 1e-6
    assert np.max(np.abs(evaluate(0, x)[0] - np.log(wide)) / np.maximum(np.log(wide), 1)) < 3e-7


def test_evidence_functions():
    z = np.concatenate([np.linspace(-80, 80, 40_001), np.linspace(-1, 1, 4_001)]).astype(np.float32)
    softplus, sigmoid = evaluate(1, z)
    wide = z.astype(np.float64)
    # the hardware's exponential: 1.2 ulp per unit of the argument
    bound = 5e-7 + 1.2 * 2**-23 * np.abs(wide)
    assert np.all(np.abs(softplus / np.logaddexp(0, wide) - 1) < bound)
    assert np.all(np.abs(sigmoid / scipy.special.expit(wide) - 1) < bound)
    t = np.logspace(-30, 0, 4001).astype(np.float32)
    assert np.max(np.abs(evaluate(0, t)[1] / np.log1p(t.astype(np.float64)) - 1)) < 3e-7


# --- choice of the backend ---------------------------------------------------------------------------------------


def test_reasons(monkeypatch):
    z = torch.zeros(1, 2, 4, 4)
    assert _triton.why_not("logits", z.to(DEVICE)) is None
    assert _triton.why_not("logits", z.to("meta")) == "logits is on meta, not on a CUDA device"
    assert "float64" in _triton.why_not("logits", z.to(DEVICE).double())
    many = torch.zeros(1, 2, 1, 1, device=DEVICE).expand(65536, 2, 1, 1)
    assert _triton.why_not("logits", many) == "logits has 65536 images, more than 65535"
    large = torch.zeros(1, 2, 1, 1, device=DEVICE).expand(1, 2, 2**20, 2**20)
    assert _triton.why_not("logits", large) == "logits has 2199023255552 elements, more than 2^40"
    monkeypatch.setattr(_triton, "MISSING", "Triton is not installed")
    with pytest.raises(ValueError, match="backend 'triton' was requested, but Triton is not installed"):
        sure_fast.dirichlet_uncertainty(z.to(DEVICE), backend="triton")
    monkeypatch.setattr(_triton.importlib.metadata, "version", lambda _: "3.5.1")
    assert _triton._missing() == "Triton 3.5.1 is installed, 3.6 or later is needed"


def test_cpu_tensors_keep_their_kernels():
    found = sure_fast.explain("dirichlet_uncertainty", torch.zeros(1, 2, 4, 4))
    assert [c.backend for c in found if c.chosen] == ["cpu"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    code = "import sure_fast, torch; print(sure_fast.explain('dirichlet_uncertainty', torch.zeros(1, 2, 4, 4)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "triton     logits is on cpu, not on a CUDA device" in done.stdout


# --- dirichlet_uncertainty ---------------------------------------------------------------------------------------


def uncertainty(z, weight, **options):
    z = z.detach().requires_grad_()
    u = sure_fast.dirichlet_uncertainty(z, **options)
    return u.detach(), torch.autograd.grad(u, z, weight.to(u))[0]


def check_uncertainty(z, **options):
    weight = random((z.shape[0], 1, *z.shape[2:]), z.dtype, seed=1)
    u, gradient = uncertainty(z, weight, backend="triton", **options)
    want, want_gradient = uncertainty(z.double(), weight, backend="reference", **options)
    assert u.dtype == gradient.dtype == z.dtype
    agree(u, want, z.dtype)
    agree(gradient, want_gradient, z.dtype, scaled=True)
    again = uncertainty(z, weight, backend="triton", **options)
    assert torch.equal(u, again[0])
    assert torch.equal(gradient, again[1])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dirichlet_uncertainty(shape, dtype):
    check_uncertainty(random(shape, dtype))


@pytest.mark.parametrize("layout", [*LAYOUTS[1:], "expanded"])
@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
def test_dirichlet_uncertainty_strides_and_evidence(layout, evidence):
    z = random((2, 3, 5, 6, 7), scale=6.0)
    check_uncertainty(z[:1].expand_as(z) if layout == "expanded" else strided(z, layout), evidence=evidence)


def test_dirichlet_uncertainty_nan_and_range():
    z = random((1, 3, 4, 5))
    z[0, 0, 0, 0], z[0, 1, 1, 1], z[0, 2, 2, 2] = math.nan, math.inf, -math.inf
    u = sure_fast.dirichlet_uncertainty(z, backend="triton")
    assert u.isnan().sum() == 2
    none = sure_fast.dirichlet_uncertainty(torch.full_like(z, -1), evidence="relu", backend="triton")
    assert torch.equal(none, torch.ones_like(none))
    assert sure_fast.dirichlet_uncertainty(z, evidence="exp", backend="triton").isnan().sum() == 1


# --- gradient_magnitude ------------------------------------------------------------------------------------------


def check_gradient(image, **options):
    got = sure_fast.gradient_magnitude(image, backend="triton", **options)
    want = sure_fast.gradient_magnitude(image.double(), backend="reference", **options)
    assert got.dtype == image.dtype
    assert got.shape == want.shape
    agree(got, want, image.dtype)
    return got


@pytest.mark.parametrize("shape", GRADIENT_SHAPES, ids=str)
@pytest.mark.parametrize("operator", ["sobel", "central"])
def test_gradient_magnitude(shape, operator):
    image, spacing = random(shape, scale=1.0), [1.0, 2.0, 0.7][: len(shape) - 2]
    for channels in ("luma", "max") if shape[1] in (1, 3) else ("mean", "max"):
        check_gradient(image, operator=operator, channels=channels, spacing=spacing)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_gradient_magnitude_in_half_precision(dtype):
    for shape in ((2, 1, 13, 70), (1, 3, 3, 5, 17)):
        check_gradient(random(shape, dtype, 1.0))


@pytest.mark.parametrize("layout", [*LAYOUTS[1:], "expanded"])
def test_gradient_magnitude_strides(layout):
    image = random((2, 3, 3, 6, 7), scale=1.0)
    image = image[:1].expand_as(image) if layout == "expanded" else strided(image, layout)
    got = check_gradient(image)
    assert torch.equal(got, sure_fast.gradient_magnitude(image.contiguous(), backend="triton"))


def test_gradient_magnitude_of_many_channels_and_nan():
    check_gradient(random((1, 5, 8, 9), scale=1.0), channels="mean")
    image = random((1, 1, 7, 7, 7))
    image[0, 0, 3, 3, 3] = math.nan
    got = sure_fast.gradient_magnitude(image, backend="triton")[0, 0].isnan()
    assert got[2:5, 2:5, 2:5].sum() >= 26
    assert got.sum() == got[2:5, 2:5, 2:5].sum()
    with pytest.raises(ValueError, match="image: requires grad"):
        sure_fast.gradient_magnitude(image.requires_grad_(), backend="triton")


# --- segmentation_stats ------------------------------------------------------------------------------------------


def check_stats(z, y, exact=False, **options):
    got = sure_fast.segmentation_stats(z, y, backend="triton", **options)
    want = sure_fast.segmentation_stats(z.float(), y, backend="reference", **options)
    assert torch.equal(got.confusion, want.confusion)
    for name in ("number", "hits", "uncertainty", "errors"):
        a, b = getattr(got, name), getattr(want, name)
        assert a.dtype == b.dtype
        assert torch.equal(a.sum(-1), b.sum(-1)), name
        # a probability within a rounding of a bin's edge may fall on either side
        assert int((a - b).abs().sum()) <= (0 if exact else 4), name
    torch.testing.assert_close(got.confidence.sum(-1), want.confidence.sum(-1), rtol=1e-6, atol=1e-6)
    again = sure_fast.segmentation_stats(z, y, backend="triton", **options)
    assert all(torch.equal(a, b) for a, b in zip(again, got, strict=True))
    return got, want


@pytest.mark.parametrize("shape", [*SHAPES.values(), (1, 3, 5, 17, 16)], ids=str)
@pytest.mark.parametrize("evidence", ["softplus", "relu"])
def test_segmentation_stats(shape, evidence):
    z, y = evidential_case(shape, scale=4.0)
    check_stats(z, y, evidence=evidence, bins=7, levels=33, ignore_index=-1)


def test_segmentation_stats_of_exact_probabilities():
    # halves, ties and the edges of bins: alpha = 1 + e is exact
    z = torch.randint(0, 2, (1, 2, 20, 60), generator=torch.Generator().manual_seed(0)).to(DEVICE, torch.float32) * 2
    y = torch.randint(0, 2, (1, 20, 60), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    got, want = check_stats(z, y, exact=True, evidence="relu", bins=4, levels=3)
    torch.testing.assert_close(got.confidence, want.confidence, rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_segmentation_stats_in_half_precision(dtype):
    z, y = evidential_case((2, 4, 9, 31), dtype, scale=4.0)
    check_stats(strided(z, "channels_last"), y.abs().to(torch.uint8), levels=1, bins=1)


def test_segmentation_stats_nan_and_labels_out_of_range():
    from sure_fast.kernels import segmentation_stats as kernels

    z, y = evidential_case((2, 3, 9, 11))
    z[0, 1, 0, 0], y[0, 0, 0] = math.nan, 0
    s = sure_fast.segmentation_stats(z, y, ignore_index=-1, backend="triton")
    assert bool(s.confidence[0, :, 0].isnan().all())
    assert not s.confidence[0, :, 1:].isnan().any()
    assert not s.confidence[1].isnan().any()
    assert int(s.confusion.sum()) == int((y >= 0).sum())
    y[1, 2, 3] = 2**33
    records = kernels.forward(z, y, "softplus", 10, 100, -1)
    assert records[:, -1].tolist() == [0, 1]
    assert int(records[:, :9].sum()) == int((y >= 0).sum()) - 1
    if DEVICE == "cpu":
        with pytest.raises(ValueError, match="target: expected labels in"):
            sure_fast.segmentation_stats(z, y, ignore_index=-1, backend="triton")


# --- boundary_distance -------------------------------------------------------------------------------------------


def check_distance(label, **options):
    got = sure_fast.boundary_distance(label, backend="triton", **options)
    want = sure_fast.boundary_distance(label, backend="reference", **options)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=3e-7, atol=0)
    return got


@pytest.mark.parametrize("shape", [(2, 13, 31), (1, 6, 7, 9), (1, 1, 25), (1, 2, 1, 22), (1, 18, 2, 3)], ids=str)
@pytest.mark.parametrize("spacing", [(1.2, 0.7, 5.0), (0.7, 0.7, 0.7)])
def test_boundary_distance(shape, spacing):
    label = labels(shape).to(DEVICE)
    spacing = spacing[: len(shape) - 1]
    for limit in (None, 0.0, 4.0, 30.0):
        check_distance(label, spacing=spacing, max_distance=limit)
    check_distance(label, max_distance=2.1, ignore_index=1)
    check_distance(label, ignore_index=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_boundary_distance_dtypes_strides_and_far_labels(dtype):
    label = labels((1, 5, 6, 7)).to(DEVICE)
    limits = torch.iinfo(dtype)
    values = torch.tensor([limits.min, 1, limits.max], device=DEVICE, dtype=dtype)[label]
    for ignore in (None, limits.max, limits.min):
        want = check_distance(label, max_distance=3.0, ignore_index={limits.max: 2, limits.min: 0}.get(ignore))
        views = [values, values.transpose(1, 3).contiguous().transpose(1, 3), values.repeat(1, 1, 1, 2)[..., :7]]
        for view in views:
            assert torch.equal(check_distance(view, max_distance=3.0, ignore_index=ignore), want)


def test_boundary_distance_small_objects_and_none():
    for shape in ((1, 9, 60), (1, 12, 3, 4)):
        label = torch.zeros(shape, dtype=torch.int64, device=DEVICE)
        assert check_distance(label).isinf().all()
        label.flatten()[label.numel() // 2 + 3] = 1
        for options in ({"spacing": 0.3}, {"max_distance": 20.0}, {"max_distance": 15.5}):
            check_distance(label, **options)
    for shape in ((0, 4, 5), (2, 0, 5), (2, 3, 0, 5)):
        assert check_distance(torch.zeros(shape, dtype=torch.long, device=DEVICE), max_distance=2).shape == shape


def test_boundary_distance_in_bytes():
    """Squared distances as the fused training step keeps them."""
    from sure_fast.kernels import boundary_distance as kernels
    from sure_fast.ops.boundary_distance import squared_steps

    for shape in ((2, 21, 40), (1, 9, 10, 11)):
        label = labels(shape)
        for limit, ignore in ((4.0, None), (1.0, 2), (15.8, 1)):
            got = torch.full(shape, 77, dtype=torch.uint8, device=DEVICE)
            kernels.forward(label.to(DEVICE), [1.0] * (len(shape) - 1), limit, ignore, got)
            want = torch.full(shape, 77, dtype=torch.uint8)
            squared_steps(label, limit, ignore, want)
            assert torch.equal(got.cpu(), want)


# --- the operators -----------------------------------------------------------------------------------------------


def test_operators_are_registered_properly_and_compile_whole():
    ops = torch.ops.sure_fast
    z, y = evidential_case((2, 3, 4, 5))
    y, d, grad = y.abs(), torch.rand(2, 4, 5, device=DEVICE) * 8, z.detach().requires_grad_()
    centers, levels = torch.ones(2, 3, 2, dtype=torch.int64, device=DEVICE), torch.tensor([0.3, 0.9], device=DEVICE)
    weights = torch.rand(3, dtype=torch.float64)
    for op, arguments in (
        (ops.dirichlet_uncertainty, (grad, "softplus")),
        (ops.gradient_magnitude, (z, "sobel", [1.0, 2.0], "luma")),
        (ops.evidential_loss, (grad, y, "mse", "exp", 1, weights, False, True, True)),
        (ops.noise_uncertainty_loss, (grad, grad, grad, d, centers, levels, centers[..., 0] == 1, 4.0, "softplus")),
        (ops.segmentation_stats, (z, y, "softplus", 10, 100, None)),
        (ops.boundary_distance, (y, [1.0, 2.0], 3.0, None)),
    ):
        torch.library.opcheck(op.default, (*arguments, "triton"))

    def step(z):
        u = sure_fast.dirichlet_uncertainty(z, backend="triton")
        loss = sure_fast.evidential_loss(z, y, class_weights=[1, 2, 3], backend="triton")
        distance = sure_fast.boundary_distance(y, max_distance=4.0, backend="triton")
        noise = sure_fast.noise_uncertainty_loss(z, z, z, distance, centers, levels, backend="triton")
        stats = sure_fast.segmentation_stats(z, y, backend="triton")
        g = sure_fast.gradient_magnitude(z.detach(), backend="triton")
        return loss.data + loss.kl + loss.dice + noise.total + (u * g).sum() + stats.confidence.sum()

    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        x = z.detach().clone().requires_grad_()
        out = function(x)
        results.append((out.detach(), torch.autograd.grad(out, x)[0]))
    torch.testing.assert_close(*results)
