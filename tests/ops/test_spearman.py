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


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(3, 200), st.integers(2, 40), st.sampled_from(["cpu", "reference"]), st.booleans()
)
def test_is_scipy_under_ties(seed, n, levels, backend, double):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(0, levels, (n,), generator=generator) - levels / 2 for _ in range(2))
    if double:
        a, b = a.double() / 3, b.double() / 7
    got = sure_fast.spearman(a, b, backend=backend).item()
    if a.unique().numel() == 1 or b.unique().numel() == 1:
        assert math.isnan(got)
    else:
        assert got == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)


def test_average_ranks_are_scipys():
    values = torch.tensor([[3.0, 1.0, 3.0, math.inf, -2.0, 3.0, math.inf]], dtype=torch.float64)
    rank = average_rank(values, torch.ones_like(values, dtype=torch.bool))
    np.testing.assert_array_equal(rank[0] + 1, scipy.stats.rankdata(values[0]))


def test_by_hand():
    # ranks of a: 1, 2.5, 2.5, 4; of b: 1, 2, 3, 4. Sums about 2.5: products 4.5, squares 4.5 and 5
    a = torch.tensor([1.0, 2.0, 2.0, 5.0])
    assert sure_fast.spearman(a, torch.arange(4.0)).item() == pytest.approx(4.5 / math.sqrt(4.5 * 5), rel=1e-12)


def test_rows_and_masks():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 9, (2, 3, 50), generator=generator).float() for _ in range(2))
    a[0, 1, 4:9] = math.inf
    mask = torch.rand((2, 3, 50), generator=generator) < 0.6
    got = sure_fast.spearman(a, b, mask=mask)
    assert got.dtype == torch.float64
    for k in range(2):
        for j in range(3):
            keep = mask[k, j]
            want = scipy.stats.spearmanr(a[k, j][keep], b[k, j][keep]).statistic
            assert got[k, j].item() == pytest.approx(want, abs=1e-12)


def test_undefined_is_nan():
    x = torch.rand(5)
    for a, b in ((x, torch.ones(5)), (x[:1], x[:1]), (x[:0], x[:0]), (x, x * math.nan)):
        assert sure_fast.spearman(a, b).isnan()
    for backend in ("cpu", "reference"):
        assert sure_fast.spearman(x, x, backend=backend).item() == pytest.approx(1.0)
        assert sure_fast.spearman(x, -x, backend=backend).item() == pytest.approx(-1.0)
    for n in range(2, 40):
        assert sure_fast.spearman(torch.arange(float(n)), -torch.arange(float(n))).item() == -1.0
    with pytest.raises(ValueError, match="b: expected the shape of a"):
        sure_fast.spearman(x, x[:3])


@pytest.mark.parametrize("n", [40_000, 300_001])
@pytest.mark.parametrize("levels", [2, 50, None])
def test_large_rows_for_any_number_of_threads(n, levels, threads):
    generator = torch.Generator().manual_seed(n)
    for dtype in (torch.float32, torch.float64):
        a = torch.randn(n, generator=generator, dtype=dtype)
        b = a + torch.randn(n, generator=generator, dtype=dtype)
        if levels:
            a, b = (a * levels / 4).round(), (b * levels / 4).round()
        want = scipy.stats.spearmanr(a, b).statistic
        runs = []
        for count in (1, 2, 5):
            threads(count)
            runs.append(sure_fast.spearman(a, b).item())
        assert runs[0] == pytest.approx(want, abs=1e-12)
        assert runs[0] == runs[1] == runs[2]


def test_sums_do_not_overflow():
    """n³ of three million elements is beyond 64 bits."""
    n = 3_000_000
    a = torch.arange(n, dtype=torch.float64)
    assert sure_fast.spearman(a, a).item() == 1
    assert sure_fast.spearman(a, -a).item() == -1
    half = (a >= n / 2).float()
    # of a two-valued map: sum of the products of both halves' mean rank, n/4 each side
    assert sure_fast.spearman(half, a.float()).item() == pytest.approx(math.sqrt(3) / 2, rel=1e-6)


def test_keys_that_differ_in_their_lower_half_are_told_apart():
    generator = torch.Generator().manual_seed(0)
    fine = 1 + torch.rand(5000, generator=generator, dtype=torch.float64) * 2.0**-40
    other = torch.rand(5000, generator=generator, dtype=torch.float64)
    assert sure_fast.spearman(fine, other).item() == pytest.approx(
        scipy.stats.spearmanr(fine, other).statistic, abs=1e-12
    )


def test_operator_is_registered_properly():
    a, b = torch.rand(2, 40), torch.rand(2, 40)
    torch.library.opcheck(torch.ops.sure_fast.spearman.default, (a, b, None))
    torch.library.opcheck(torch.ops.sure_fast.spearman.default, (a, b, a > 0.5))
