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
from tests._tolerances import tolerance
from tests.ops.test_evidential_loss import strided

if _triton.MISSING is not None:
    pytest.skip(_triton.MISSING, allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = ["contiguous", "channels_last", "channel slice", "every other voxel", "transposed"]
SHAPES = {
    "2d": (2, 4, 17, 23),
    "3d": (2, 3, 5, 6, 7),
    "one voxel": (1, 2, 1, 1),
    "more than a block": (1, 2, 40, 61),
    "many classes": (1, 40, 3, 5),
    "empty batch": (0, 3, 4, 4),
    "empty axis": (2, 3, 0, 4),
}
GRADIENT_SHAPES = [
    (2, 1, 13, 70), (1, 3, 4, 5, 17), (1, 1, 19, 3, 5), (1, 2, 1, 2, 30), (2, 1, 9, 1), (1, 1, 1, 1, 1),
    (1, 1, 2, 13, 22), (0, 1, 4, 4), (1, 1, 0, 4),
]  # fmt: skip


def random(shape, dtype=torch.float32, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale).to(DEVICE, dtype)


def agree(got, want, dtype, what="", *, scaled=False):
    """`scaled`: relative to the largest."""
    scale = want.abs().max().clamp(min=1e-30) if scaled and want.numel() else 1.0
    bounds = tolerance(dtype, what)
    if dtype == torch.bfloat16 and DEVICE == "cpu":  # the interpreter cuts the mantissa off instead of rounding it
        bounds["rtol"] = max(bounds["rtol"], 2**-7)
    torch.testing.assert_close(got.double() / scale, want / scale, **bounds)


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


def test_import_needs_no_triton():
    code = "import sure_fast, sys; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


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


# --- evidential_loss ---------------------------------------------------------------------------------------------


def evidential(z, target, weight, **options):
    """Every output of the loss, and the gradient of a weighted sum of all that is differentiable."""
    z = z.detach().requires_grad_()
    out = sure_fast.evidential_loss(z, target, epoch=7, return_uncertainty=True, **options)
    total = sum(((k + 1) * weight[: x.numel()].reshape(x.shape) * x.double()).sum() for k, x in enumerate(out))
    # Scaled as a GradScaler does: the gradient of a mean falls below the normal range of float16.
    return [x.detach() for x in out], torch.autograd.grad(256 * total, z)[0]


def check_evidential(z, target, **options):
    # eighths, which half precision holds, as the gradient of u is rounded to
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(1, 8, (max(z.numel(), 1),), generator=generator).to(DEVICE).double() / 8
    got, gradient = evidential(z, target, weight, backend="triton", **options)
    want, want_gradient = evidential(z.double(), target, weight, backend="reference", **options)
    for a, b in zip(got[:4], want[:4], strict=True):
        assert a.dtype == torch.float32
        agree(a, b, torch.float32, "evidential_loss.voxels")
    assert got[4].dtype == gradient.dtype == z.dtype
    agree(got[4], want[4], z.dtype)
    agree(gradient, want_gradient, z.dtype, "evidential_loss.gradient", scaled=True)
    return got, gradient


def evidential_case(shape, dtype=torch.float32, scale=3.0, regions=False):
    z, generator = random(shape, dtype, scale), torch.Generator().manual_seed(2)
    size = shape if regions else (shape[0], *shape[2:])
    target = torch.randint(0, 2 if regions else shape[1], size, generator=generator)
    target[torch.rand(size, generator=generator) < 0.2] = -1
    return z, target.to(DEVICE)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", ["digamma", "log", "mse"])
def test_evidential_loss(shape, kind):
    z, target = evidential_case(shape)
    first = check_evidential(z, target, kind=kind, ignore_index=-1)
    if kind == "digamma":
        again = check_evidential(z, target, kind=kind, ignore_index=-1)
        assert all(torch.equal(a, b) for a, b in zip((*first[0], first[1]), (*again[0], again[1]), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("regions", [False, True])
def test_evidential_loss_in_half_precision(dtype, regions):
    z, target = evidential_case((2, 3, 9, 31), dtype, regions=regions)
    check_evidential(z, target, ignore_index=-1, regions=regions)


@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
@pytest.mark.parametrize(("scale", "regions"), [(0.01, False), (20.0, False), (1.0, True), (20.0, True)])
def test_evidential_loss_evidence(evidence, scale, regions):
    z, target = evidential_case((2, 3, 9, 11), scale=scale, regions=regions)
    check_evidential(z, target, evidence=evidence, ignore_index=-1, regions=regions)


@pytest.mark.parametrize("layout", [*LAYOUTS[1:], "expanded"])
@pytest.mark.parametrize(
    ("form", "reduction"), [("weights", "none"), ("weighted regions", "none"), ("regions", "mean")]
)
def test_evidential_loss_options(layout, form, reduction):
    z, target = evidential_case((2, 3, 5, 6, 7), regions="regions" in form)
    z = z[:1].expand_as(z) if layout == "expanded" else strided(z, layout)
    weights = [0.5, 0.0, 2.0] if "weight" in form else None
    kind = {"weights": "digamma", "regions": "log", "weighted regions": "mse"}[form]
    check_evidential(
        z, target, kind=kind, class_weights=weights, regions="regions" in form, reduction=reduction, ignore_index=-1
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_evidential_loss_label_dtypes(dtype):
    z, target = evidential_case((2, 3, 6, 7))
    target = target.abs()
    want = sure_fast.evidential_loss(z, target, backend="triton")
    assert torch.equal(sure_fast.evidential_loss(z, target.to(dtype)[:, None], backend="triton").total, want.total)


@pytest.mark.parametrize("kind", ["digamma", "log", "mse"])
def test_evidential_loss_nan_and_labels_out_of_range(kind):
    from sure_fast.kernels import evidential_loss as kernels

    for value in (math.nan, math.inf):
        z, target = evidential_case((1, 3, 4, 40))
        z[0, 1, 2, 3] = value
        target[0, 2, 3] = 0
        z.requires_grad_()
        out = sure_fast.evidential_loss(z, target, kind=kind, ignore_index=-1, backend="triton")
        assert out.data.isnan()
        assert out.kl.isnan()
        assert torch.autograd.grad(out.total, z)[0][0, :, 2, 3].isnan().all()
    # on the CPU the op says so; on a GPU nobody waits to look, and the loss is NaN
    z, target = evidential_case((1, 3, 4, 40))
    for label in (3, -2, 2**40):
        target[0, 1, 1] = label
        assert kernels.forward(z, target, 0, 0, -1, None, False)[0].isnan().tolist() == [True] + [False] * 10
        if DEVICE == "cpu":
            with pytest.raises(ValueError, match="target: expected labels in"):
                sure_fast.evidential_loss(z, target, ignore_index=-1, backend="triton")


def test_evidential_loss_far_voxels_and_scaled_slopes():
    """What the fused training step adds: u over the far voxels, and a slope of every voxel's u times a scalar."""
    from sure_fast.kernels import evidential_loss as kernels

    z, target = evidential_case((2, 3, 20, 41))
    squared = torch.randint(0, 256, target.shape, generator=torch.Generator().manual_seed(3)).to(DEVICE, torch.uint8)
    far, slope = (squared > 16) & (target != -1), random(target.shape)
    sums = kernels.forward(z, target, 0, 0, -1, None, False, squared=squared, far_above=16)
    wide = z.double().requires_grad_()
    u = sure_fast.dirichlet_uncertainty(wide, backend="reference")[:, 0]
    agree(sums[0, -2], u[far].sum(), torch.float32)
    assert int(sums[0, -1]) == int(far.sum())
    plain = kernels.forward(z, target, 0, 0, -1, None, False)
    assert torch.equal(sums[:, :-2], plain)
    loss = sure_fast.evidential_loss(wide, target, ignore_index=-1, backend="reference")
    number = int((target != -1).sum())
    (0.5 * number * loss.data + 3.0 * u[far].sum() + 0.25 * (slope.double() * u).sum()).backward()
    coefficients = torch.zeros_like(sums)
    coefficients[0, 0], coefficients[0, -2] = 0.5, 3.0
    scale = torch.full((), 0.25, dtype=torch.float64, device=DEVICE)
    got = kernels.backward(
        coefficients, z, target, 0, 0, -1, None, False, uncertainty=slope, scale=scale, squared=squared, far_above=16
    )
    agree(got, wide.grad, torch.float32, "evidential_loss.gradient", scaled=True)


# --- noise_uncertainty_loss --------------------------------------------------------------------------------------


def noise_case(shape, dtype=torch.float32, classes=3, patches=6):
    generator = torch.Generator().manual_seed(0)
    z = [random((shape[0], classes, *shape[1:]), dtype, 1.0, seed=k) for k in range(3)]
    d = torch.rand(shape, generator=generator) * 8
    centers = torch.stack(
        [torch.randint(0, max(s, 1), (shape[0], patches), generator=generator) for s in shape[1:]], -1
    )
    valid = torch.rand((shape[0], patches), generator=generator) < 0.8
    return z, *(t.to(DEVICE) for t in (d, centers, torch.tensor([0.3, 0.9]), valid))


def noise_terms(z, d, centers, levels, valid, **options):
    z = [x.detach().requires_grad_() for x in z]
    out = sure_fast.noise_uncertainty_loss(*z, d, centers, levels, valid=valid, **options)
    total = 1024 * (out.order * 3 + out.distance * 2 + out.far)
    return torch.stack(out[1:]).detach(), torch.autograd.grad(total, z)


def check_noise(z, *case, **options):
    terms, gradients = noise_terms(z, *case, backend="triton", **options)
    want, wanted = noise_terms([x.double() for x in z], *case, backend="reference", **options)
    agree(terms, want, torch.float32)
    for x, got, g in zip(z, gradients, wanted, strict=True):
        assert got.dtype == x.dtype
        agree(got, g, x.dtype, scaled=True)
    return terms, gradients


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 40, 31), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
def test_noise_uncertainty_loss(shape, evidence):
    case = noise_case(shape)
    first, again = (check_noise(*case, evidence=evidence) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_noise_uncertainty_loss_in_half_precision(dtype):
    check_noise(*noise_case((2, 9, 31), dtype))


@pytest.mark.parametrize("layout", ["channels_last", "halves of a batch", "transposed"])
def test_noise_uncertainty_loss_strides(layout):
    z, *case = noise_case((2, 5, 6, 7))
    both = torch.cat(z[1:])
    check_noise([z[0], both[:2], both[2:]] if "halves" in layout else [strided(x, layout) for x in z], *case)


def test_noise_uncertainty_loss_many_centers_and_one_voxel_drawn_twice():
    z, d, centers, levels, valid = noise_case((1, 20, 21), patches=130)
    check_noise(z, d, centers, levels, valid)
    check_noise(z, d * 0 + 1, centers[:, :7] * 0 + 3, levels, valid[:, :7] | True)


def test_noise_uncertainty_loss_nothing_and_nan():
    z, d, centers, levels, valid = noise_case((2, 4, 5))
    for distance in (d * 0, d + math.inf, d + 5):
        for exist in (valid, valid & False):
            check_noise(z, distance, centers, levels, exist)
    check_noise(z, d, centers[:, :0], levels, valid[:, :0])
    empty = noise_case((2, 0, 5), patches=0)
    check_noise(*empty)
    d[0, 0, 0], centers[0, 0], valid[0, 0] = 1.0, 0, True
    z[1][0, 1, 0, 0] = math.nan
    out = sure_fast.noise_uncertainty_loss(*z, d, centers, levels, valid=valid, backend="triton")
    assert out.order.isnan()
    assert out.distance.isnan()
    assert not out.far.isnan()
    with pytest.raises(ValueError, match="the distance is float64"):
        sure_fast.noise_uncertainty_loss(*z, d.double(), centers, levels, backend="triton")


@pytest.mark.parametrize("shape", [(2, 60, 55), (1, 9, 50, 40)], ids=str)
def test_noise_uncertainty_loss_from_bytes(shape):
    """The fused training step gives squared distances in bytes, and u of the clean far voxels itself."""
    from sure_fast.kernels import noise_uncertainty_loss as kernels

    z, _, centers, levels, valid = noise_case(shape)
    centers[:, 0], centers[:, 1], valid[:, :2] = 1, 4, True
    label = torch.zeros(shape, dtype=torch.int64, device=DEVICE)
    label[:, :3, :3] = 1
    label[:, -1, -1] = 2
    exact = sure_fast.boundary_distance(label, ignore_index=2, backend="reference")
    steps = (exact**2).round()
    squared = torch.where(steps <= 16, steps, 255.0).masked_fill(label == 2, 254).to(torch.uint8)
    exact = exact.masked_fill(label == 2, math.nan)
    settings = (centers, levels, valid, 4.0, 0)
    slopes, results = random((2, centers.shape[0] * 6)).double(), []
    for arguments in ({"distance": exact}, {"squared": squared, "clean_far": False}):
        a = kernels.Arguments(tuple(z), *settings, **arguments)
        terms, far = (torch.full((n,), math.nan, dtype=torch.float64, device=DEVICE) for n in (2, 4))
        at_centers = torch.full((2, *slopes.shape), math.nan, dtype=torch.float64, device=DEVICE)
        kernels.forward(a, terms, far, at_centers)
        results.append((terms, far[1:], at_centers, *kernels.backward(a, far, slopes, tuple(z))[1:]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert float(results[1][0][1]) != 0
