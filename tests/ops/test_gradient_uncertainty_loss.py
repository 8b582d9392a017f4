from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sure_fast
from tests._golden import GOLDEN, load

BACKENDS = ("cpu", "reference")


def brute_force(u, g, d, label=None, threshold=1.0):
    """The definition, with its n × n matrix."""
    losses = []
    for k in range(len(u)):
        near = d[k] <= threshold
        a, b = u[k][near], g[k][near]
        v = (b[:, None] - b) * (a[:, None] - a)
        if label is not None:
            v = torch.where(label[k][near][:, None] == label[k][near], v, 0.0)
        losses.append(v[v > 0].sum() / (v > 0).sum().clamp(min=1) + 0.0 * a.sum())
    return torch.stack(losses).mean()


def case(shape, levels=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u, g = (torch.rand(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    if levels:  # heavy ties
        u, g = (u * levels).round() / levels, (g * levels).round() / levels
    d = torch.randint(0, 3, shape, generator=generator).double()
    return u, g, d, torch.randint(0, 3, shape, generator=generator)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 20, 30), (2, 5, 9, 11), (1, 1, 1), (1, 1, 2)], ids=str)
@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_exact_is_every_pair(shape, levels, per_class, backend):
    u, g, d, label = case(shape, levels)
    label = label if per_class else None
    mine, theirs = u.clone().requires_grad_(), u.clone().requires_grad_()
    got = sure_fast.gradient_uncertainty_loss(mine[:, None], g[:, None], d, label=label, backend=backend)
    want = brute_force(theirs, g, d, label)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    gradients = torch.autograd.grad(got, mine)[0], torch.autograd.grad(want, theirs)[0]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 12), st.booleans(), st.sampled_from(BACKENDS))
def test_exact_under_any_ties(seed, n, levels, per_class, backend):
    u, g, d, label = case((2, 1, n), levels, seed)
    label = label if per_class else None
    got = sure_fast.gradient_uncertainty_loss(u, g, d, label=label, backend=backend)
    torch.testing.assert_close(got, brute_force(u, g, d, label), rtol=1e-11, atol=1e-14)


def test_by_hand():
    # Pairs (g, u): (1, .5) (2, .7) (4, .6). v12 = 1 * .2, v13 = 3 * .1, v23 = 2 * -.1: (.2 + .3) / 2
    u = torch.tensor([[[0.5, 0.7, 0.6]]], dtype=torch.float64, requires_grad=True)
    g = torch.tensor([[[1.0, 2.0, 4.0]]], dtype=torch.float64)
    loss = sure_fast.gradient_uncertainty_loss(u, g, torch.zeros(1, 1, 3))
    assert loss.item() == pytest.approx(0.25, rel=1e-12)
    loss.backward()
    np.testing.assert_allclose(u.grad[0, 0], [-2.0, 0.5, 1.5], rtol=1e-12)


def test_far_voxels_and_images_without_pairs_do_not_count():
    u, g, d, _ = case((2, 6, 7))
    d[1] = math.inf
    far = u.clone()
    far[d > 1] = 17.0
    got = sure_fast.gradient_uncertainty_loss(far, g, d)
    torch.testing.assert_close(got, sure_fast.gradient_uncertainty_loss(u[:1], g[:1], d[:1]) / 2)
    constant = torch.ones_like(u).requires_grad_()
    loss = sure_fast.gradient_uncertainty_loss(constant, g, d)
    loss.backward()
    assert loss.item() == 0
    assert constant.grad.abs().max() == 0


def test_offset_of_large_values_does_not_cancel():
    u, g, d, _ = case((1, 20, 20))
    want = sure_fast.gradient_uncertainty_loss(u, g, d)
    torch.testing.assert_close(sure_fast.gradient_uncertainty_loss(u, g + 1e6, d), want, rtol=1e-8, atol=0)


def test_gradcheck_away_from_ties():
    u, g, d, label = case((2, 4, 5))
    u.requires_grad_()
    for options in ({}, {"label": label}, {"pairs": "sampled", "num_pairs": 50}):
        assert torch.autograd.gradcheck(
            lambda x, o=options: sure_fast.gradient_uncertainty_loss(x, g, d, **o), (u,), eps=1e-7
        )


@pytest.mark.parametrize("per_class", [False, True])
def test_sampled_estimates_exact(per_class):
    u, g, d, label = case((2, 15, 16))
    label = label if per_class else None
    exact = sure_fast.gradient_uncertainty_loss(u, g, d, label=label).item()
    estimates = [
        sure_fast.gradient_uncertainty_loss(u, g, d, label=label, pairs="sampled", num_pairs=2000, seed=s).item()
        for s in range(40)
    ]
    assert len(set(estimates)) == 40
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - exact) < 4 * error
    again = sure_fast.gradient_uncertainty_loss(u, g, d, label=label, pairs="sampled", num_pairs=2000, seed=3).item()
    assert again == estimates[3]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_within_sampling_error(name):
    golden = load(name)
    u, g, d = (torch.from_numpy(golden[k]) for k in ("uncertainty", "gradient_central", "boundary_distance"))
    assert (d <= 1).flatten(1).sum(1).tolist() == golden["gradient_uncertainty.boundary_count"].tolist()
    mean, error = golden["gradient_uncertainty.sampled_mean_and_stderr"]
    got = sure_fast.gradient_uncertainty_loss(u, g.double(), d).item()
    assert abs(got - mean) < 4 * error
    assert 4 * error < 0.05 * mean


def test_dtypes_strides_nan_and_empty():
    u, g, d, _ = case((2, 6, 7))
    want = sure_fast.gradient_uncertainty_loss(u, g, d)
    torch.testing.assert_close(sure_fast.gradient_uncertainty_loss(u.mT.contiguous().mT, g, d), want)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.05)):
        x = u.to(dtype).requires_grad_()
        loss = sure_fast.gradient_uncertainty_loss(x, g, d)
        loss.backward()
        assert loss.dtype == torch.float32
        assert x.grad.dtype == dtype
        assert loss.item() == pytest.approx(want.item(), rel=tolerance)
    assert sure_fast.gradient_uncertainty_loss(u[:0], g[:0], d[:0]).item() == 0
    spoiled = u.clone()
    spoiled[0][d[0] <= 1] = math.nan
    assert sure_fast.gradient_uncertainty_loss(spoiled, g, d).isnan()


def test_two_runs_are_bit_equal():
    u, g, d, _ = case((2, 30, 31))
    runs = []
    for _ in range(2):
        x = u.clone().requires_grad_()
        loss = sure_fast.gradient_uncertainty_loss(x, g, d)
        runs.append((loss.detach(), torch.autograd.grad(loss, x)[0]))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"uncertainty": torch.zeros(4)}, ValueError, "uncertainty: expected"),
        ({"gradient": torch.zeros(1, 4, 5)}, ValueError, r"gradient: expected the shape of uncertainty \[1, 4, 4\]"),
        ({"gradient": torch.zeros(1, 4, 4, requires_grad=True)}, ValueError, "gradient: requires grad"),
        ({"distance": torch.zeros(1, 4, 4, dtype=torch.long)}, TypeError, "distance: expected float32"),
        ({"threshold": -1}, ValueError, "threshold: expected"),
        ({"pairs": "all"}, ValueError, "pairs: expected one of 'exact', 'sampled', got 'all'"),
        ({"num_pairs": 0}, ValueError, "num_pairs: expected at least 1, got 0"),
        ({"label": torch.zeros(1, 5, 5, dtype=torch.long)}, ValueError, "label: expected"),
    ],
)
def test_errors_name_the_argument(arguments, error, text):
    zeros = torch.zeros(1, 4, 4)
    with pytest.raises(error, match=text):
        sure_fast.gradient_uncertainty_loss(**{"uncertainty": zeros, "gradient": zeros, "distance": zeros, **arguments})


def both(u, g, d, **options):
    """Loss and gradient of the kernel and of the reference."""
    results = []
    for backend in BACKENDS:
        x = u.clone().requires_grad_()
        loss = sure_fast.gradient_uncertainty_loss(x, g, d, backend=backend, **options)
        results.append((loss.detach(), torch.autograd.grad(loss, x)[0]))
    return results


@pytest.mark.parametrize("levels", [None, 60])
@pytest.mark.parametrize("per_class", [False, True])
def test_large_images_for_any_number_of_threads(levels, per_class, isa, threads):
    u, g, d, label = case((1, 300, 400), levels)
    options = {"label": label} if per_class else {}
    (loss, gradient), (want_loss, want_gradient) = both(u, g, d, **options)
    torch.testing.assert_close(loss, want_loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, want_gradient, rtol=1e-8, atol=1e-14)
    for count in (1, 5):
        threads(count)
        again = both(u, g, d, **options)[0]
        assert torch.equal(again[0], loss)
        assert torch.equal(again[1], gradient)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("shape", [(3, 6, 7), (2, 40, 41)], ids=str)
def test_sampled_pairs_are_those_of_the_reference(per_class, shape, threads):
    u, g, d, label = case(shape, 20)
    options = {"label": label} if per_class else {}
    for count in (1, 5):
        threads(count)
        kernel, reference = both(u, g, d, pairs="sampled", num_pairs=5001, seed=11, **options)
        torch.testing.assert_close(kernel, reference, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_and_strides(dtype):
    u, g, d, _ = case((2, 9, 10, 11))
    u, g = u.to(dtype), g.to(dtype)
    kernel, reference = both(u, g, d)
    torch.testing.assert_close(kernel, reference, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-6)
    assert kernel[1].dtype == dtype
    turned = [x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1) for x in (u, g, d)]
    assert torch.equal(both(*turned)[0][1], kernel[1])


def test_operator_is_registered_properly_and_compiles_whole():
    u, g, d, label = case((2, 5, 6))
    u.requires_grad_()
    for groups in (None, label):
        torch.library.opcheck(
            torch.ops.sure_fast.gradient_uncertainty_loss.default,
            (u, g, d, groups, 1.0, 0, torch.tensor(0)),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_static"),
        )
    loss = torch.compile(sure_fast.gradient_uncertainty_loss, fullgraph=True, backend="aot_eager")(u, g, d)
    assert torch.equal(loss, sure_fast.gradient_uncertainty_loss(u, g, d))
