"""spearman: plain PyTorch, and SciPy's spearmanr."""

from __future__ import annotations

import pytest
import torch

import sure_fast
from benchmarks.common import row


@pytest.mark.parametrize("name", ["sure_fast", "scipy.stats.spearmanr"])
def test_spearman(benchmark, name):
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200_000, generator=generator, dtype=torch.float64)
    b = (a + torch.randn(200_000, generator=generator, dtype=torch.float64)).round(decimals=1)
    runs = {
        "sure_fast": lambda: sure_fast.spearman(a, b),
        "scipy.stats.spearmanr": lambda: torch.tensor(spearmanr(a, b).statistic, dtype=torch.float64),
    }
    expected = runs["scipy.stats.spearmanr"]()
    row(
        benchmark,
        "spearman [200000]",
        name,
        runs[name],
        expected,
        rtol=1e-10,
    )
