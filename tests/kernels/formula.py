"""The scalar formulas of kernels/_math.py, evaluated for tests."""

import triton
import triton.language as tl

from sure_fast.kernels import _math


@triton.jit
def formula(x, first, second, n, NAME: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + at, mask=at < n, other=1.0)
    if NAME == 0:
        a, b = _math.logarithm(v), _math.log_one_plus(v)
    elif NAME == 1:
        a, b = _math.evidence(v, "softplus")
    elif NAME == 2:
        a, b = _math.digamma_entropic(v)
    else:
        a, b = _math.trigamma_entropic(v)
    tl.store(first + at, a, mask=at < n)
    tl.store(second + at, b, mask=at < n)
