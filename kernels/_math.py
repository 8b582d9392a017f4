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
    q = 0.149358645  # (atanh(s) / s - 1) / s^2
    q = q * w + 0.199887708
    q = q * w + 0.33333388
    s2 = 2.0 * s
    return exponent * 0.693145752 + (exponent * 1.42860677e-6 + (s2 + s2 * w * q))


@triton.jit
def log_one_plus(x):
    """ln(1 + x) of x in [0, 1]."""
    q = 0.00536482967  # (ln(1 + x) - x) / x^2
    q = q * x - 0.030065814
    q = q * x + 0.0792045668
    q = q * x - 0.137538046
    q = q * x + 0.191536561
    q = q * x - 0.248571634
    q = q * x + 0.33321324
    q = q * x - 0.499996483
    return q * (x * x) + x


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
def psi_series(i):
    """psi(x) - ln x of i = 1/x in (0, 1]."""
    q = 0.000216583125
    q = q * i + 0.000118552445
    q = q * i - 0.00394201046
    q = q * i + 0.0100836661
    q = q * i - 0.000400699035
    q = q * i - 0.0832901672
    q = q * i - 0.50000155
    return q * i


@triton.jit
def entropic_series(i):
    """entropic(x) + ln(x) / 2."""
    q = -0.00102961576
    q = q * i + 0.0033731116
    q = q * i - 0.00116851192
    q = q * i - 0.0105542038
    q = q * i + 0.0117260674
    q = q * i + 0.0832545981
    q = q * i + 0.333337098
    q = q * i - 1.41893852
    return q


@triton.jit
def digamma_entropic(x):
    """psi(x) and (x - 1) psi(x) - lnGamma(x) - x for x >= 1."""
    log_x = logarithm(x)
    i = 1.0 / x
    return log_x + psi_series(i), entropic_series(i) - 0.5 * log_x


@triton.jit
def trigamma_entropic(x):
    """psi'(x) and the derivative (x - 1) psi'(x) - 1 of the entropic function, for x >= 1."""
    i = 1.0 / x
    u = -0.00621528598
    u = u * i + 0.0285253264
    u = u * i - 0.0491602123
    u = u * i + 0.0255119372
    u = u * i + 0.035227228
    u = u * i - 0.0339605734
    u = u * i - 0.166592076
    u = u * i - 0.333336413
    u = u * i - 0.49999997
    slope = i * u
    t = 0.00277188001
    t = t * i - 0.0106026102
    t = t * i + 0.0108598024
    t = t * i + 0.0125615196
    t = t * i - 0.0381858125
    t = t * i + 0.000948568806
    t = t * i + 0.166577622
    t = t * i + 0.500003159
    t = t * i + 1.0
    return i * t, slope
