"""Class weights, regions and reduction "none" of evidential_loss."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch

import sure_fast
from tests.ops.backends import HALVES, on
from tests.ops.inputs import LAYOUTS, strided
from tests.ops.test_evidential_loss import KINDS, case, check, hand_terms

WEIGHTS = [0.5, 0.0, 2.0]


def region_case(shape=(2, 3, 9, 11), dtype=torch.float64, ignore=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(shape, generator=generator) * 3).to(dtype)
    target = (torch.rand(shape, generator=generator) < 0.4).long()
    if ignore is not None:
        target[torch.rand(shape, generator=generator) < 0.3] = ignore
    return logits, target


def options_of(form, **others):
    weights = {"class_weights": WEIGHTS} if "weight" in form else {}
    return {"regions": "regions" in form, **weights, **others}


def inputs_of(form, *args, **options):
    return (region_case if "regions" in form else case)(*args, **options)


def test_class_weights_by_hand(backend):
    logits, target = case((1, 3, 4, 5), backend.widest)
    w = np.array([0.5, 2.0, 3.0])
    y = target[0].flatten().numpy()
    each = [
        hand_terms(z[None], y[i : i + 1], "digamma")[:2] for i, z in enumerate(logits[0].flatten(1).T.double().numpy())
    ]
    data, kl = (np.average([t[k] for t in each], weights=w[y]) for k in (0, 1))
    soft = {"evidence": "softplus"}
    out = backend(logits, target, class_weights=w.tolist(), **soft)
    backend.agree(torch.stack(out[:2]), torch.tensor([data, kl]))
    alone = backend(logits, target, class_weights=[0, 1, 0], **soft)
    only = [
        sure_fast.evidential_loss(logits, target, class_weights=np.eye(3)[c].tolist(), **soft).dice for c in range(3)
    ]
    assert float(alone.dice) == pytest.approx(float(only[1]))
    assert float(out.dice) == pytest.approx(np.average([float(d) for d in only], weights=w))
    same = backend(logits, target, class_weights=[2.0, 2.0, 2.0])
    torch.testing.assert_close(same[:3], backend(logits, target)[:3])


def test_regions_by_hand(backend):
    # each region is two classes, alpha = (softplus(-z) + 1, softplus(z) + 1)
    logits, target = region_case((1, 2, 3, 4), backend.widest)
    rtol = {"rtol": 1e-10 if backend.widest == torch.float64 else 2e-6}
    out = backend(logits, target, regions=True, evidence="softplus", return_uncertainty=True)
    data, kl, dice = [], [], []
    for r in range(2):
        z, y = logits[0, r].flatten().double().numpy(), target[0, r].flatten().numpy()
        alpha = np.stack([np.log1p(np.exp(-z)), np.log1p(np.exp(z))], 1) + 1
        total = alpha.sum(1)
        data.append(scipy.special.digamma(total) - scipy.special.digamma(alpha[np.arange(len(y)), y]))
        wrong = alpha[np.arange(len(y)), 1 - y]  # KL of Beta(1, a) to Beta(1, 1): ln a - 1 + 1/a
        kl.append(np.log(wrong) - 1 + 1 / wrong)
        p, soft = alpha[:, 1] / total, y + 1e-3
        tp, fp, fn = (p * soft).sum(), (p * (1 - soft)).sum(), ((1 - p) * soft).sum()
        a = np.clip(fp / (fp + fn + 1e-5), 0.2, 0.8)
        dice.append(1 - tp / (tp + a * fp + (1 - a) * fn + 1e-5))
        np.testing.assert_allclose(out.uncertainty[0, r].flatten().numpy(), 2 / total, **rtol)
    got = [float(out.data), float(out.kl), float(out.dice)]
    np.testing.assert_allclose(got, [np.mean(data), np.mean(kl), np.mean(dice)], **rtol)
    weighted = backend(logits, target, regions=True, evidence="softplus", class_weights=[1.0, 3.0])
    want = [np.average([np.mean(t) for t in term], weights=[1, 3]) for term in (data, kl, dice)]
    np.testing.assert_allclose([float(weighted.data), float(weighted.kl), float(weighted.dice)], want, **rtol)


@on("cpu")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("form", ["plain", "weights", "regions", "weighted regions"])
def test_every_form_agrees_with_the_reference(form, reduction, kind, layout, kernel, dtype):
    logits, target = inputs_of(form, (2, 3, 5, 30, 29), dtype, ignore=9)
    options = options_of(form, kind=kind, reduction=reduction, ignore_index=9)
    check(kernel, strided(logits, layout), target, "evidential_loss.voxels", **options)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("form", "reduction", "kind"),
    [("weights", "none", "digamma"), ("weighted regions", "none", "mse"), ("regions", "mean", "log")],
)
def test_forms_and_strides(layout, form, reduction, kind, kernel):
    logits, target = inputs_of(form, (2, 3, 5, 6, 7), torch.float32, ignore=-1)
    options = options_of(form, kind=kind, reduction=reduction, ignore_index=-1)
    check(kernel, strided(logits, layout), target, "evidential_loss.voxels", **options)


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("form", ["plain", "regions"])
def test_ignored_voxels_in_half_precision(half, form, kernel):
    check(kernel, *inputs_of(form, (2, 3, 9, 31), half, ignore=-1), **options_of(form, ignore_index=-1))


@pytest.mark.parametrize("evidence", ["softplus", "relu", "exp"])
@pytest.mark.parametrize("scale", [0.01, 1.0, 20.0])
def test_evidence_of_regions(evidence, scale, variant):
    logits, target = region_case()
    for dtype in {torch.float32, variant.widest}:
        check(variant, (logits * scale).to(dtype), target, regions=True, evidence=evidence)


def test_terms_of_every_voxel_have_the_mean_of_the_loss(backend):
    logits, target = backend.put(case((2, 3, 6, 7), backend.widest))
    mean = sure_fast.EvidentialLoss(backend=backend.name)(logits, target, epoch=7)
    each = sure_fast.EvidentialLoss(reduction="none", backend=backend.name)(logits, target[:, None], epoch=7)
    assert each.total.shape == target.shape
    terms = sure_fast.evidential_loss(logits, target, reduction="none", backend=backend.name)
    assert torch.equal(terms.data, each.data)
    assert torch.equal(terms.kl, each.kl)
    for name in ("total", "data", "kl", "dice"):
        torch.testing.assert_close(getattr(each, name).mean(), getattr(mean, name))
    ignored = target.clone()
    ignored[:, 2] = -1
    each = sure_fast.evidential_loss(logits, ignored, reduction="none", ignore_index=-1, backend=backend.name)
    assert each.data[:, 2].abs().max() == 0
    assert (each.kl[:, 1] > 0).all()


@on("cpu", "reference")
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind, backend):
    weights = [1.0, 0.25]
    logits, target = region_case((1, 2, 3, 3), ignore=5)

    def total(z):
        out = backend(
            z, target, kind=kind, regions=True, reduction="none", class_weights=weights, ignore_index=5,
            return_uncertainty=True,
        )  # fmt: skip
        return out.data + out.dice, out.data * out.kl, out.uncertainty

    assert torch.autograd.gradcheck(total, (logits.requires_grad_(),))


def test_one_region_is_two_classes(backend):
    # presence against absence: with z = (a, b) of two classes, relu(b) = relu(z) and relu(a) = relu(-z) when a = -b
    generator = torch.Generator().manual_seed(0)
    z = torch.randn((2, 1, 6, 7), generator=generator, dtype=torch.float64).to(backend.widest)
    target = torch.randint(0, 2, (2, 1, 6, 7), generator=generator)
    regions = backend(z, target, regions=True)
    classes = backend(torch.cat([-z, z], 1), target)
    torch.testing.assert_close((regions.data, regions.kl), (classes.data, classes.kl))
    found = [torch.stack(backend(z, y, regions=True)[:3]) for y in (target.bool(), target.to(torch.uint8))]
    assert torch.equal(*found)


def test_options_compile_whole(kernel):
    logits, target = kernel.put(region_case(dtype=torch.float32))

    def step(z):
        out = sure_fast.evidential_loss(
            z, target, regions=True, reduction="none", class_weights=[1, 2, 3], backend=kernel.requested
        )
        return out.data.sum() + out.kl.sum() + out.dice

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    leaves = [logits.clone().requires_grad_() for _ in range(2)]
    gradients = [torch.autograd.grad(f(z), z)[0] for f, z in zip((compiled, step), leaves, strict=True)]
    torch.testing.assert_close(*gradients)


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
def test_errors_name_the_argument(options, text, backend):
    with pytest.raises(ValueError, match=text):
        backend(*case((2, 3, 4, 5)), **options)


def test_errors_of_regions(backend):
    logits, target = region_case(dtype=backend.widest)
    with pytest.raises(TypeError, match=r"^target: expected an integer tensor"):
        backend(logits, target.to(torch.complex64), regions=True)
    if backend.device.type == "cuda":
        return  # nobody waits for the GPU to look at labels
    with pytest.raises(ValueError, match=r"^target: expected labels in \[0, 2\), got 2$"):
        backend(logits, target + 1, regions=True)
