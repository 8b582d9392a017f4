"""pair_concordance: all pairs by sorting and merging, and SciPy's kendalltau."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row


def tau(counts):
    c, d, ta, tb = (v.double() for v in counts[:4])
    return (c - d) / ((c + d + ta) * (c + d + tb)).sqrt()


@pytest.mark.parametrize("name", ["sure_fast", "scipy.stats.kendalltau"])
def test_pair_concordance(benchmark, name):
    from scipy.stats import kendalltau

    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200_000, generator=generator, dtype=torch.float64)
    b = a + torch.randn(200_000, generator=generator, dtype=torch.float64)
    runs = {
        "sure_fast": lambda: tau(sure_fast.pair_concordance(a, b)),
        "scipy.stats.kendalltau": lambda: torch.tensor(kendalltau(a, b).statistic, dtype=torch.float64),
    }
    expected = runs["scipy.stats.kendalltau"]()
    row(
        benchmark,
        "pair_concordance [200000]",
        name,
        runs[name],
        expected,
        rtol=1e-10,
    )
