"""From sums to terms to a loss, and back: the kernels of the CPU and of Triton against plain PyTorch and autograd."""

from __future__ import annotations

import math

import pytest
import torch

from sure_fast.ops import _dense_terms, _terms, _weighted
from sure_fast.ops._sums import sums_layout

BACKENDS = ("cpu", "triton")
DOUBLE = torch.float64


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Where there is a GPU Triton's tensors are made there."""
    with torch.device("cuda" if request.param == "triton" and torch.cuda.is_available() else "cpu"):
        yield request.param


def by_autograd(terms, inputs, grads):
    """The gradients of the terms that have one."""
    given = [(term, grad) for term, grad in zip(terms, grads, strict=True) if grad is not None]
    outputs, of = zip(*given, strict=True)
    return torch.autograd.grad(outputs, inputs, of, allow_unused=True, materialize_grads=True)


def agree(got, want, inputs, wanted_inputs, grads):
    torch.testing.assert_close(got, want, check_dtype=False, equal_nan=True)
    for found, expected in zip(
        by_autograd(got, inputs, [None if g is None else g.to(t) for g, t in zip(grads, got, strict=True)]),
        by_autograd(want, wanted_inputs, grads),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, check_dtype=False, equal_nan=True, rtol=1e-6, atol=1e-9)


def dice_terms(sums, classes, weights, regions):
    """What `evidential_terms` says, in plain PyTorch; of Σ y nothing is differentiated."""
    p, hit, y = sums[:, 2 : 2 + 3 * classes].unflatten(1, (3, classes)).unbind(1)
    y = y.detach()
    voxels = y.sum(1, keepdim=True)
    tp = hit + 1e-3 * p
    fp, fn = p - tp, y + 1e-3 * voxels - tp
    a = (fp / (fp + fn + 1e-5)).clamp(0.2, 0.8)
    dice = 1 - tp / (tp + a * fp + (1 - a) * fn + 1e-5)
    means, number = sums[:, :2], y
    if regions:
        dice, number = dice[None, :, 1], voxels[None, :, 0]
    weight = torch.ones(number.shape[1], dtype=DOUBLE) if weights is None else weights
    if regions:
        means = (weight[:, None] * means).sum(0, keepdim=True)
    scale = (weight * number).sum(1)
    seen = scale > 0
    data, kl = (means / scale.where(seen, 1.0)[:, None]).mean(0)
    return data, kl, (weight * dice).sum(1).div(weight.sum()).where(seen, 0.0).mean()


def drawn_sums(rows, classes, far, seed=0):
    """As kernels write them: 0 <= Σ p y <= Σ p."""
    given = {"generator": torch.Generator().manual_seed(seed), "device": "cpu"}
    y = torch.randint(0, 50, (rows, classes), **given).double()
    p = 60 * torch.rand(rows, classes, dtype=DOUBLE, **given)
    hit = torch.minimum(p, y) * torch.rand(rows, classes, dtype=DOUBLE, **given)
    means = torch.randn(rows, 2, dtype=DOUBLE, **given)
    rest = [torch.tensor([[3.0, 7.0, 2.5, 4.0]], dtype=DOUBLE, device="cpu")] if far else []
    return torch.cat([means, p, hit, y, *rest], 1).to(torch.get_default_device())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("rows", "classes", "regions", "far"),
    [(1, 4, False, True), (1, 2, False, False), (2, 3, False, False), (5, 2, True, False), (1, 300, False, True)],
)
def test_evidential_terms(rows, classes, regions, far, weighted, backend):
    of_far = 0.5 if far else None
    for seed, grads in enumerate(([1.0, 2.0, -3.0, of_far], [None, 1.0, None, of_far], [None, None, 4.0, None])):
        sums = drawn_sums(rows, classes, far, seed).requires_grad_()
        number = rows if regions else classes
        weights = torch.arange(number, dtype=DOUBLE) if weighted else None
        got = _terms.evidential_terms(sums, classes, weights, backend, regions=regions)
        wide = sums.detach().clone().requires_grad_()
        clean, voxels, first, second = wide[0, -4:] if far else wide.new_zeros(4)
        far_term = (clean + first + second) / voxels.detach().clamp(min=1)
        want = (*dice_terms(wide, classes, weights, regions), far_term)
        agree(got, want, (sums,), (wide,), [None if g is None else torch.tensor(g, dtype=DOUBLE) for g in grads])


@pytest.mark.parametrize("regions", [False, True])
def test_nothing_counts(regions, backend):
    sums = torch.zeros(2, 2 + 3 * 2, dtype=DOUBLE, requires_grad=True)
    terms = _terms.evidential_terms(sums, 2, None, backend, regions=regions)
    assert [float(term) for term in terms] == [0.0] * 4
    sum(terms).backward()
    assert sums.grad[:, 2:].eq(0).all()


def test_a_nan_stays_one_and_stays_in_its_term(backend):
    layout = sums_layout(3)
    sums = drawn_sums(1, 3, True)
    for at, wrong in ((0, [0]), (1, [1]), (layout.by_class.start, [2]), (layout.clean_far, [3])):
        spoiled = sums.clone()
        spoiled[0, at] = math.nan
        terms = _terms.evidential_terms(spoiled, 3, None, backend)
        assert [k for k, term in enumerate(terms) if term.isnan()] == wrong


def dense_terms(sums, losses, copies, normalize):
    each = 2 / copies
    near, far = sums[3].detach(), sums[7].detach()
    order = each * sums[:3].sum() / near.clamp(min=1)
    if normalize:
        mean = (sums[8] + each * sums[9:].sum()) / (3 * near).clamp(min=1)
        varies = mean > 0
        order = (order / mean.where(varies, 1.0)).where(varies | order.isnan(), 0.0)
    distance = each * sum(loss.mean() for loss in losses) if losses else order.new_zeros(())
    return order, distance, (sums[4] + each * sums[5:7].sum()) / far.clamp(min=1)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("copies", "losses"), [(1, 1), (2, 2), (1, 0)])
@pytest.mark.parametrize("kind", ["usual", "none near", "zero u", "NaN"])
def test_dense_noise_terms(kind, copies, losses, normalize, backend):
    sums = torch.tensor([1.0, 2.0, 3.0, 9.0, 4.0, 5.0, 6.0, 8.0, 2.5, 1.5, 3.5], dtype=DOUBLE)
    if kind == "none near":
        sums[:4], sums[8:] = 0.0, 0.0
    if kind == "zero u":
        sums[8:] = 0.0
    if kind == "NaN":
        sums[0], sums[8] = math.nan, math.nan
    sums.requires_grad_()
    wide = sums.detach().clone().requires_grad_()
    pairs = [torch.tensor([0.5, 2.0, k], dtype=DOUBLE, requires_grad=True) for k in range(losses)]
    wide_pairs = [x.detach().clone().requires_grad_() for x in pairs]
    for grads in ([1.0, 2.0, 3.0], [1.0, None, None], [None, 2.0 if losses else None, 1.0]):
        got = _dense_terms.dense_noise_terms(sums, pairs, copies, normalize, backend)
        want = dense_terms(wide, wide_pairs, copies, normalize)
        given = [None if g is None or (k == 1 and not losses) else torch.tensor(g, dtype=DOUBLE)
                 for k, g in enumerate(grads)]  # fmt: skip
        agree(got, want, (sums, *pairs), (wide, *wide_pairs), given)


WEIGHTS = _weighted.Weights(10.0, 0.25, 10.0, 5.0, 0.5, 0.25, 0.5, 0.75, 2.0)


@pytest.mark.parametrize("missing", [(), (3,), (4, 5, 6, 7, 8, 9)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_weighted_terms(dtype, missing, backend):
    terms = [torch.tensor(float(k + 1), dtype=DOUBLE, requires_grad=True) for k in range(10)]
    terms[3] = torch.tensor([1.0, 7.0], dtype=DOUBLE, requires_grad=True)
    terms[5] = torch.tensor(6.0, dtype=torch.float32, requires_grad=True)
    given = [None if k in missing else term for k, term in enumerate(terms)]
    wide = [term.detach().double().requires_grad_() for term in terms]
    zeros = [torch.zeros((), dtype=DOUBLE) if k in missing else term.mean() for k, term in enumerate(wide)]
    for wanted in ([0], [0, 1, 6, 10], range(11)):
        got = _weighted.weighted_terms(given, WEIGHTS, dtype, backend)
        want = _weighted.weighted(zeros, WEIGHTS)
        assert {t.dtype for t in got} == {dtype}
        grads = [torch.tensor(k + 0.5, dtype=DOUBLE) if k in wanted and got[k].requires_grad else None
                 for k in range(11)]  # fmt: skip
        grads = [None if not want[k].requires_grad else grad for k, grad in enumerate(grads)]
        agree(got, want, [t for t in given if t is not None],
              [t for k, t in enumerate(wide) if k not in missing], grads)  # fmt: skip


def test_a_nan_of_l_gu_is_in_no_other_term(backend):
    terms = [torch.tensor(1.0, dtype=DOUBLE) for _ in range(10)]
    terms[3] = torch.tensor([math.nan, 1.0], dtype=DOUBLE)
    got = _weighted.weighted_terms(terms, WEIGHTS, torch.float32, backend)
    assert [k for k, t in enumerate(got) if t.isnan()] == [0, 5]


def test_opcheck(backend):
    sums = drawn_sums(1, 3, True).requires_grad_()
    torch.library.opcheck(_terms._op, (sums, torch.ones(3, dtype=DOUBLE), 3, False, backend))
    dense = torch.rand(11, dtype=DOUBLE, requires_grad=True)
    losses = torch.rand(2, dtype=DOUBLE, requires_grad=True)
    torch.library.opcheck(_dense_terms._op, (dense, losses, None, 1, True, backend))
    terms = [torch.rand((), dtype=DOUBLE, requires_grad=True) for _ in range(10)]
    torch.library.opcheck(_weighted._op, (*terms, list(WEIGHTS), torch.float32, backend))
