from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sure_fast
from tests._golden import GOLDEN, load
from tests._tolerances import tolerance
from tests.ops.backends import HALVES, Backend, assert_same_bits, drawn, on

VARIANTS = {"cuda": {"sorted": {"COMPARED": 0}, "compared": {"COMPARED": 8192}}}
"""Of the CUDA kernels: few voxels are compared each with each, more are sorted."""
REFERENCE = Backend("gradient_uncertainty_loss", "reference")


def brute_force(u, g, d, label=None, threshold=1.0, normalize=None):
    """The definition, with its n × n matrix."""
    losses = []
    for k in range(len(u)):
        near = d[k] <= threshold
        a, b = u[k][near], g[k][near]
        v = (b[:, None] - b) * (a[:, None] - a)
        if label is not None:
            v = torch.where(label[k][near][:, None] == label[k][near], v, 0.0)
        loss = v[v > 0].sum() / (v > 0).sum().clamp(min=1)
        if normalize is not None and loss > 0:
            loss = loss / (a.std(unbiased=False) * b.std(unbiased=False))
        losses.append(loss + 0.0 * a.sum())
    return torch.stack(losses).mean()


def case(shape, levels=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u, g = (torch.rand(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    if levels:  # heavy ties
        u, g = (u * levels).round() / levels, (g * levels).round() / levels
    d = torch.randint(0, 3, shape, generator=generator).double()
    return u, g, d, torch.randint(0, 3, shape, generator=generator)


def run(backend, u, g, d, **options):
    x = backend.leaf(u)
    loss = backend(x, g, d, **options)
    return loss.detach(), torch.autograd.grad(loss, x)[0]


def check(kernel, u, g, d, **options):
    """Loss and gradient are the float64 reference's; returns them."""
    got = run(kernel, u, g, d, **options)
    want = run(REFERENCE, u.double(), g.double(), d, **options)
    assert got[0].dtype == torch.promote_types(u.dtype, torch.float32)
    assert got[1].dtype == u.dtype
    kernel.agree(got[0], want[0])
    kernel.agree(got[1], want[1], scaled=True)
    return got


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 20, 30), (2, 5, 9, 11), (1, 1, 1), (1, 1, 2)], ids=str)
@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("normalize", [None, "band"])
def test_exact_is_every_pair(shape, levels, per_class, normalize, backend):
    u, g, d, label = case(shape, levels)
    label = label if per_class else None
    mine, theirs = u.clone().requires_grad_(), u.clone().requires_grad_()
    got = backend(mine[:, None], g[:, None], d, label=label, normalize=normalize)
    want = brute_force(theirs, g, d, label, normalize=normalize)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    gradients = torch.autograd.grad(got, mine)[0], torch.autograd.grad(want, theirs)[0]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@settings(drawn, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 12), st.booleans())
def test_exact_under_any_ties(backend, seed, n, levels, per_class):
    u, g, d, label = case((2, 1, n), levels, seed)
    label = label if per_class else None
    torch.testing.assert_close(backend(u, g, d, label=label), brute_force(u, g, d, label), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("levels", [None, 4, "equal"])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("normalize", [None, "band"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (3, 4, 5), (2, 5, 9, 11), (2, 60, 61)], ids=str)
def test_kernel_agrees_with_the_reference(shape, per_class, levels, normalize, variant):
    u, g, d, label = case(shape, None if levels == "equal" else levels)
    if levels == "equal":
        u = torch.full_like(u, 0.5)
    for dtype in (torch.float32, torch.float64):
        groups = label if per_class else None
        check(variant, u.to(dtype), g.to(dtype), d.to(dtype), label=groups, normalize=normalize)


def test_normalized_by_hand(backend):
    u = torch.tensor([[[0.2, 0.6, 9.0]]], dtype=torch.float64, requires_grad=True)
    g = torch.tensor([[[1.0, 3.0, 9.0]]], dtype=torch.float64)
    d = torch.tensor([[[0.0, 1.0, 2.0]]], dtype=torch.float64)
    loss = backend(u, g, d, normalize="band")
    assert loss.item() == pytest.approx(2 * 0.4 / (1.0 * 0.2))  # of two voxels the deviation is half the difference
    assert torch.autograd.grad(loss, u)[0].abs().max() < 1e-12  # which a larger difference would not change
    assert backend(u, g * 0, d, normalize="band") == 0
    assert backend(u * 0, g, d, normalize="band") == 0
    with pytest.raises(ValueError, match="normalize: expected one of 'band', got 'image'"):
        backend(u, g, d, normalize="image")


def test_normalized_has_second_derivatives_or_refuses(backend):
    u = torch.rand((1, 5, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    g, d = u.detach().flip(1).cos(), torch.zeros(1, 5, 5, dtype=torch.float64)
    loss = backend(u, g, d, normalize="band")
    if backend.name != "reference":
        with pytest.raises(RuntimeError, match=r"expected no create_graph=True with normalize 'band'"):
            torch.autograd.grad(loss, u, create_graph=True)
        return
    (slope,) = torch.autograd.grad(loss, u, create_graph=True)
    assert torch.autograd.grad(slope.square().sum(), u)[0].abs().max() > 0


@pytest.mark.parametrize("pairs", ["exact", "sampled"])
def test_normalized_loss_knows_no_scale(pairs, kernel):
    u, g, d, _ = case((2, 20, 30))
    options = {"normalize": "band", "pairs": pairs, "num_pairs": 5000}
    want, slope = run(kernel, u, g, d, **options)
    got, less = run(kernel, 1e-3 * u + 0.1, 40 * g - 3, d, **options)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
    torch.testing.assert_close(1e-3 * less, slope, rtol=1e-6, atol=1e-12)
    about = torch.where(d <= 1, u, 0.0)
    assert float((slope * about).sum(dim=(1, 2)).abs().max()) < 1e-10  # no smaller u lessens it
    check(kernel, u, g, d, **options)


def test_several_tiles_and_levels(variant):
    u, g, _, label = case((2, 50, 130), 60)
    for dtype in (torch.uint8, torch.int64):
        check(variant, u, g, torch.zeros_like(u), label=label.to(dtype))


@pytest.mark.parametrize("integer", [torch.int8, torch.int16, torch.int32], ids=str)
def test_labels_of_any_sign_and_width(integer, variant):
    u, g, d, label = case((2, 20, 21))
    check(variant, u, g, d, label=(label - 1).to(integer) * 100)


@on("cuda")
def test_sorting_and_comparing_find_the_same_bits(kernel, monkeypatch):
    u, g, d, label = case((3, 33, 40), 30)
    found = []
    for constants in VARIANTS["cuda"].values():
        monkeypatch.setattr(kernel.module, "COMPARED", constants["COMPARED"])
        found.append(run(kernel, u.float(), g.float(), d, label=label)[1])
    assert torch.equal(*found)


def test_by_hand(backend):
    # Pairs (g, u): (1, .5) (2, .7) (4, .6). v12 = 1 * .2, v13 = 3 * .1, v23 = 2 * -.1: (.2 + .3) / 2
    u = torch.tensor([[[0.5, 0.7, 0.6]]], dtype=torch.float64, requires_grad=True)
    g = torch.tensor([[[1.0, 2.0, 4.0]]], dtype=torch.float64)
    loss = backend(u, g, torch.zeros(1, 1, 3))
    assert loss.item() == pytest.approx(0.25, rel=1e-12)
    loss.backward()
    np.testing.assert_allclose(u.grad[0, 0], [-2.0, 0.5, 1.5], rtol=1e-12)


def test_far_voxels_and_images_without_pairs_do_not_count(backend):
    u, g, d, _ = case((2, 6, 7))
    d[1] = math.inf
    far = u.clone()
    far[d > 1] = 17.0
    got = backend(far, g, d)
    torch.testing.assert_close(got, backend(u[:1], g[:1], d[:1]) / 2)
    constant = torch.ones_like(u).requires_grad_()
    loss = backend(constant, g, d)
    loss.backward()
    assert loss.item() == 0
    assert constant.grad.abs().max() == 0


def test_large_offsets_and_wide_ranges_keep_their_digits(variant):
    u, g, d, _ = case((1, 20, 20))
    want = run(variant, u, g, d)
    for offset, scale in ((1e6, 1.0), (0.0, 1e300), (0.0, 1e-300)):
        got = run(variant, u, g * scale + offset, d)
        torch.testing.assert_close(got[0] / scale, want[0], rtol=1e-8, atol=0)
        torch.testing.assert_close(got[1] / scale, want[1], rtol=1e-7, atol=1e-12)


def test_gradcheck_away_from_ties(kernel):
    u, g, d, label = case((2, 4, 5))
    u.requires_grad_()
    for options in ({}, {"label": label}, {"pairs": "sampled", "num_pairs": 50}):
        assert torch.autograd.gradcheck(lambda x, o=options: kernel(x, g, d, **o), (u,), eps=1e-7)


@on("cpu")
@pytest.mark.parametrize("per_class", [False, True])
def test_sampled_estimates_exact(per_class, kernel):
    u, g, d, label = case((2, 15, 16))
    label = label if per_class else None
    exact = kernel(u, g, d, label=label).item()
    sampled = {"label": label, "pairs": "sampled", "num_pairs": 2000}
    estimates = [kernel(u, g, d, **sampled, seed=s).item() for s in range(40)]
    assert len(set(estimates)) == 40
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - exact) < 4 * error
    assert kernel(u, g, d, **sampled, seed=3).item() == estimates[3]


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 6, 7), (2, 40, 41)], ids=str)
def test_sampled_pairs_are_those_of_the_reference(per_class, shape, kernel):
    u, g, d, label = case(shape, 20)
    options = {"pairs": "sampled", "num_pairs": 5001, "seed": 11, "label": label if per_class else None}
    want = run(REFERENCE, u, g, d, **options)
    for _ in kernel.ways():
        torch.testing.assert_close(run(kernel, u, g, d, **options), want, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_within_sampling_error(name, backend):
    golden = load(name)
    u, g, d = (torch.from_numpy(golden[k]) for k in ("uncertainty", "gradient_central", "boundary_distance"))
    assert (d <= 1).flatten(1).sum(1).tolist() == golden["gradient_uncertainty.boundary_count"].tolist()
    mean, error = golden["gradient_uncertainty.sampled_mean_and_stderr"]
    assert abs(backend(u, g.double(), d).item() - mean) < 4 * error
    assert 4 * error < 0.05 * mean


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_half_precision(half, kernel):
    u, g, d, _ = case((2, 9, 10, 11))
    got, want = (run(backend, u.to(half), g.to(half), d) for backend in (kernel, REFERENCE))
    torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-6)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == half
    assert got[0].item() == pytest.approx(kernel(u, g, d).item(), rel=0.05)


@pytest.mark.parametrize(("narrow", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 0.05)], ids=str)
def test_maps_of_different_dtypes(narrow, bound, kernel):
    u, g, d, _ = case((2, 6, 7))
    loss, gradient = run(kernel, u.to(narrow), g, d)
    assert loss.dtype == torch.float32
    assert gradient.dtype == narrow
    assert loss.item() == pytest.approx(kernel(u, g, d).item(), rel=bound)


def test_strides_change_nothing(kernel):
    u, g, d, _ = case((2, 9, 10, 11))
    turned = [x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1) for x in (u, g, d)]
    assert_same_bits([run(kernel, *turned), run(kernel, u, g, d)])
    torch.testing.assert_close(run(REFERENCE, *turned), run(REFERENCE, u, g, d))


def test_nan_infinity_and_nothing_near(variant):
    u, g, d, _ = case((3, 6, 7))
    d[1] = math.inf
    d[2, 0, 0] = math.nan  # is not near
    for number in (math.nan, math.inf):
        spoiled = u.clone()
        spoiled[0][d[0] <= 1] = number
        loss, gradient = run(variant, spoiled, g, d)
        assert loss.isnan()
        assert bool(gradient[0][d[0] <= 1].isnan().all())
        assert bool((gradient[1] == 0).all())
        assert bool(gradient[2].isfinite().all())
    torch.testing.assert_close(run(variant, u, g, d)[0], brute_force(u, g, d), rtol=1e-12, atol=0)


def test_nan_and_empty(backend):
    u, g, d, _ = case((2, 6, 7))
    spoiled = u.clone()
    spoiled[0][d[0] <= 1] = math.nan
    loss, gradient = run(backend, spoiled, g, d)
    assert loss.isnan()
    assert bool(gradient[0][d[0] <= 1].isnan().all())
    assert bool(gradient[1].isfinite().all())
    assert backend(u[:0], g[:0], d[:0]).item() == 0
    for pairs in ("exact", "sampled"):  # no voxel is near
        loss, gradient = run(backend, u, g, d + 9.0, pairs=pairs)
        assert loss.item() == 0
        assert bool((gradient == 0).all())


def test_distances_as_bytes(kernel):
    u, g, d, _ = case((2, 9, 10))
    op = torch.ops.sure_fast.gradient_uncertainty_loss
    want = op(u, g, d, None, 1.0, 0, torch.tensor(0), False, "cpu")
    for distance in (d.to(torch.uint8), d):
        got = op(*kernel.put((u, g, distance)), None, 1.0, 0, torch.tensor(0), False, kernel.name)
        torch.testing.assert_close([x.cpu() for x in got], list(want), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("way", ["exact", "per class", "sampled", "sampled per class"])
def test_same_bits_however_it_runs(way, variant):
    u, g, d, label = case((2, 40, 61), 50)
    options = {"pairs": "sampled", "num_pairs": 9001} if "sampled" in way else {}
    options["label"] = label if "class" in way else None
    assert_same_bits(run(variant, u, g, d, **options) for _ in variant.ways())


@on("cpu")
@pytest.mark.parametrize("levels", [None, 60])
@pytest.mark.parametrize("per_class", [False, True])
def test_large_images(levels, per_class, variant):
    u, g, d, label = case((1, 300, 400), levels)
    options = {"label": label} if per_class else {}
    runs = [run(variant, u, g, d, **options) for _ in variant.ways()]
    want = run(REFERENCE, u, g, d, **options)
    torch.testing.assert_close(runs[0][0], want[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(runs[0][1], want[1], rtol=1e-8, atol=1e-14)
    assert_same_bits(runs)


@on("cpu")
@pytest.mark.parametrize("values", [1, 2, 15, 16, 17, 32, 33])
@pytest.mark.parametrize("ties", ["none", "few", "most"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_gradient_of_few_values(values, ties, dtype, variant):
    """As distances in voxels are: up to 32 are not sorted. Several chunks, runs of equal u across their borders."""
    generator = torch.Generator().manual_seed(values)
    u = torch.rand(2, 300, 241, generator=generator).to(dtype)
    if ties == "few":
        u = (u * 1000).round() / 1000
    elif ties == "most":
        u = u.where(torch.rand(u.shape, generator=generator) < 0.3, 0.5)
    g = torch.randint(0, values, u.shape, generator=generator).to(dtype).sqrt() - 1.5
    g = g.where(g != -0.5, torch.where(u > 0.5, 0.0, -0.0).to(dtype))  # both zeros are one value
    check(variant, u[:1, :20], g[:1, :20], torch.zeros_like(u[:1, :20]))
    near = torch.zeros_like(u)
    loss, slope = run(variant, u, g, near, normalize="band")
    want, exact = run(REFERENCE, u.double(), g.double(), near, normalize="band")
    close = 1e-5 if dtype == torch.float32 else 1e-10  # the deviations are sums over 72 300 voxels, one after the other
    torch.testing.assert_close(loss.double(), want, rtol=close, atol=0)
    torch.testing.assert_close(slope.double(), exact, rtol=0, atol=close * float(exact.abs().max()))


@on("cuda")
@pytest.mark.parametrize("sampled", [False, True])
def test_images_that_do_not_go_together(sampled, kernel):
    """Of 2^22 voxels and more an image has the scratch memory to itself."""
    d = torch.full((2, 2051, 2049), math.inf)
    d.view(2, -1)[:, ::100_003] = 1.0
    generator = torch.Generator().manual_seed(0)
    u, g = torch.rand((2, *d.shape), generator=generator)
    options = {}
    if sampled:
        label = torch.randint(0, 2, d.shape, generator=generator, dtype=torch.int16)
        options = {"pairs": "sampled", "num_pairs": 300, "label": label}
    got, want = run(kernel, u, g, d, **options), run(REFERENCE, u.double(), g.double(), d, **options)
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x.double(), y, **tolerance(torch.float32))


def test_operator_is_registered_properly_and_compiles_whole(kernel):
    u, g, d, label = kernel.put(case((2, 5, 6)))
    u.requires_grad_()
    for groups in (None, label):
        torch.library.opcheck(
            torch.ops.sure_fast.gradient_uncertainty_loss.default,
            (u, g, d, groups, 1.0, 0, torch.tensor(0), groups is None, kernel.name),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_static"),
        )

    def step(u, g, d):
        return sure_fast.gradient_uncertainty_loss(u, g, d, backend=kernel.requested)

    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(u, g, d), step(u, g, d))


@on("cuda")
def test_automatic_choice_stays_on_the_cpu(kernel):
    u, g, d, _ = case((1, 4, 4))
    chosen = {c.backend: c for c in sure_fast.explain("gradient_uncertainty_loss", u, g, d)}
    assert chosen["cpu"].chosen
    assert not kernel.emulated or chosen["cuda"].reason == "supported"


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
def test_errors_name_the_argument(arguments, error, text, backend):
    zeros = torch.zeros(1, 4, 4)
    with pytest.raises(error, match=text):
        backend(**{"uncertainty": zeros, "gradient": zeros, "distance": zeros, **arguments})
