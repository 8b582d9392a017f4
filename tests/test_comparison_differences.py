from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from sure_fast.comparison.differences import corrected_p, holm, signed_rank_p
from sure_fast.comparison.tables import difference
from sure_fast.metrics.accumulator import Statistics


@pytest.mark.parametrize("number", [5, 22, 60])
def test_signed_ranks_are_scipys(number):
    generator = np.random.default_rng(number)
    for decimals in (1, 6):  # with many ties and zeros, and without
        d = generator.normal(0.2, 1.0, number).round(decimals)
        want = scipy.stats.wilcoxon(d, zero_method="wilcox", correction=False, method="approx").pvalue
        assert signed_rank_p(d) == pytest.approx(want, rel=1e-9)
        assert signed_rank_p(np.append(d, math.nan)) == pytest.approx(want, rel=1e-9)
    assert math.isnan(signed_rank_p(np.zeros(4)))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    got = holm([0.02, math.nan, 0.9])
    assert got[0] == pytest.approx(0.04)
    assert got[2] == pytest.approx(0.9)
    assert math.isnan(got[1])


def test_every_other_method_is_held_against_one():
    generator = np.random.default_rng(0)
    base = generator.normal(size=40)
    p = corrected_p({"a": base, "b": base + 1.0, "c": base + generator.normal(scale=0.1, size=40)}, "a")
    assert set(p) == {"b", "c"}
    assert p["b"] < 1e-6 < p["c"]


def test_a_difference_in_words():
    assert difference(Statistics(0.01, 0.02, 0.002, 0.02, 40, 0), 0.01) == "+0.010 (0.00200 … 0.020)"
    assert difference(Statistics(-0.01, 0.02, -0.02, 0.002, 40, 0), 0.5) == "−0.010 (−0.020 … 0.00200) n. s."
    nothing = Statistics(math.nan, math.nan, math.nan, math.nan, 0, 40)  # a metric that one of the methods lacks
    assert difference(nothing, math.nan) == "–"
