"""The CUDA kernels of pair_concordance and spearman, emulated: exact, so equal to the CPU's."""

from __future__ import annotations

import math

import pytest
import torch

import sure_fast
from tests.cuda.conftest import ORDERS

pytestmark = pytest.mark.usefixtures("emulation")


def rankings(rows, n, levels, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed + n)
    a, b = torch.randn((2, rows, n), generator=generator, dtype=dtype)
    if levels:
        a, b = (a * levels / 3).round(), (b * levels / 3).round()
    return a, b, torch.rand((rows, n), generator=generator) < 0.7


def both(a, b, mask, tolerance=1.5):
    counts, correlations = [], []
    for backend in ("cuda", "cpu"):
        counts.append(sure_fast.pair_concordance(a, b, mask=mask, tolerance=tolerance, backend=backend))
        correlations.append(sure_fast.spearman(a, b, mask=mask, backend=backend))
    return counts, correlations


@pytest.mark.parametrize("n", [0, 1, 2, 33, 1000, 1025, 5000])
@pytest.mark.parametrize("levels", [3, 200, None])
def test_agree_with_the_cpu(n, levels):
    for dtype in (torch.float32, torch.float64):
        rows = 1 if n == 5000 else 3
        a, b, mask = rankings(rows, n, levels, dtype)
        for keep in (None, mask):
            counts, correlations = both(a, b, keep)
            assert all(torch.equal(x, y) for x, y in zip(*counts, strict=True))
            torch.testing.assert_close(*correlations, rtol=0, atol=0, equal_nan=True)


def test_agree_with_the_reference():
    a, b, mask = rankings(2, 300, 20)
    got = sure_fast.pair_concordance(a, b, mask=mask, tolerance=2.5, backend="cuda")
    want = sure_fast.pair_concordance(a, b, mask=mask, tolerance=2.5, backend="reference")
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))
    correlations = [sure_fast.spearman(a, b, mask=mask, backend=backend) for backend in ("cuda", "reference")]
    torch.testing.assert_close(*correlations, rtol=1e-12, atol=1e-12)


def test_infinities_signed_zeros_and_nan():
    a, b = torch.tensor([[0.0, -0.0, 1.0, math.inf]]), torch.tensor([[1.0, 2.0, -math.inf, 3.0]])
    counts, correlations = both(a, b, None)
    assert all(torch.equal(x, y) for x, y in zip(*counts, strict=True))
    assert torch.equal(*correlations)
    spoiled = a.repeat(2, 1)
    spoiled[1, 2] = math.nan
    other = b.repeat(2, 1)
    for x, y in ((spoiled, other), (other, spoiled)):
        assert sure_fast.spearman(x, y, backend="cuda").isnan().tolist() == [False, True]
        with pytest.raises(ValueError, match="expected numbers, got NaN"):
            sure_fast.pair_concordance(x, y, backend="cuda")
    keep = ~(spoiled.isnan())
    assert not sure_fast.spearman(spoiled, other, mask=keep, backend="cuda").isnan().any()


def test_every_order_gives_the_same_numbers(library):
    a, b, mask = rankings(2, 1500, 40)
    want = both(a, b, mask)
    for order in ORDERS.values():
        library.set_order(*order)
        counts, correlations = both(a, b, mask)
        assert all(torch.equal(x, y) for x, y in zip(counts[0], want[0][1], strict=True))
        assert torch.equal(correlations[0], want[1][1])


def test_operators_are_registered_properly():
    a, b, mask = rankings(2, 40, None)
    torch.library.opcheck(torch.ops.sure_fast.pair_concordance.default, (a, b, mask, 0.1, "cuda"))
    torch.library.opcheck(torch.ops.sure_fast.spearman.default, (a, b, mask, "cuda"))
