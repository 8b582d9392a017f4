from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sure_fast
from tests.ops.backends import Backend, assert_same_bits, drawn, on
from tests.ops.inputs import SPREADS, rankings, spread

REFERENCE = Backend("pair_concordance", "reference")


def brute_force(a, b, tolerance=0.0):
    i, j = torch.triu_indices(len(a), len(a), 1)
    da, db = (a[i] - a[j]).sign(), (b[i] - b[j]).sign()
    product = da * db
    return [
        int((product > 0).sum()), int((product < 0).sum()), int(((da == 0) & (db != 0)).sum()),
        int(((da != 0) & (db == 0)).sum()), int(((da == 0) & (db == 0)).sum()),
        int(((da == 0) & (db != 0) & ((b[i] - b[j]).abs() < tolerance)).sum()),
    ]  # fmt: skip


@settings(drawn, max_examples=40)
@given(st.integers(0, 2**31), st.integers(0, 150), st.integers(1, 30))
def test_counts_every_pair(backend, seed, n, levels):
    generator = torch.Generator().manual_seed(seed)
    for dtype in (torch.float32, torch.float64):
        a, b = (torch.randint(0, levels, (n,), generator=generator).to(dtype) - levels / 2 for _ in range(2))
        got = [int(v) for v in backend(a, b, tolerance=2.5)]
        assert got == brute_force(a, b, 2.5)
        assert sum(got[:5]) == n * (n - 1) // 2


@pytest.mark.parametrize("n", [0, 1, 2, 33, 1000, 1025])
@pytest.mark.parametrize("levels", [3, 200, None])
def test_kernel_is_the_reference(n, levels, kernel):
    for dtype in (torch.float32, torch.float64):
        a, b, mask = rankings(3, n, levels, dtype)
        for keep in (None, mask):
            options = {"mask": keep, "tolerance": 1.5}
            assert_same_bits(backend(a, b, **options) for backend in (kernel, REFERENCE))


@on("cpu")
@pytest.mark.parametrize("n", [33, 1000, 70_000, pytest.param(300_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("levels", [3, 200, None])
def test_large_rows(n, levels, variant):
    a, b, _ = rankings(2, n, levels)
    a[0] = a[0].sort().values  # long rising runs
    if n > 70_000 and variant.variant != "avx512":
        a, b = a[:1], b[:1]
    runs = [variant(a, b, tolerance=1.5) for _ in variant.ways()]
    assert_same_bits([*runs, REFERENCE(a, b, tolerance=1.5)])


@on("cpu")
@pytest.mark.parametrize("n", [33, 5000])
@pytest.mark.parametrize("name", SPREADS)
def test_however_the_numbers_are_spread(name, n, variant):
    a, b = spread(name, n, torch.float32)
    want = REFERENCE(a, b, tolerance=0.01)
    assert_same_bits([want, *(variant(a, b, tolerance=0.01) for _ in variant.ways())])


@on("cuda")
@pytest.mark.parametrize("levels", [3, 200, None])
def test_rows_of_several_tiles(levels, kernel):
    for dtype in (torch.float32, torch.float64):
        a, b, mask = rankings(1, 5000, levels, dtype)
        for keep in (None, mask):
            options = {"mask": keep, "tolerance": 1.5}
            assert_same_bits([kernel(a, b, **options), sure_fast.pair_concordance(a, b, **options)])


def test_same_bits_however_it_runs(variant):
    a, b, mask = rankings(2, 1500, 40)
    assert_same_bits(variant(a, b, mask=mask, tolerance=1.5) for _ in variant.ways())


def test_against_scipy_kendalltau(kernel):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5000, dtype=torch.float64, generator=generator)
    b = (a + torch.randn(5000, dtype=torch.float64, generator=generator)).round(decimals=1)
    c, d, ta, tb = (v.item() for v in kernel(a, b)[:4])
    tau = (c - d) / math.sqrt((c + d + ta) * (c + d + tb))
    assert tau == pytest.approx(scipy.stats.kendalltau(a, b).statistic, rel=1e-12)


def test_rows_masks_and_infinities(backend):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 9, (2, 3, 50), generator=generator).float() for _ in range(2))
    a[0, 0, :5] = math.inf
    b[0, 0, 3:9] = -math.inf
    mask = torch.rand((2, 3, 50), generator=generator) < 0.7
    mask[1, 2] = False
    out = backend(a, b, mask=mask)
    assert out.concordant.shape == (2, 3)
    for k in range(2):
        for j in range(3):
            x, y = a[k, j][mask[k, j]], b[k, j][mask[k, j]]
            finite = [x.clamp(-99, 99), y.clamp(-99, 99)]
            assert [int(v[k, j]) for v in out] == brute_force(*finite)
    assert [v.shape for v in backend(a[..., :0], b[..., :0])] == [(2, 3)] * 6


def test_errors_name_the_argument(backend):
    a = torch.rand(4)
    with pytest.raises(ValueError, match=r"b: expected the shape of a \[4\], got \[5\]"):
        backend(a, torch.rand(5))
    with pytest.raises(TypeError, match="a: expected float32"):
        backend(torch.arange(4), a)
    with pytest.raises(ValueError, match=r"mask: expected bool \[4\]"):
        backend(a, a, mask=torch.ones(4))
    with pytest.raises(ValueError, match="tolerance: expected a finite number >= 0"):
        backend(a, a, tolerance=-1)
    with pytest.raises(ValueError, match="b: expected numbers, got NaN"):
        backend(a, a * math.nan)
    with pytest.raises(ValueError, match="a: expected numbers, got NaN"):
        backend(a * math.nan, a)
    spoiled = a.repeat(2, 1)
    spoiled[1, 2] = math.nan
    with pytest.raises(ValueError, match="expected numbers, got NaN"):
        backend(a.repeat(2, 1), spoiled)


def test_signed_zeros_are_tied_and_strides_do_not_matter(backend):
    a, b = torch.tensor([0.0, -0.0, 1.0]), torch.tensor([1.0, 2.0, 3.0])
    assert [int(v) for v in backend(a, b)] == [2, 0, 1, 0, 0, 0]
    turned = torch.rand(5, 4, 3).permute(2, 1, 0)
    assert_same_bits(backend(x, x.flip(2)) for x in (turned, turned.contiguous()))


def test_operator_is_registered_properly(kernel):
    a, b, mask = kernel.put(rankings(2, 40, None))
    for keep in (None, mask):
        torch.library.opcheck(torch.ops.sure_fast.pair_concordance.default, (a, b, keep, 0.1, kernel.name))
