"""The CUDA kernels of gradient_uncertainty_loss, emulated, against the reference."""

from __future__ import annotations

import importlib
import math

import pytest
import torch

import sure_fast
from tests._tolerances import tolerance
from tests.cuda.conftest import ORDERS
from tests.ops.test_gradient_uncertainty_loss import brute_force, case

op = importlib.import_module("sure_fast.ops.gradient_uncertainty_loss")
pytestmark = pytest.mark.usefixtures("emulation")

SORTED, COMPARED = 0, 8192


def run(u, g, d, backend="cuda", **options):
    x = u.clone().requires_grad_()
    loss = sure_fast.gradient_uncertainty_loss(x, g, d, backend=backend, **options)
    return loss.detach(), torch.autograd.grad(loss, x)[0]


def assert_like_reference(u, g, d, label, **options):
    dtype = u.dtype
    got = run(u, g, d, label=label, **options)
    want = run(u.double(), g.double(), d, "reference", label=label, **options)
    assert got[0].dtype == got[1].dtype == dtype
    near = tolerance(dtype)
    torch.testing.assert_close(got[0].double(), want[0], **near)
    scale = want[1].abs().max().clamp(min=1e-30)
    torch.testing.assert_close(got[1].double() / scale, want[1] / scale, **near)


@pytest.mark.parametrize("limit", [SORTED, COMPARED])
@pytest.mark.parametrize("levels", [None, 4, "equal"])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (3, 4, 5), (2, 5, 9, 11), (2, 60, 61)], ids=str)
def test_every_pair(shape, per_class, levels, limit, monkeypatch):
    monkeypatch.setattr(op, "COMPARED", limit)
    u, g, d, label = case(shape, None if levels == "equal" else levels)
    if levels == "equal":
        u = torch.full_like(u, 0.5)
    for dtype in (torch.float32, torch.float64):
        assert_like_reference(u.to(dtype), g.to(dtype), d.to(dtype), label if per_class else None)


def test_several_tiles_and_levels(monkeypatch):
    monkeypatch.setattr(op, "COMPARED", SORTED)
    u, g, _, label = case((2, 50, 130), 60)
    for label_dtype in (torch.uint8, torch.int64):
        assert_like_reference(u, g, torch.zeros_like(u), label.to(label_dtype))


@pytest.mark.parametrize("limit", [SORTED, COMPARED])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_labels_of_any_sign_and_width(dtype, limit, monkeypatch):
    monkeypatch.setattr(op, "COMPARED", limit)
    u, g, d, label = case((2, 20, 21))
    assert_like_reference(u, g, d, (label - 1).to(dtype) * 100)


def test_sorting_and_comparing_find_the_same_bits(monkeypatch):
    u, g, d, label = case((3, 33, 40), 30)
    found = []
    for limit in (SORTED, COMPARED):
        monkeypatch.setattr(op, "COMPARED", limit)
        found.append(run(u.float(), g.float(), d, label=label)[1])
    assert torch.equal(*found)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 6, 7), (2, 40, 41)], ids=str)
def test_sampled_pairs_are_those_of_the_reference(shape, per_class):
    u, g, d, label = case(shape, 20)
    options = {"pairs": "sampled", "num_pairs": 5001, "seed": 11, "label": label if per_class else None}
    got, want = run(u, g, d, **options), run(u, g, d, "reference", **options)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("way", ["sorted", "compared", "sampled", "sampled per class"])
def test_every_order_gives_the_same_bits(way, library, monkeypatch):
    monkeypatch.setattr(op, "COMPARED", COMPARED if way == "compared" else SORTED)
    u, g, d, label = case((2, 40, 61), 50)
    options = {"pairs": "sampled", "num_pairs": 9001} if "sampled" in way else {}
    options["label"] = label if "class" in way else None
    stream, found = library.Stream, []
    for order, multiprocessors in zip(ORDERS.values(), (2, 1, 5, 2), strict=True):
        library.set_order(*order)
        monkeypatch.setattr(library, "Stream", lambda handle, _, m=multiprocessors: stream(handle, m))
        found.append(run(u, g, d, **options))
    for other in found[1:]:
        assert torch.equal(other[0], found[0][0])
        assert torch.equal(other[1], found[0][1])


@pytest.mark.parametrize("sampled", [False, True])
def test_images_that_do_not_go_together(sampled):
    """Of 2^22 voxels and more an image has the scratch memory to itself."""
    d = torch.full((2, 2051, 2049), math.inf)
    d.view(2, -1)[:, ::100_003] = 1.0
    generator = torch.Generator().manual_seed(0)
    u, g = torch.rand((2, *d.shape), generator=generator)
    options = {}
    if sampled:
        label = torch.randint(0, 2, d.shape, generator=generator, dtype=torch.int16)
        options = {"pairs": "sampled", "num_pairs": 300, "label": label}
    got, want = run(u, g, d, **options), run(u.double(), g.double(), d, "reference", **options)
    torch.testing.assert_close(got[0].double(), want[0], **tolerance(torch.float32))
    torch.testing.assert_close(got[1].double(), want[1], **tolerance(torch.float32))


@pytest.mark.parametrize("limit", [SORTED, COMPARED])
def test_nan_infinity_and_nothing_near(limit, monkeypatch):
    monkeypatch.setattr(op, "COMPARED", limit)
    u, g, d, _ = case((3, 6, 7))
    d[1] = math.inf
    d[2, 0, 0] = math.nan  # is not near
    for number in (math.nan, math.inf):
        spoiled = u.clone()
        spoiled[0][d[0] <= 1] = number
        loss, gradient = run(spoiled, g, d)
        assert loss.isnan()
        assert bool(gradient[0][d[0] <= 1].isnan().all())
        assert bool((gradient[1] == 0).all())
        assert bool(gradient[2].isfinite().all())
    loss, gradient = run(u, g, d)
    torch.testing.assert_close(loss, brute_force(u, g, d), rtol=1e-12, atol=0)
    assert run(u[:0], g[:0], d[:0])[0] == 0


def test_distances_as_bytes():
    u, g, d, _ = case((2, 9, 10))
    found = [
        torch.ops.sure_fast.gradient_uncertainty_loss(u, g, x, None, 1.0, 0, torch.tensor(0), backend)
        for x, backend in ((d.to(torch.uint8), "cuda"), (d, "cuda"), (d.to(torch.uint8), "cpu"))
    ]
    for got in found[:2]:
        torch.testing.assert_close(got, found[2], rtol=1e-12, atol=1e-14)


def test_large_offsets_and_wide_ranges_keep_their_digits():
    u, g, d, _ = case((1, 20, 20))
    want = run(u, g, d)
    for offset, scale in ((1e6, 1.0), (0.0, 1e300), (0.0, 1e-300)):
        got = run(u, g * scale + offset, d)
        torch.testing.assert_close(got[0] / scale, want[0], rtol=1e-8, atol=0)
        torch.testing.assert_close(got[1] / scale, want[1], rtol=1e-7, atol=1e-12)


def test_operator_is_registered_properly_and_compiles_whole():
    u, g, d, label = case((2, 5, 6))
    u.requires_grad_()
    torch.library.opcheck(
        torch.ops.sure_fast.gradient_uncertainty_loss.default,
        (u, g, d, label, 1.0, 0, torch.tensor(0), "cuda"),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_static"),
    )

    def loss(u, g, d):
        return sure_fast.gradient_uncertainty_loss(u, g, d, backend="cuda")

    assert torch.equal(torch.compile(loss, fullgraph=True, backend="aot_eager")(u, g, d), loss(u, g, d))


def test_automatic_choice_stays_on_the_cpu():
    u, g, d, _ = case((1, 4, 4))
    chosen = {c.backend: c for c in sure_fast.explain("gradient_uncertainty_loss", u, g, d)}
    assert chosen["cpu"].chosen
    assert chosen["cuda"].reason == "supported"
