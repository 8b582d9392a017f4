from __future__ import annotations

import math

import pytest
import torch

import sure_fast
from sure_fast.ops.dense_noise_uncertainty_loss import _op
from tests.ops.backends import Backend, assert_same_bits, on
from tests.ops.inputs import strided

REFERENCE = Backend("dense_noise_uncertainty_loss", "reference")
LEVELS = torch.tensor([0.2, 0.7])


def case(shape=(2, 17, 19), dtype=torch.float32, seed=0):
    """Three maps of u of much the same value, and distances with voxels near, far, neither, and beyond everything."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(shape, generator=generator, dtype=torch.float64)
    maps = [(u + 0.3 * torch.rand(shape, generator=generator, dtype=torch.float64)).to(dtype) for _ in range(3)]
    d = (torch.rand(shape, generator=generator) * 64).floor().sqrt()
    d[torch.rand(shape, generator=generator) < 0.1] = math.nan
    d[torch.rand(shape, generator=generator) < 0.1] = math.inf
    return maps, d.to(torch.float64 if dtype == torch.float64 else torch.float32)


def run(backend, maps, d, levels=LEVELS, **options):
    """Terms, and the gradients of a weighted sum of them; of two maps those of one noisy copy."""
    leaves = [backend.leaf(u) for u in maps]
    clean, noisy1, noisy2 = (*leaves, None)[:3]
    out = backend(clean, noisy1, noisy2, d, levels[: len(maps) - 1], **options)
    total = 1024 * (2 * out.order.double() + 3 * out.distance.double() + 5 * out.far.double())
    return torch.stack(out).detach(), torch.autograd.grad(total, leaves)


def check(kernel, maps, d, levels=LEVELS, **options):
    terms, gradients = run(kernel, maps, d, levels, **options)
    want, wanted = run(REFERENCE, [u.double() for u in maps], d.double(), levels.double(), **options)
    kernel.agree(terms, want, "dense_noise_uncertainty_loss")
    for got, exact, u in zip(gradients, wanted, maps, strict=True):
        assert got.dtype == u.dtype
        kernel.agree(got, exact, "dense_noise_uncertainty_loss.gradient", scaled=True)
    return terms


def test_by_hand(backend):
    # One row: d = 0 and 2 are near, 5 and inf far, NaN neither.
    d = torch.tensor([[[0.0, 2.0, 5.0, math.inf, math.nan]]], dtype=backend.widest)
    u0 = torch.tensor([[[0.5, 0.4, 0.1, 0.3, 9.0]]], dtype=backend.widest, requires_grad=True)
    u1 = torch.tensor([[[0.25, 0.5, 0.2, 0.4, 9.0]]], dtype=backend.widest, requires_grad=True)
    u2 = torch.tensor([[[0.75, 0.35, 0.3, 0.5, 9.0]]], dtype=backend.widest, requires_grad=True)
    levels = torch.tensor([1.0, 2.0], dtype=backend.widest)
    out = backend(u0, u1, u2, d, levels)
    # order: falls of u, 0 to 1: .25, 0; 0 to 2: 0, .05; 1 to 2: 0, .15; over two near voxels
    assert out.order.item() == pytest.approx((0.25 + 0.05 + 0.15) / 2, rel=1e-5)
    # distance: Δ¹ = (-.25, .1): (0 - 2)(-.25 - .1) = .7; Δ² = (.25, -.05): (0 - 2)(.3) < 0
    assert out.distance.item() == pytest.approx(0.7, rel=1e-5)
    assert out.far.item() == pytest.approx((0.1 + 0.3 + 0.2 + 0.4 + 0.3 + 0.5) / 2, rel=1e-5)
    g0, g1, g2 = (g[0, 0].tolist() for g in torch.autograd.grad(out.order, (u0, u1, u2), retain_graph=True))
    assert g0 == pytest.approx([0.5, 0.5, 0, 0, 0])
    assert g1 == pytest.approx([-0.5, 0.5, 0, 0, 0])
    assert g2 == pytest.approx([0, -1.0, 0, 0, 0])
    g0, g1, g2 = (g[0, 0].tolist() for g in torch.autograd.grad(out.distance, (u0, u1, u2), retain_graph=True))
    assert g0 == pytest.approx([2, -2, 0, 0, 0])
    assert g1 == pytest.approx([-2, 2, 0, 0, 0])
    assert g2 == [0] * 5
    for gradient in torch.autograd.grad(out.far, (u0, u1, u2)):
        assert gradient[0, 0].tolist() == pytest.approx([0, 0, 0.5, 0.5, 0])


def test_one_copy_counts_for_both(backend):
    d = torch.tensor([[[0.0, 2.0, 5.0]]], dtype=backend.widest)
    u0 = torch.tensor([[[0.5, 0.4, 0.1]]], dtype=backend.widest, requires_grad=True)
    u1 = torch.tensor([[[0.25, 0.5, 0.2]]], dtype=backend.widest, requires_grad=True)
    out = backend(u0, u1, None, d, torch.tensor([1.0], dtype=backend.widest))
    # order: u falls by .25 at one of two near voxels, twice; distance: (0 - 2)(-.25 - .1) = .7, twice
    assert [term.item() for term in out] == pytest.approx([0.25, 1.4, 0.1 + 2 * 0.2], rel=1e-5)
    g0, g1 = (g[0, 0].tolist() for g in torch.autograd.grad(sum(out), (u0, u1)))
    assert g0 == pytest.approx([1 + 4, -4, 1], rel=1e-5)
    assert g1 == pytest.approx([-1 - 4, 4, 2], rel=1e-5)
    both = backend(u0, u1, u1, d, torch.tensor([1.0, 1.0], dtype=backend.widest), normalize="band")
    one = backend(u0, u1, None, d, torch.tensor([1.0], dtype=backend.widest), normalize="band")
    torch.testing.assert_close(torch.stack(one), torch.stack(both))


def test_margin_detach_and_the_order_of_the_levels(backend):
    d = torch.zeros(1, 1, 1, dtype=backend.widest)
    u = [torch.full((1, 1, 1), x, dtype=backend.widest, requires_grad=True) for x in (0.5, 0.6, 0.55)]
    levels = torch.tensor([1.0, 3.0], dtype=backend.widest)
    wide = backend(*u, d, levels, margin=0.2)
    # wanted rises .2, .6, .4; there are .1, .05, -.05
    assert wide.order.item() == pytest.approx(0.1 + 0.55 + 0.45, rel=1e-5)
    turned = backend(u[0], u[2], u[1], d, levels.flip(0), margin=0.2)
    assert turned.order.item() == pytest.approx(wide.order.item(), rel=1e-6)
    equal = backend(*u, d, levels * 0 + 1)
    assert equal.order.item() == 0  # no noise more than the other: no order to keep
    free, held = (
        torch.autograd.grad(backend(*u, d, levels, margin=0.2, detach=detach).order, u, allow_unused=True)
        for detach in (False, True)
    )
    assert [g.item() for g in free] == [2, 0, -2]
    assert [0 if g is None else g.item() for g in held] == [0, -1, -2]


def test_normalized_terms_know_no_scale(backend):
    maps, d = case(dtype=backend.widest)
    plain, want = backend(*maps, d, LEVELS), backend(*maps, d, LEVELS, normalize="band")
    near = d <= 4
    mean = sum(float(u[near].double().mean()) for u in maps) / 3
    assert want.order.item() == pytest.approx(plain.order.item() / mean, rel=1e-5)
    assert want.far.item() == plain.far.item()
    less = backend(*(0.01 * u for u in maps), d, LEVELS, normalize="band")
    assert less.order.item() == pytest.approx(want.order.item(), rel=1e-4)
    assert less.distance.item() == pytest.approx(want.distance.item(), rel=1e-3)
    leaves = [u.clone().requires_grad_() for u in maps]
    out = backend(*leaves, d, LEVELS, normalize="band")
    gradients = torch.autograd.grad(out.order + out.distance, leaves)
    assert abs(sum(float((g * u).sum()) for g, u in zip(gradients, maps, strict=True))) < 1e-3
    nothing = backend(*(0 * u for u in maps), d, LEVELS, normalize="band")
    assert nothing.order == nothing.distance == 0


@pytest.mark.parametrize("shape", [(2, 17, 19), (3, 5, 6, 7), (1, 1, 1)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"threshold": 6.5, "margin": 0.1},
        {"detach": True, "threshold": 0.0},
        {"with_distance": False},
        {"normalize": "band", "margin": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("copies", [1, 2])
def test_kernel_agrees_with_the_reference(copies, shape, options, kernel, dtype):
    maps, d = case(shape, dtype)
    check(kernel, maps[: 1 + copies], d, **options)
    check(kernel, maps[: 1 + copies], d, LEVELS.flip(0), **options)


@on("cpu")
def test_many_chunks_and_threads(variant):
    maps, d = case((2, 130, 140))
    for some in (maps, maps[:2]):
        check(variant, some, d, margin=0.02)
        assert_same_bits(run(variant, some, d) for _ in variant.ways())


def test_same_bits_however_it_runs(variant):
    maps, d = case((2, 31, 33))
    for some in (maps, maps[:2]):
        assert_same_bits(run(variant, some, d, margin=0.01) for _ in variant.ways())


def test_strides_channels_and_dtypes_change_nothing(kernel):
    maps, d = case((2, 12, 14))
    want = run(kernel, maps, d)
    turned = [strided(u[:, None], "channels_last")[:, 0] for u in maps]
    assert_same_bits([want, run(kernel, turned, d.mT.contiguous().mT, strided(LEVELS, "every other voxel"))])
    terms, gradients = run(kernel, [u[:, None] for u in maps], d[:, None])
    assert_same_bits([want, (terms, [g[:, 0] for g in gradients])])
    half = [maps[0].bfloat16(), maps[1], maps[2].bfloat16()]
    terms, gradients = run(kernel, half, d)
    assert_same_bits([run(kernel, [u.float() for u in half], d)[0], terms])
    assert [g.dtype for g in gradients] == [u.dtype for u in half]


def test_nothing_near_nothing_far_and_empty(backend):
    maps, d = case((2, 5, 6), backend.widest)
    near = backend(*maps, d * 0, LEVELS)
    assert near.far == 0
    assert near.distance == 0  # no two distances differ
    none = backend(*maps, torch.full_like(d, math.inf), LEVELS)
    assert none.order == none.distance == 0
    assert none.far.item() == pytest.approx(sum(u.mean().item() for u in maps), rel=1e-5)
    assert [x.item() for x in backend(*(u[:0] for u in maps), d[:0], LEVELS)] == [0, 0, 0]
    assert run(backend, [u[:0] for u in maps[:2]], d[:0])[0].tolist() == [0, 0, 0]


def test_nan_stays_nan(backend):
    maps, d = case((1, 6, 7), backend.widest)
    d = torch.zeros_like(d)
    d[0, 0, 1] = 9.0
    maps[1][0, 2, 3] = math.nan
    leaves = [backend.leaf(u) for u in maps]
    out = backend(*leaves, d, LEVELS)
    assert out.order.isnan()
    assert out.distance.isnan()
    assert out.far.isfinite()
    maps[1][0, 2, 3], maps[2][0, 0, 1] = 0.5, math.nan
    assert backend(*maps, d, LEVELS).far.isnan()
    assert backend(*maps, d, LEVELS).order.isfinite()


@on("cpu")
def test_gradcheck_of_the_reference(kernel):
    maps, d = case((1, 3, 4), torch.float64)
    leaves = [u.requires_grad_() for u in maps]

    def terms(*u):
        return tuple(sure_fast.dense_noise_uncertainty_loss(*u, d, LEVELS, margin=0.05, backend="reference"))

    assert torch.autograd.gradcheck(terms, leaves)
    assert torch.autograd.gradcheck(lambda u, v: terms_of_one(u, v, d), leaves[:2])


def terms_of_one(u, v, d):
    return tuple(sure_fast.dense_noise_uncertainty_loss(u, v, None, d, LEVELS[:1], margin=0.05, backend="reference"))


def test_operator_is_registered_properly_and_compiles_whole(kernel):
    maps, d = kernel.put(case((2, 9, 10)))
    levels = kernel.put(LEVELS)
    leaves = [u.requires_grad_() for u in maps]
    for some in ((*leaves, d, levels), (*leaves[:2], None, d, levels[:1])):
        torch.library.opcheck(
            _op, (*some, 4.0, 0.01, False, kernel.name),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_static"),
        )  # fmt: skip

        def step(*u, some=some):
            maps = (*u, None)[:3]
            return sum(sure_fast.dense_noise_uncertainty_loss(*maps, *some[3:], backend=kernel.requested))

        given = [u for u in some[:3] if u is not None]
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(
            torch.autograd.grad(compiled(*given), given), torch.autograd.grad(step(*given), given)
        )


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"noisy1": torch.zeros(2, 17, 18)}, ValueError, r"noisy1: expected"),
        ({"distance": torch.zeros(1, 17, 19)}, ValueError, "distance: expected"),
        ({"levels": torch.zeros(3)}, ValueError, r"levels: expected shape \[2\], got \[3\]"),
        ({"noisy2": None}, ValueError, r"levels: expected shape \[1\], got \[2\]"),
        ({"levels": torch.zeros(1)}, ValueError, r"levels: expected shape \[2\], got \[1\]"),
        ({"levels": torch.tensor([0.0, math.nan])}, ValueError, "levels: expected finite numbers"),
        ({"margin": -0.1}, ValueError, "margin: expected a finite number >= 0, got -0.1"),
        ({"threshold": math.nan}, ValueError, "threshold: expected a finite number >= 0, got nan"),
        ({"detach": "no"}, TypeError, "detach: expected True or False, got 'no'"),
        ({"uncertainty": None}, TypeError, "uncertainty: expected a torch.Tensor, got NoneType"),
    ],
)
def test_errors_name_the_argument(arguments, error, text, backend):
    maps, d = case()
    given = {"uncertainty": maps[0], "noisy1": maps[1], "noisy2": maps[2], "distance": d, "levels": LEVELS}
    with pytest.raises(error, match=text):
        backend(**{**given, **arguments})
