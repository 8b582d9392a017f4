"""Scalar formulas of csrc/math for a block of float32 values, with its coefficients: neither libdevice nor the
interpreter has the digamma family. Two things differ from csrc/math on purpose. The hardware's ex2 (2 ulp, and 1.2 ulp
per unit of the argument) takes the place of its polynomial, which is there to vectorise on a CPU; and there is no
float64, in which no GPU kernel of ours computes. The logarithms are the polynomials, as the hardware's lg2 has no
relative accuracy near 1, but where 1 or more is added. What `tl.exp` and a division add to the hardware's ex2 and rcp
is for subnormal numbers, and denominators beyond 2^126; neither matters here.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import _cpu
from .._cpu import COEFFICIENTS, EXP_CLAMP, MANTISSA_BITS, SQRT_HALF_BITS
from ._launch import INTERPRETED


class Coefficients(tl.constexpr):
    """Numbers that a kernel knows when it is compiled, with the length that the interpreter asks for."""

    def __len__(self) -> int:
        return len(self.value)


LOGARITHM, LOG_ONE_PLUS = Coefficients(COEFFICIENTS["logarithm"]), Coefficients(COEFFICIENTS["log_one_plus"])
PSI, ENTROPIC = Coefficients(COEFFICIENTS["psi"]), Coefficients(COEFFICIENTS["entropic"])
TRIGAMMA, ENTROPIC_SLOPE = Coefficients(COEFFICIENTS["trigamma"]), Coefficients(COEFFICIENTS["entropic_slope"])
LN2_HIGH, LN2_LOW = tl.constexpr(_cpu.LN2[0]), tl.constexpr(_cpu.LN2[1])
SQRT_HALF, MANTISSA = tl.constexpr(SQRT_HALF_BITS), tl.constexpr(MANTISSA_BITS)
CLAMP = tl.constexpr(EXP_CLAMP)
HALF_BITS = tl.constexpr(0x3F000000)  # of 0.5
FARTHEST = tl.constexpr(2.0**125)  # whose reciprocal is normal
PER_E = tl.constexpr(1.4426950408889634)  # log2 e
LN2 = tl.constexpr(LN2_HIGH.value + LN2_LOW.value)


@triton.jit
def exponential(x):
    """e^x; 0 where it would be subnormal."""
    if INTERPRETED:
        return tl.exp(x)
    else:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x * PER_E], tl.float32, True, 1)


@triton.jit
def reciprocal(x):
    """1 / x to 1 ulp; 0 where it would be subnormal."""
    if INTERPRETED:
        return 1.0 / x
    else:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)


@triton.jit
def quotient(C: tl.constexpr, x):
    """C / x of x >= C > 0, at most 1 and nearly always the nearest float32; 0 where it would be subnormal."""
    if INTERPRETED:
        return tl.div_rn(tl.full(x.shape, C, tl.float32), x)
    else:
        r = reciprocal(x)
        r = tl.fma(r, tl.fma(-x, r, 1.0), r)
        q = C * r
        q = tl.fma(r, tl.fma(-x, q, tl.full(x.shape, C, tl.float32)), q)
        return tl.where(x > FARTHEST, 0.0, q)


@triton.jit
def polynomial(COEFFICIENTS: tl.constexpr, x):
    """That of the highest power first."""
    q = COEFFICIENTS[0]
    for k in tl.static_range(1, len(COEFFICIENTS)):
        q = q * x + COEFFICIENTS[k]
    return q


@triton.jit
def logarithm(x):
    """ln(x) of a positive normal x."""
    i = x.to(tl.int32, bitcast=True) - SQRT_HALF  # the mantissa falls in [sqrt(1/2), sqrt(2))
    exponent = (i >> 23).to(tl.float32)
    m = ((i & MANTISSA) + SQRT_HALF).to(tl.float32, bitcast=True)
    s = (m - 1.0) * reciprocal(m + 1.0)
    w = s * s
    q = polynomial(LOGARITHM, w)
    s2 = 2.0 * s
    return exponent * LN2_HIGH + (exponent * LN2_LOW + (s2 + s2 * w * q))


@triton.jit
def multiplied(exponent, mantissa, x):
    """The product 2^exponent mantissa times a normal x >= 1, with a mantissa in [1/2, 1): begins with 0 and 1."""
    i = (mantissa * x).to(tl.int32, bitcast=True)
    return exponent + ((i >> 23) - 126), ((i & MANTISSA) | HALF_BITS).to(tl.float32, bitcast=True)


@triton.jit
def log_one_plus(x):
    """ln(1 + x) of x in [0, 1]."""
    return polynomial(LOG_ONE_PLUS, x) * (x * x) + x


@triton.jit
def binary_logarithm(x):
    """log2(x) of x >= 1, within 2^-22 below 2 and as much of itself beyond: for sums with terms of at least 1."""
    if INTERPRETED:
        return tl.log2(x)
    else:
        return tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)


@triton.jit
def clamped(z):
    """z within [-CLAMP, CLAMP]; a NaN stays one."""
    z = tl.maximum(z, -CLAMP, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(z, CLAMP, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def alpha(z, EVIDENCE: tl.constexpr):
    """1 + e(z), and e'(z); of a z that is NaN or +inf NaN, but "exp" clamps +inf, and e' may be a number there."""
    if EVIDENCE == "exp":
        e = exponential(clamped(z))
        return 1.0 + e, tl.where(tl.abs(z) > CLAMP, 0.0, e)
    else:
        positive = tl.where(z > 0.0, z, 0.0)
        if EVIDENCE == "relu":
            return positive + (tl.where(z < 0.0, 0.0, z) * 0.0 + 1.0), tl.where(z > 0.0, 1.0, 0.0)
        else:
            tl.static_assert(EVIDENCE == "softplus")
            t = exponential(-tl.abs(z))  # of a NaN a NaN
            r = reciprocal(1.0 + t)
            rest = binary_logarithm(1.0 + t) * LN2 + (positive * 0.0 + 1.0)
            return positive + rest, tl.where(z > 0.0, r, t * r)


@triton.jit
def evidence_slope(z, EVIDENCE: tl.constexpr):
    """e'(z) without e(z), as of `alpha`."""
    if EVIDENCE == "exp":
        return tl.where(tl.abs(z) > CLAMP, 0.0, exponential(z))
    elif EVIDENCE == "relu":
        return tl.where(z > 0.0, 1.0, 0.0)
    else:
        tl.static_assert(EVIDENCE == "softplus")
        return reciprocal(1.0 + exponential(-z))


@triton.jit
def digamma(x):
    """psi(x) for x >= 1."""
    i = reciprocal(x)
    return logarithm(x) + polynomial(PSI, i) * i


@triton.jit
def entropic_and_half_log(x):
    """(x - 1) psi(x) - lnGamma(x) - x + ln(x) / 2 for x >= 1."""
    return polynomial(ENTROPIC, reciprocal(x))


@triton.jit
def trigamma(x):
    """psi'(x) for x >= 1."""
    i = reciprocal(x)
    return i * polynomial(TRIGAMMA, i)


@triton.jit
def entropic_slope(x):
    """(x - 1) psi'(x) - 1 for x >= 1, the derivative of the entropic function."""
    i = reciprocal(x)
    return i * polynomial(ENTROPIC_SLOPE, i)
