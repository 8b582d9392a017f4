"""The scalar formulas of kernels/_math.py, evaluated for tests."""

import triton
import triton.language as tl

from sure_fast.kernels import _math


@triton.jit
def formula(x, first, second, n, NAME: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + at, mask=at < n, other=1.0)
    if NAME == "logarithms":
        a, b = _math.logarithm(v), _math.log_one_plus(v)
    elif NAME == "slope":
        a, b = v, _math.evidence_slope(v, "softplus")
    elif NAME == "alpha":
        a, b = _math.alpha(v, "softplus")
    elif NAME == "gamma":
        a, b = _math.digamma(v), _math.entropic_and_half_log(v)
    elif NAME == "gamma slopes":
        a, b = _math.trigamma(v), _math.entropic_slope(v)
    else:
        tl.static_assert(NAME == "product")
        exponent, mantissa = _math.multiplied(tl.zeros(v.shape, tl.int32), tl.full(v.shape, 1.0, tl.float32), v)
        exponent, b = _math.multiplied(exponent, mantissa, v)
        a = exponent.to(tl.float32)
    tl.store(first + at, a, mask=at < n)
    tl.store(second + at, b, mask=at < n)
