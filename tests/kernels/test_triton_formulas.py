"""The scalar formulas of kernels/_math.py against SciPy, on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch

from sure_fast.ops import _triton

if _triton.MISSING is not None:
    pytest.skip(_triton.MISSING, allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def evaluate(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from tests.kernels.formula import formula

    v = torch.from_numpy(x).to(DEVICE)
    out = [torch.full_like(v, math.nan) for _ in range(2)]
    formula[(-(-len(v) // 4096),)](v, *out, len(v), name, 4096)
    return tuple(o.double().cpu().numpy() for o in out)


def test_gamma_family():
    x = np.concatenate([1 + np.logspace(-7, 2, 20_001), np.logspace(0, 2, 20_001), [1.0, 5.0]]).astype(np.float32)
    wide = x.astype(np.float64)
    psi, gamma = scipy.special.digamma(wide), scipy.special.gammaln(wide)
    trigamma = scipy.special.polygamma(1, wide)
    entropic = (wide - 1) * psi - gamma - wide
    for got, want in zip(evaluate("gamma", x), (psi, entropic + np.log(wide) / 2), strict=True):
        assert np.max(np.abs(got - want) / np.maximum(np.abs(want), 1)) < 1e-6
    got, slope = evaluate("gamma slopes", x)
    assert np.max(np.abs(got / trigamma - 1)) < 1e-6
    assert np.max(np.abs(slope - ((wide - 1) * trigamma - 1))) < 1e-6
    assert np.max(np.abs(evaluate("logarithms", x)[0] - np.log(wide)) / np.maximum(np.log(wide), 1)) < 3e-7


def test_evidence_functions():
    z = np.concatenate([np.linspace(-80, 80, 40_001), np.linspace(-1, 1, 4_001)]).astype(np.float32)
    wide = z.astype(np.float64)
    # the hardware's exponential: 1.2 ulp per unit of the argument
    bound = 5e-7 + 1.2 * 2**-23 * np.abs(wide)
    alpha, slope = evaluate("alpha", z)
    assert np.max(np.abs(alpha / (1 + np.logaddexp(0, wide)) - 1)) < 5e-7
    for got in (slope, evaluate("slope", z)[1]):
        assert np.all(np.abs(got / scipy.special.expit(wide) - 1) < bound)
    t = np.logspace(-30, 0, 4001).astype(np.float32)
    assert np.max(np.abs(evaluate("logarithms", t)[1] / np.log1p(t.astype(np.float64)) - 1)) < 3e-7


def test_products_of_any_size():
    x = np.concatenate([np.logspace(0, 38, 4001), 2.0 ** np.arange(128)]).astype(np.float32)
    exponent, mantissa = evaluate("product", x)
    assert np.all((mantissa >= 0.5) & (mantissa < 1))
    assert np.max(np.abs(exponent + np.log2(mantissa) - 2 * np.log2(x.astype(np.float64)))) < 1e-6


def test_evidence_that_is_no_number():
    alpha, _ = evaluate("alpha", np.array([np.nan, np.inf, -np.inf, 1e38, -1e38], np.float32))
    assert np.isnan(alpha[:2]).all()
    assert list(alpha[2:]) == [1.0, np.float32(1e38), 1.0]
