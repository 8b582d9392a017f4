from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sure_fast
from sure_fast.reference.spearman import average_rank
from tests.ops.backends import Backend, assert_same_bits, drawn, on
from tests.ops.inputs import SPREADS, rankings, spread

REFERENCE = Backend("spearman", "reference")


@settings(drawn, max_examples=40)
@given(st.integers(0, 2**31), st.integers(3, 200), st.integers(2, 40), st.booleans())
def test_is_scipy_under_ties(backend, seed, n, levels, double):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(0, levels, (n,), generator=generator) - levels / 2 for _ in range(2))
    if double:
        a, b = a.double() / 3, b.double() / 7
    got = backend(a, b).item()
    if a.unique().numel() == 1 or b.unique().numel() == 1:
        assert math.isnan(got)
    else:
        assert got == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)


@pytest.mark.parametrize("n", [0, 1, 2, 33, 1000, 1025])
@pytest.mark.parametrize("levels", [3, 200, None])
def test_kernel_agrees_with_the_reference(n, levels, kernel):
    for dtype in (torch.float32, torch.float64):
        a, b, mask = rankings(3, n, levels, dtype)
        for keep in (None, mask):
            got = kernel(a, b, mask=keep)
            kernel.agree(got, REFERENCE(a, b, mask=keep))
            # every kernel counts exactly, and rounds once
            assert_same_bits([got, sure_fast.spearman(a, b, mask=keep)])


@on("cpu")
@pytest.mark.parametrize("n", [33, 600, 40_000])
@pytest.mark.parametrize("name", SPREADS)
def test_however_the_numbers_are_spread(name, n, variant):
    for dtype in (torch.float32, torch.float64):
        a, b = spread(name, n, dtype)
        runs = [variant(a, b) for _ in variant.ways()]
        assert_same_bits(runs)
        assert runs[0].item() == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)


@on("cuda")
@pytest.mark.parametrize("levels", [3, 200, None])
def test_rows_of_several_tiles(levels, kernel):
    for dtype in (torch.float32, torch.float64):
        a, b, mask = rankings(1, 5000, levels, dtype)
        for keep in (None, mask):
            assert_same_bits([kernel(a, b, mask=keep), sure_fast.spearman(a, b, mask=keep)])


def test_same_bits_however_it_runs(variant):
    a, b, mask = rankings(2, 1500, 40)
    assert_same_bits(variant(a, b, mask=mask) for _ in variant.ways())


def test_average_ranks_are_scipys():
    values = torch.tensor([[3.0, 1.0, 3.0, math.inf, -2.0, 3.0, math.inf]], dtype=torch.float64)
    rank = average_rank(values, torch.ones_like(values, dtype=torch.bool))
    np.testing.assert_array_equal(rank[0] + 1, scipy.stats.rankdata(values[0]))


def test_by_hand(backend):
    # ranks of a: 1, 2.5, 2.5, 4; of b: 1, 2, 3, 4. Sums about 2.5: products 4.5, squares 4.5 and 5
    a = torch.tensor([1.0, 2.0, 2.0, 5.0])
    assert backend(a, torch.arange(4.0)).item() == pytest.approx(4.5 / math.sqrt(4.5 * 5), rel=1e-12)


def test_rows_and_masks(backend):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 9, (2, 3, 50), generator=generator).float() for _ in range(2))
    a[0, 1, 4:9] = math.inf
    mask = torch.rand((2, 3, 50), generator=generator) < 0.6
    got = backend(a, b, mask=mask)
    assert got.dtype == torch.float64
    for k in range(2):
        for j in range(3):
            keep = mask[k, j]
            want = scipy.stats.spearmanr(a[k, j][keep], b[k, j][keep]).statistic
            assert got[k, j].item() == pytest.approx(want, abs=1e-12)


def test_undefined_is_nan(backend):
    x = torch.rand(5)
    for a, b in ((x, torch.ones(5)), (x[:1], x[:1]), (x[:0], x[:0]), (x, x * math.nan)):
        assert backend(a, b).isnan()
    spoiled, other = x.repeat(2, 1), x.flip(0).repeat(2, 1)
    spoiled[1, 2] = math.nan
    for a, b in ((spoiled, other), (other, spoiled)):
        assert backend(a, b).isnan().tolist() == [False, True]
        assert not backend(a, b, mask=~spoiled.isnan()).isnan().any()


def test_order_and_its_opposite(backend):
    x = torch.rand(5)
    assert backend(x, x).item() == pytest.approx(1.0)
    assert backend(x, -x).item() == pytest.approx(-1.0)


def test_errors_name_the_argument(backend):
    x = torch.rand(5)
    with pytest.raises(ValueError, match="b: expected the shape of a"):
        backend(x, x[:3])
    with pytest.raises(TypeError, match="a: expected float32"):
        backend(torch.arange(5), x)
    with pytest.raises(ValueError, match=r"mask: expected bool \[5\]"):
        backend(x, x, mask=x)


@on("cpu")
def test_the_opposite_order_is_exact(kernel):
    for n in range(2, 40):
        assert kernel(torch.arange(float(n)), -torch.arange(float(n))).item() == -1.0


def test_infinities_and_signed_zeros(kernel):
    a, b = torch.tensor([[0.0, -0.0, 1.0, math.inf]]), torch.tensor([[1.0, 2.0, -math.inf, 3.0]])
    torch.testing.assert_close(kernel(a, b), REFERENCE(a, b), rtol=1e-12, atol=0)
    assert_same_bits([kernel(a, b), sure_fast.spearman(a, b)])


@on("cpu")
@pytest.mark.parametrize("n", [40_000, 300_001])
@pytest.mark.parametrize("levels", [2, 50, None])
def test_large_rows(n, levels, kernel):
    generator = torch.Generator().manual_seed(n)
    for dtype in (torch.float32, torch.float64):
        a = torch.randn(n, generator=generator, dtype=dtype)
        b = a + torch.randn(n, generator=generator, dtype=dtype)
        if levels:
            a, b = (a * levels / 4).round(), (b * levels / 4).round()
        runs = [kernel(a, b) for _ in kernel.ways()]
        assert runs[0].item() == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)
        assert_same_bits(runs)


@on("cpu")
def test_sums_do_not_overflow(kernel):
    """n³ of three million elements is beyond 64 bits."""
    n = 3_000_000
    a = torch.arange(n, dtype=torch.float64)
    assert kernel(a, a).item() == 1
    assert kernel(a, -a).item() == -1
    half = (a >= n / 2).float()
    # of a two-valued map: sum of the products of both halves' mean rank, n/4 each side
    assert kernel(half, a.float()).item() == pytest.approx(math.sqrt(3) / 2, rel=1e-6)


def test_keys_that_differ_in_their_lower_half_are_told_apart(backend):
    generator = torch.Generator().manual_seed(0)
    fine = 1 + torch.rand(5000, generator=generator, dtype=torch.float64) * 2.0**-40
    other = torch.rand(5000, generator=generator, dtype=torch.float64)
    assert backend(fine, other).item() == pytest.approx(scipy.stats.spearmanr(fine, other).statistic, abs=1e-12)


def test_operator_is_registered_properly(kernel):
    a, b, mask = kernel.put(rankings(2, 40, None))
    for keep in (None, mask):
        torch.library.opcheck(torch.ops.sure_fast.spearman.default, (a, b, keep, kernel.name))
