"""Differences between methods, each case paired with itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

LEVEL = 0.05


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, by the normal approximation with its correction for ties; differences
    of 0 are left out (Wilcoxon, Biometrics Bulletin 1945). NaN without any other."""
    d = differences[~np.isnan(differences) & (differences != 0)]
    n = len(d)
    if n == 0:
        return math.nan
    _, inverse, counts = np.unique(np.abs(d), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    rank = (last - (counts - 1) / 2)[inverse]
    spread = n * (n + 1) * (2 * n + 1) / 24 - (counts**3 - counts).sum() / 48
    z = (rank[d > 0].sum() - n * (n + 1) / 4) / math.sqrt(spread)
    return math.erfc(abs(z) / math.sqrt(2))


def holm(p: Sequence[float]) -> list[float]:
    """p corrected for their number (Holm, Scandinavian Journal of Statistics 1979); NaN count for nothing."""
    defined = sorted((value, k) for k, value in enumerate(p) if not math.isnan(value))
    corrected, most = list(p), 0.0
    for number, (value, k) in enumerate(defined):
        most = max(most, min(1.0, (len(defined) - number) * value))
        corrected[k] = most
    return corrected


def corrected_p(values: Mapping[str, np.ndarray], against: str) -> dict[str, float]:
    """p of each method's difference to `against` over the cases, corrected for the number of methods."""
    others = [name for name in values if name != against]
    return dict(zip(others, holm([signed_rank_p(values[name] - values[against]) for name in others]), strict=True))
