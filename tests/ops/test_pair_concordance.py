from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sure_fast


def brute_force(a, b):
    i, j = torch.triu_indices(len(a), len(a), 1)
    da, db = (a[i] - a[j]).sign(), (b[i] - b[j]).sign()
    product = da * db
    return [
        int((product > 0).sum()), int((product < 0).sum()), int(((da == 0) & (db != 0)).sum()),
        int(((da != 0) & (db == 0)).sum()), int(((da == 0) & (db == 0)).sum()),
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 150), st.integers(1, 30))
def test_counts_every_pair(seed, n, levels):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(0, levels, (n,), generator=generator).double() for _ in range(2))
    got = [int(v) for v in sure_fast.pair_concordance(a, b)]
    assert got == brute_force(a, b)
    assert sum(got) == n * (n - 1) // 2


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
    assert [v.shape for v in sure_fast.pair_concordance(a[..., :0], b[..., :0])] == [(2, 3)] * 5


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
