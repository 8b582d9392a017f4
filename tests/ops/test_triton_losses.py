"""The Triton kernels of the losses against the float64 reference; see test_triton."""

from __future__ import annotations

import math

import pytest
import torch

import sure_fast
from sure_fast import _backends
from tests.ops.test_evidential_loss import strided
from tests.ops.test_uncertainty_supervision import case
from tests.ops.test_uncertainty_supervision import run as run_supervision
from tests.ops.triton_cases import DEVICE, LAYOUTS, SHAPES, agree, evidential_case, random

# --- evidential_loss ---------------------------------------------------------------------------------------------


def evidential(z, target, weight, **options):
    """Every output of the loss, and the gradient of a weighted sum of all that is differentiable."""
    z = z.detach().requires_grad_()
    out = sure_fast.evidential_loss(z, target, return_uncertainty=True, **options)
    total = sum(((k + 1) * weight[: x.numel()].reshape(x.shape) * x.double()).sum() for k, x in enumerate(out))
    # Scaled as a GradScaler does: the gradient of a mean falls below the normal range of float16.
    return [x.detach() for x in out], torch.autograd.grad(256 * total, z)[0]


def check_evidential(z, target, **options):
    # eighths, which half precision holds, as the gradient of u is rounded to
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(1, 8, (max(z.numel(), 1),), generator=generator).to(DEVICE).double() / 8
    got, gradient = evidential(z, target, weight, backend="triton", **options)
    want, want_gradient = evidential(z.double(), target, weight, backend="reference", **options)
    for a, b in zip(got[:3], want[:3], strict=True):
        assert a.dtype == torch.float32
        agree(a, b, torch.float32, "evidential_loss.voxels")
    assert got[3].dtype == gradient.dtype == z.dtype
    agree(got[3], want[3], z.dtype)
    agree(gradient, want_gradient, z.dtype, "evidential_loss.gradient", scaled=True)
    return got, gradient


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
    assert sure_fast.evidential_loss(z, target.to(dtype)[:, None], backend="triton")[:3] == want[:3]


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
        assert torch.autograd.grad(out.data + out.kl + out.dice, z)[0][0, :, 2, 3].isnan().all()
    # on the CPU the op says so; on a GPU nobody waits to look, and the loss is NaN
    z, target = evidential_case((1, 3, 4, 40))
    for label in (3, -2, 2**40):
        target[0, 1, 1] = label
        sums = kernels.forward(z, target, "digamma", "softplus", -1, None, False)[0]
        assert sums.isnan().tolist() == [True] + [False] * 10
        if DEVICE == "cpu":
            with pytest.raises(ValueError, match="target: expected labels in"):
                sure_fast.evidential_loss(z, target, ignore_index=-1, backend="triton")


def test_evidential_loss_far_voxels_and_scaled_slopes():
    """What the fused training step adds: u over the far voxels, and a slope of every voxel's u times a scalar."""
    from sure_fast.kernels import evidential_loss as kernels

    z, target = evidential_case((2, 3, 20, 41))
    squared = torch.randint(0, 256, target.shape, generator=torch.Generator().manual_seed(3)).to(DEVICE, torch.uint8)
    far, slope = (squared > 16) & (target != -1), random(target.shape)
    sums = kernels.forward(z, target, "digamma", "softplus", -1, None, False, squared=squared, far_above=16)
    wide = z.double().requires_grad_()
    u = sure_fast.dirichlet_uncertainty(wide, backend="reference")[:, 0]
    agree(sums[0, -2], u[far].sum(), torch.float32)
    assert int(sums[0, -1]) == int(far.sum())
    plain = kernels.forward(z, target, "digamma", "softplus", -1, None, False)
    assert torch.equal(sums[:, :-2], plain)
    loss = sure_fast.evidential_loss(wide, target, ignore_index=-1, backend="reference")
    number = int((target != -1).sum())
    (0.5 * number * loss.data + 3.0 * u[far].sum() + 0.25 * (slope.double() * u).sum()).backward()
    coefficients = torch.zeros_like(sums)
    coefficients[0, 0], coefficients[0, -2] = 0.5, 3.0
    scale = torch.full((), 0.25, dtype=torch.float64, device=DEVICE)
    got = kernels.backward(
        coefficients, z, target, "digamma", "softplus", -1, None, False,
        uncertainty=slope, scale=scale, squared=squared, far_above=16,
    )  # fmt: skip
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
    settings = (centers, levels, valid, 4.0, "softplus")
    slopes, results = random((2, centers.shape[0] * 6)).double(), []
    for arguments in ({"distance": exact}, {"squared": squared, "clean_far": False}):
        a = kernels.Arguments(tuple(z), *settings, **arguments)
        terms, far = (torch.full((n,), math.nan, dtype=torch.float64, device=DEVICE) for n in (2, 4))
        at_centers = torch.full((2, *slopes.shape), math.nan, dtype=torch.float64, device=DEVICE)
        kernels.forward(a, terms, far, at_centers)
        gradients = [torch.full_like(x, math.nan).flatten(2) for x in z]
        kernels.backward(a, far, slopes, gradients)
        results.append((terms, far[1:], at_centers, *gradients[1:]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert float(results[1][0][1]) != 0


# --- uncertainty_supervision -------------------------------------------------------------------------------------


def supervision_case(**options):
    """Leaves on the device."""
    z, label, image, noisy, noise = case(**options)
    leaves = [x.detach().to(DEVICE).requires_grad_() for x in (z, noisy)]
    noise = {name: value.to(DEVICE) for name, value in noise.items()}
    reason = _backends.why_not("uncertainty_supervision", "triton", leaves[0], image=image.to(DEVICE))
    if reason is not None:
        pytest.skip(reason)
    return leaves[0], label.to(DEVICE), image.to(DEVICE), leaves[1], noise


def check_supervision(given, **options):
    z, label, image, noisy, noise = given
    terms, gradients = run_supervision(*given, backend="triton", **options)
    wide = [x.detach().double().requires_grad_() for x in (z, noisy)]
    want, wanted = run_supervision(wide[0], label, image.double(), wide[1], noise, backend="reference", **options)
    agree(terms, want, torch.float32)
    for got, leaf, exact in zip(gradients, (z, noisy), wanted, strict=True):
        assert got.dtype == leaf.dtype
        # a pair whose order of g or u is a rounding away changes sides, and two voxels' slopes with it
        away = (got.double() - exact).abs() / exact.abs().max()
        assert int((away > 1e-5).sum()) <= away.numel() // 500
        assert float(away.max()) < 1e-3
    return terms


@pytest.mark.parametrize("shape", [(2, 30, 33), (1, 14, 15, 16)], ids=str)
@pytest.mark.parametrize("ignore", [None, 255])
def test_uncertainty_supervision(shape, ignore):
    terms = check_supervision(supervision_case(shape=shape, ignore=ignore), ignore_index=ignore)
    assert bool((terms > 0).all())  # every term is at work


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "mse", "evidence": "exp", "operator": "central", "spacing": (2.0, 0.7)},
        {"class_weights": [0.1, 3.0, 0.5], "per_class": True, "channels": "max"},
        {"pairs": "sampled", "num_pairs": 3001, "seed": 5, "channels": "luma"},
        {"gradient_threshold": 2.5, "noise_threshold": 2.0, "channels": "mean"},
    ],
    ids=str,
)
def test_uncertainty_supervision_options(options):
    channels = 3 if "channels" in options else 1
    check_supervision(supervision_case(shape=(2, 20, 21), channels=channels), **options)


def test_uncertainty_supervision_parts_and_half_precision():
    z, label, image, noisy, noise = supervision_case(shape=(2, 20, 21))
    everything = sure_fast.uncertainty_supervision(z, label, image, noisy_logits=noisy, **noise, backend="triton")
    edges = sure_fast.uncertainty_supervision(z, label, image, backend="triton")
    assert torch.equal(torch.stack(edges), torch.stack((*everything[:4], *torch.zeros(3, device=DEVICE))))
    alone = sure_fast.uncertainty_supervision(z, label, noisy_logits=noisy, **noise, backend="triton")
    assert torch.equal(torch.stack(alone[4:]), torch.stack(everything[4:]))
    assert alone.gradient.item() == 0
    z, label, image, noisy, noise = supervision_case(shape=(2, 20, 21), dtype=torch.bfloat16)
    _, gradients = run_supervision(z, label, image, noisy, noise, backend="triton")
    wide = [x.detach().double().requires_grad_() for x in (z, noisy)]
    _, wanted = run_supervision(wide[0], label, image.double(), wide[1], noise, backend="reference")
    for got, want in zip(gradients, wanted, strict=True):
        assert got.dtype == torch.bfloat16
        agree(got, want, torch.bfloat16, "uncertainty_supervision.gradient", scaled=True)
    large = sure_fast.uncertainty_supervision(z, label, image, gradient_threshold=16.0, backend="triton")
    reference = sure_fast.uncertainty_supervision(z, label, image, gradient_threshold=16.0, backend="reference")
    torch.testing.assert_close(large, reference, rtol=0.01, atol=0.01)


def test_supervised_loss_compiles_whole():
    z, label, image, noisy, noise = supervision_case(shape=(2, 14, 15))
    module = sure_fast.UncertaintySupervisedLoss(num_epochs=10, start_epoch=0)
    patches = sure_fast.NoisyImages(image, *(noise[k] for k in ("centers", "valid", "levels")))

    def step(z, noisy):
        return module(z, label, image, epoch=5, noise=patches, noisy_logits=noisy).total

    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        leaves = [x.detach().clone().requires_grad_() for x in (z, noisy)]
        with sure_fast.use_backend("triton"):
            loss = function(*leaves)
        results.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    torch.testing.assert_close(*results)
