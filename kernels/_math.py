"""Scalar formulas of csrc/math for a block of float32 values, written out: neither libdevice nor the interpreter has
the digamma family. `tl.exp` is the hardware's ex2 (2 ulp, and 1.2 ulp per unit of the argument); logarithms are the
polynomials, as the hardware's lg2 has no relative accuracy near 1.
"""

from __future__ import annotations

import triton
import triton.language as tl

SOFTPLUS, RELU, EXP = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # the order of EVIDENCE


@triton.jit
def logarithm(x):
    """ln(x) of a positive normal x."""
    i = x.to(tl.int32, bitcast=True) - 0x3F3504F3  # less sqrt(1/2): the mantissa falls in [sqrt(1/2), sqrt(2))
    exponent = (i >> 23).to(tl.float32)
    m = ((i & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True)
    s = (m - 1.0) / (m + 1.0)
    w = s * s
    q = 0.1166548203  # (atanh(s) / s - 1) / s^2
    q = q * w + 0.1427540128
    q = q * w + 0.20000061
    q = q * w + 0.3333333328
    return exponent * 0.693145752 + (exponent * 1.42860677e-6 + 2.0 * (s + s * w * q))


@triton.jit
def log_one_plus(x):
    """ln(1 + x) of x in [0, 1]."""
    s = x / (2.0 + x)
    w = s * s
    q = 0.1039380843  # (atanh(s) / s - 1) / s^2 on s <= 1/3
    q = q * w + 0.08732351233
    q = q * w + 0.111323556
    q = q * w + 0.1428515286
    q = q * w + 0.2000000538
    q = q * w + 0.3333333333
    return 2.0 * (s + s * w * q)


@triton.jit
def evidence(z, KIND: tl.constexpr):
    """e(z) and e'(z); of a z that is NaN or +inf NaN, but "exp" clamps +inf."""
    if KIND == EXP:
        e = tl.exp(tl.where(z < -10.0, -10.0, tl.where(z > 10.0, 10.0, z)))
        slope = e * tl.where((z < -10.0) | (z > 10.0), 0.0, 1.0)
    else:
        positive = tl.where(z > 0.0, z, 0.0)
        poison = tl.where(z < 0.0, 0.0, z) * 0.0
        if KIND == RELU:
            e = positive + poison
            slope = tl.where(z > 0.0, 1.0, 0.0) + poison
        else:
            t = tl.exp(-tl.abs(z))
            r = 1.0 / (1.0 + t)
            e = positive + log_one_plus(t) + poison
            slope = tl.where(z > 0.0, r, t * r) + poison
    return e, slope


@triton.jit
def digamma_entropic(x):
    """psi(x) and (x - 1) psi(x) - lnGamma(x) - x for x >= 1: a shift by four and the asymptotic series."""
    large = x >= 5.0
    s = tl.where(large, 1.0, x)
    y = tl.where(large, x, x + 4.0)
    t = s * (s + 3.0)
    product = t * (t + 2.0)
    shift = tl.where(large, 0.0, (2.0 * s + 3.0) * (2.0 * t + 2.0) / product)
    i = 1.0 / y
    w = i * i
    tail = 0.5 * i + w * (0.0833333333 - w * (0.00833333333 - w * 0.00396825397))
    gamma_tail = i * (0.0833333333 - w * (0.00277777778 - w * 0.000793650794))
    log_y = logarithm(y)
    log_ratio = logarithm(tl.where(large, 1.0, product * (w * w)))  # ln(P / y^4) of the shifted
    moved = tl.where(large, 0.0, 4.0) - 0.91893853320467274178
    entropic = (log_ratio - 0.5 * log_y) + moved - gamma_tail - (x - 1.0) * (tail + shift)
    return log_y - tail - shift, entropic


@triton.jit
def trigamma_entropic(x):
    """psi'(x) and the derivative (x - 1) psi'(x) - 1 of the entropic function, for x >= 1."""
    large = x >= 5.0
    s = tl.where(large, 1.0, x)
    y = tl.where(large, x, x + 4.0)
    t = s * (s + 3.0)
    u = t + 2.0
    p = t * u
    shift = tl.where(large, 0.0, ((2.0 * t + 9.0) * u * u + (2.0 * t + 5.0) * t * t) / (p * p))
    i = 1.0 / y
    w = i * i
    rest = 0.5 * w + i * w * (0.166666667 - w * (0.0333333333 - w * (0.0238095238 - w * 0.0333333333)))
    value = i + rest + shift
    slope = tl.where(large, (x - 1.0) * rest - i, (x - 1.0) * value - 1.0)
    return value, slope
