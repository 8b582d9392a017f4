from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sure_fast


def brute_force(a, b, tolerance=0.0):
    i, j = torch.triu_indices(len(a), len(a), 1)
    da, db = (a[i] - a[j]).sign(), (b[i] - b[j]).sign()
    product = da * db
    return [
        int((product > 0).sum()), int((product < 0).sum()), int(((da == 0) & (db != 0)).sum()),
        int(((da != 0) & (db == 0)).sum()), int(((da == 0) & (db == 0)).sum()),
        int(((da == 0) & (db != 0) & ((b[i] - b[j]).abs() < tolerance)).sum()),
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 150), st.integers(1, 30), st.sampled_from(["cpu", "reference"]))
def test_counts_every_pair(seed, n, levels, backend):
    generator = torch.Generator().manual_seed(seed)
    for dtype in (torch.float32, torch.float64):
        a, b = (torch.randint(0, levels, (n,), generator=generator).to(dtype) - levels / 2 for _ in range(2))
        got = [int(v) for v in sure_fast.pair_concordance(a, b, tolerance=2.5, backend=backend)]
        assert got == brute_force(a, b, 2.5)
        assert sum(got[:5]) == n * (n - 1) // 2


@pytest.mark.parametrize("n", [33, 1000, 70_000, 300_000])
@pytest.mark.parametrize("levels", [3, 200, None])
def test_large_rows_agree_with_the_reference_for_any_number_of_threads(n, levels, isa, threads):
    generator = torch.Generator().manual_seed(n)
    a, b = (torch.randn((2, n), generator=generator) for _ in range(2))
    if levels:
        a, b = (a * levels / 3).round(), (b * levels / 3).round()
    a[0] = a[0].sort().values  # long rising runs
    if n > 70_000 and isa != "avx512":
        a, b = a[:1], b[:1]
    want = sure_fast.pair_concordance(a, b, tolerance=1.5, backend="reference")
    for count in (1, 2, 5):
        threads(count)
        got = sure_fast.pair_concordance(a, b, tolerance=1.5, backend="cpu")
        assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def test_against_scipy_kendalltau():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5000, dtype=torch.float64, generator=generator)
    b = (a + torch.randn(5000, dtype=torch.float64, generator=generator)).round(decimals=1)
    out = sure_fast.pair_concordance(a, b)
    c, d, ta, tb = (v.item() for v in out[:4])
    tau = (c - d) / math.sqrt((c + d + ta) * (c + d + tb))
    assert tau == pytest.approx(scipy.stats.kendalltau(a, b).statistic, rel=1e-12)


def test_rows_masks_and_infinities():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 9, (2, 3, 50), generator=generator).float() for _ in range(2))
    a[0, 0, :5] = math.inf
    b[0, 0, 3:9] = -math.inf
    mask = torch.rand((2, 3, 50), generator=generator) < 0.7
    mask[1, 2] = False
    out = sure_fast.pair_concordance(a, b, mask=mask)
    assert out.concordant.shape == (2, 3)
    for k in range(2):
        for j in range(3):
            x, y = a[k, j][mask[k, j]], b[k, j][mask[k, j]]
            finite = [x.clamp(-99, 99), y.clamp(-99, 99)]
            assert [int(v[k, j]) for v in out] == brute_force(*finite)
    assert [v.shape for v in sure_fast.pair_concordance(a[..., :0], b[..., :0])] == [(2, 3)] * 6


def test_errors_name_the_argument():
    a = torch.rand(4)
    with pytest.raises(ValueError, match=r"b: expected the shape of a \[4\], got \[5\]"):
        sure_fast.pair_concordance(a, torch.rand(5))
    with pytest.raises(TypeError, match="a: expected float32"):
        sure_fast.pair_concordance(torch.arange(4), a)
    with pytest.raises(ValueError, match=r"mask: expected bool \[4\]"):
        sure_fast.pair_concordance(a, a, mask=torch.ones(4))
    with pytest.raises(ValueError, match="b: expected numbers, got NaN"):
        sure_fast.pair_concordance(a, a * math.nan)
    with pytest.raises(ValueError, match="a: expected numbers, got NaN"):
        sure_fast.pair_concordance(a * math.nan, a, backend="reference")
    with pytest.raises(ValueError, match="tolerance: expected a finite number >= 0"):
        sure_fast.pair_concordance(a, a, tolerance=-1)


def test_signed_zeros_are_tied_and_strides_do_not_matter():
    a, b = torch.tensor([0.0, -0.0, 1.0]), torch.tensor([1.0, 2.0, 3.0])
    assert [int(v) for v in sure_fast.pair_concordance(a, b)] == [2, 0, 1, 0, 0, 0]
    wide = torch.rand(5, 4, 3)
    got = sure_fast.pair_concordance(wide.permute(2, 1, 0), wide.permute(2, 1, 0).flip(2))
    assert torch.equal(
        got.discordant, sure_fast.pair_concordance(*(wide.permute(2, 1, 0).contiguous().flip(d) for d in ((), 2)))[1]
    )


def test_operator_is_registered_properly():
    a, b = torch.rand(2, 40), torch.rand(2, 40)
    torch.library.opcheck(torch.ops.sure_fast.pair_concordance.default, (a, b, None, 0.1))
    torch.library.opcheck(torch.ops.sure_fast.pair_concordance.default, (a, b, a > 0.5, 0.1))
