"""Class weights, regions and reduction "none" of evidential_loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch

import sure_fast
from tests._tolerances import tolerance
from tests.ops.test_evidential_loss import case, hand_terms, strided

BACKENDS = ("cpu", "reference")
KINDS = ("digamma", "log", "mse")


def region_case(shape=(2, 3, 9, 11), dtype=torch.float64, ignore=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(shape, generator=generator) * 3).to(dtype)
    target = (torch.rand(shape, generator=generator) < 0.4).long()
    if ignore is not None:
        target[torch.rand(shape, generator=generator) < 0.3] = ignore
    return logits, target


def gradients(logits, target, weight, **options):
    """Every differentiable output's gradient at once, with the outputs."""
    z = logits.detach().requires_grad_()
    out = sure_fast.evidential_loss(z, target, return_uncertainty=True, **options)
    total = sum(((k + 1) * weight[: x.numel()].reshape(x.shape) * x.double()).sum() for k, x in enumerate(out))
    # Scaled as a GradScaler does: the gradient of a mean falls below the normal range of float16.
    return out, torch.autograd.grad(256 * total, z)[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_class_weights_by_hand(backend):
    logits, target = case((1, 3, 4, 5), torch.float64)
    w = np.array([0.5, 2.0, 3.0])
    y = target[0].flatten().numpy()
    each = [hand_terms(z[None], y[i : i + 1], "digamma")[:2] for i, z in enumerate(logits[0].flatten(1).T.numpy())]
    data, kl = (np.average([t[k] for t in each], weights=w[y]) for k in (0, 1))
    out = sure_fast.evidential_loss(logits, target, class_weights=w.tolist(), backend=backend)
    np.testing.assert_allclose([float(out.data), float(out.kl)], [data, kl], rtol=1e-12)
    alone = sure_fast.evidential_loss(logits, target, class_weights=[0, 1, 0], backend=backend)
    only = [sure_fast.evidential_loss(logits, target, class_weights=np.eye(3)[c].tolist()).dice for c in range(3)]
    assert float(alone.dice) == pytest.approx(float(only[1]))
    assert float(out.dice) == pytest.approx(np.average([float(d) for d in only], weights=w))
    same = sure_fast.evidential_loss(logits, target, class_weights=[2.0, 2.0, 2.0], backend=backend)
    torch.testing.assert_close(same[:3], sure_fast.evidential_loss(logits, target, backend=backend)[:3])


@pytest.mark.parametrize("backend", BACKENDS)
def test_regions_by_hand(backend):
    # each region is two classes, alpha = (softplus(-z) + 1, softplus(z) + 1)
    logits, target = region_case((1, 2, 3, 4))
    out = sure_fast.evidential_loss(logits, target, regions=True, backend=backend, return_uncertainty=True)
    data, kl, dice = [], [], []
    for r in range(2):
        z, y = logits[0, r].flatten().numpy(), target[0, r].flatten().numpy()
        alpha = np.stack([np.log1p(np.exp(-z)), np.log1p(np.exp(z))], 1) + 1
        total = alpha.sum(1)
        data.append(scipy.special.digamma(total) - scipy.special.digamma(alpha[np.arange(len(y)), y]))
        wrong = alpha[np.arange(len(y)), 1 - y]  # KL of Beta(1, a) to Beta(1, 1): ln a - 1 + 1/a
        kl.append(np.log(wrong) - 1 + 1 / wrong)
        p, soft = alpha[:, 1] / total, y + 1e-3
        tp, fp, fn = (p * soft).sum(), (p * (1 - soft)).sum(), ((1 - p) * soft).sum()
        a = np.clip(fp / (fp + fn + 1e-5), 0.2, 0.8)
        dice.append(1 - tp / (tp + a * fp + (1 - a) * fn + 1e-5))
        np.testing.assert_allclose(out.uncertainty[0, r].flatten().numpy(), 2 / total, rtol=1e-12)
    got = [float(out.data), float(out.kl), float(out.dice)]
    np.testing.assert_allclose(got, [np.mean(data), np.mean(kl), np.mean(dice)], rtol=1e-10)
    weighted = sure_fast.evidential_loss(logits, target, regions=True, class_weights=[1.0, 3.0], backend=backend)
    want = [np.average([np.mean(t) for t in term], weights=[1, 3]) for term in (data, kl, dice)]
    np.testing.assert_allclose([float(weighted.data), float(weighted.kl), float(weighted.dice)], want, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("form", ["plain", "weights", "regions", "weighted regions"])
def test_kernel_agrees_with_the_reference(form, reduction, kind, layout, dtype):
    shape = (2, 3, 5, 30, 29)
    logits, target = (region_case if "regions" in form else case)(shape, dtype, ignore=9)
    # eighths, which half precision holds, as the gradient of u is rounded to
    weight = torch.randint(8, (math.prod(shape),), generator=torch.Generator().manual_seed(1)).double() / 8
    options = {"kind": kind, "reduction": reduction, "ignore_index": 9, "regions": "regions" in form}
    if "weight" in form:
        options["class_weights"] = [0.5, 0.0, 2.0]
    got, gradient = gradients(strided(logits, layout), target, weight, backend="cpu", **options)
    want, want_gradient = gradients(logits.double(), target, weight, backend="reference", **options)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    for name, a, b in zip(want._fields, got, want, strict=True):
        what = "evidential_loss" if compute == torch.float64 else "evidential_loss.voxels"
        wanted = tolerance(dtype) if name == "uncertainty" else tolerance(compute, what)
        torch.testing.assert_close(a.double(), b, msg=name, **wanted)
    assert gradient.dtype == dtype
    scale = want_gradient.abs().max()
    wanted = tolerance(dtype, "evidential_loss.gradient")
    torch.testing.assert_close(gradient.double() / scale, want_gradient / scale, **wanted)


@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
@pytest.mark.parametrize("scale", [0.01, 20.0])
def test_evidence_of_regions_on_every_isa(isa, evidence, scale):
    logits, target = region_case()
    weight = torch.ones(10_000, dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        z = (logits * scale).to(dtype)
        options = {"regions": True, "evidence": evidence}
        got, gradient = gradients(z, target, weight, backend="cpu", **options)
        want, want_gradient = gradients(z.double(), target, weight, backend="reference", **options)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a.double(), b, **tolerance(dtype, "evidential_loss"))
        largest = want_gradient.abs().max()
        wanted = tolerance(dtype, "evidential_loss.gradient")
        torch.testing.assert_close(gradient.double() / largest, want_gradient / largest, **wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_terms_of_every_voxel_have_the_mean_of_the_loss(backend):
    logits, target = case((2, 3, 6, 7), torch.float64)
    mean = sure_fast.EvidentialLoss(backend=backend)(logits, target, epoch=7)
    each = sure_fast.EvidentialLoss(reduction="none", backend=backend)(logits, target[:, None], epoch=7)
    assert each.total.shape == target.shape
    terms = sure_fast.evidential_loss(logits, target, reduction="none", backend=backend)
    assert torch.equal(terms.data, each.data)
    assert torch.equal(terms.kl, each.kl)
    for name in ("total", "data", "kl", "dice"):
        torch.testing.assert_close(getattr(each, name).mean(), getattr(mean, name))
    ignored = target.clone()
    ignored[:, 2] = -1
    each = sure_fast.evidential_loss(logits, ignored, reduction="none", ignore_index=-1, backend=backend)
    assert each.data[:, 2].abs().max() == 0
    assert (each.kl[:, 1] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(kind, backend):
    weights = [1.0, 0.25]
    logits, target = region_case((1, 2, 3, 3), ignore=5)

    def total(z):
        out = sure_fast.evidential_loss(
            z, target, kind=kind, regions=True, reduction="none", class_weights=weights, ignore_index=5,
            return_uncertainty=True, backend=backend,
        )  # fmt: skip
        return out.data + out.dice, out.data * out.kl, out.uncertainty

    assert torch.autograd.gradcheck(total, (logits.requires_grad_(),))


def test_one_region_is_two_classes():
    # presence against absence: with z = (a, b) of two classes, relu(b) = relu(z) and relu(a) = relu(-z) when a = -b
    z = torch.randn((2, 1, 6, 7), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.randint(0, 2, (2, 1, 6, 7), generator=torch.Generator().manual_seed(1))
    regions = sure_fast.evidential_loss(z, target, regions=True)
    classes = sure_fast.evidential_loss(torch.cat([-z, z], 1), target)
    torch.testing.assert_close((regions.data, regions.kl), (classes.data, classes.kl))
    assert torch.equal(
        torch.stack(sure_fast.evidential_loss(z, target.bool(), regions=True)[:3]),
        torch.stack(sure_fast.evidential_loss(z, target.to(torch.uint8), regions=True)[:3]),
    )


def test_options_compile_whole():
    logits, target = region_case(dtype=torch.float32)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(z):
        out = sure_fast.evidential_loss(z, target, regions=True, reduction="none", class_weights=[1, 2, 3])
        return out.data.sum() + out.kl.sum() + out.dice

    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    step(a).backward()
    out = sure_fast.evidential_loss(b, target, regions=True, reduction="none", class_weights=[1, 2, 3])
    (out.data.sum() + out.kl.sum() + out.dice).backward()
    torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"class_weights": [1.0, 2.0]},
            r"^class_weights: expected 3 finite numbers >= 0, not all 0, got \[1.0, 2.0",
        ),
        ({"class_weights": [1.0, -1.0, 1.0]}, "^class_weights: expected 3 finite"),
        ({"class_weights": [0, 0, 0]}, "^class_weights: expected 3 finite"),
        ({"class_weights": torch.ones(3, requires_grad=True)}, "^class_weights: expected constants"),
        ({"reduction": "sum"}, "^reduction: expected one of 'mean', 'none', got 'sum'$"),
        ({"regions": True}, r"^target: expected one 0 or 1 per region and voxel, \[2, 3, 4, 5\], got \[2, 4, 5\]$"),
    ],
)
def test_errors_name_the_argument(options, text):
    logits, target = case((2, 3, 4, 5))
    with pytest.raises(ValueError, match=text):
        sure_fast.evidential_loss(logits, target, **options)


def test_errors_of_regions():
    logits, target = region_case()
    with pytest.raises(ValueError, match=r"^target: expected labels in \[0, 2\), got 2$"):
        sure_fast.evidential_loss(logits, target + 1, regions=True)
    with pytest.raises(TypeError, match=r"^target: expected an integer tensor"):
        sure_fast.evidential_loss(logits, target.float(), regions=True)
