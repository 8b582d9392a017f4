"""The scalar formulas of csrc/math against SciPy, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch

from sure_fast import _cpu


def evaluate(name: str, x: np.ndarray) -> np.ndarray:
    out = np.full_like(x, np.nan)
    _cpu.special_function(name, torch.from_numpy(x), torch.from_numpy(out))
    return out.astype(np.float64)


@pytest.fixture(params=["baseline", "avx2", "avx512"], autouse=True)
def isa(request):
    levels = ["baseline", "avx2", "avx512"]
    if levels.index(request.param) > levels.index(_cpu.best_isa()):
        pytest.skip(f"this machine has no {request.param}")
    before = _cpu.isa()
    _cpu.set_isa(request.param)
    yield request.param
    _cpu.set_isa(before)


def dirichlet_range(dtype) -> np.ndarray:
    """[1, 1e8], dense where the functions change."""
    return np.concatenate([1 + np.logspace(-7, 2, 100_001), np.logspace(0, 8, 100_001), [1.0, 5.0, 11.0]]).astype(dtype)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-6), (np.float64, 1e-13)])
@pytest.mark.parametrize("name", ["digamma", "trigamma", "logarithm", "entropic", "entropic_slope"])
def test_gamma_family(name, dtype, bound):
    x = dirichlet_range(dtype)
    wide = x.astype(np.float64)
    got = evaluate(name, x)
    if name == "entropic":
        # h(x) = (x-1) psi(x) - lnGamma(x) - x; in float64 SciPy's own terms of size x ln x cancel, so x <= 100 there
        want = (wide - 1) * scipy.special.digamma(wide) - scipy.special.gammaln(wide) - wide
        keep = wide <= 100
        scale = np.maximum(np.abs(want), 1.0)
        assert np.max(np.abs(got - want)[keep] / scale[keep]) < bound
        ln = np.log(wide[~keep])  # the series of h: -ln(x)/2 - 1/2 - ln(2 pi)/2 + 1/(3 x) + 1/(12 x^2) + O(x^-4)
        series = -0.5 * ln - 0.5 - 0.5 * np.log(2 * np.pi) + 1 / (3 * wide[~keep]) + 1 / (12 * wide[~keep] ** 2)
        assert np.max(np.abs(got[~keep] / series - 1)) < max(bound, 1e-8)
        return
    function = {
        "digamma": scipy.special.digamma,
        "trigamma": lambda v: scipy.special.polygamma(1, v),
        "logarithm": np.log,
        # (x-1) psi'(x) - 1; for large x its series, since SciPy's product would cancel against the 1
        "entropic_slope": lambda v: np.where(
            v > 300,
            -1 / (2 * v) - 1 / (3 * v**2) - 1 / (6 * v**3) - 1 / (30 * v**4),
            (v - 1) * scipy.special.polygamma(1, v) - 1,
        ),
    }[name]
    want = function(wide)
    # Near a root of digamma and of the logarithm only an absolute error can be held.
    scale = np.maximum(np.abs(want), 1.0) if name != "trigamma" else np.abs(want)
    assert np.max(np.abs(got - want) / scale) < bound
    if name == "entropic_slope":
        large = wide > 300
        assert np.max(np.abs(got / want - 1)[large]) < max(bound, 1e-8)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 5e-7), (np.float64, 1e-14)])
@pytest.mark.parametrize(
    ("name", "function"),
    [("softplus", lambda z: np.logaddexp(0, z)), ("sigmoid", scipy.special.expit), ("exponential", np.exp)],
)
def test_evidence_functions(name, function, dtype, bound):
    z = np.concatenate([np.linspace(-80, 80, 200_001), np.linspace(-1, 1, 10_001)]).astype(dtype)
    got, want = evaluate(name, z), function(z.astype(np.float64))
    assert np.max(np.abs(got / want - 1)) < bound


def test_softplus_far_out():
    z = np.array([-np.inf, -1000.0, -88.0, 88.0, 1000.0, 3e38], dtype=np.float32)
    np.testing.assert_allclose(evaluate("softplus", z), [0, 0, 0, 88, 1000, float(np.float32(3e38))], atol=1e-37)
    assert np.isnan(evaluate("softplus", np.array([np.nan, np.inf], dtype=np.float32))).all()
