// exp, log, log1p and the evidence functions for one value on the CPU: branch-free in float, so that loops over them
// vectorise. Polynomials: minimax (Remez) fits of the stated functions, whose coefficients Triton's kernels read by
// their names (bindings/cpu/constants.cpp).
#pragma once

#include <utility>

#include "math/bits.h"
#include "math/enums.h"

namespace sure_fast {
namespace math {

template <size_t count, size_t... k>
SURE_FAST_INLINE float horner(const float (&coefficients)[count], float x, std::index_sequence<k...>) {
  float q = coefficients[0];
  ((q = q * x + coefficients[k + 1]), ...);
  return q;
}

// A polynomial by its coefficients, that of the highest power first; written out, so that loops over it vectorise.
template <size_t count>
SURE_FAST_INLINE float polynomial(const float (&coefficients)[count], float x) {
  return horner(coefficients, x, std::make_index_sequence<count - 1>());
}

constexpr float kLn2[] = {0.693145752f, 1.42860677e-6f};  // ln 2 as a sum whose first part has trailing zero bits
constexpr float kExponential[] = {0.00138146f, 0.00836871658f, 0.041668389f, 0.166665211f, 0.49999994f};
constexpr float kLogarithm[] = {0.149358645f, 0.199887708f, 0.33333388f};
constexpr float kLogOnePlus[] = {0.00536482967f, -0.030065814f, 0.0792045668f, -0.137538046f,
                                 0.191536561f,   -0.248571634f, 0.33321324f,   -0.499996483f};
constexpr int32_t kSqrtHalfBits = 0x3F3504F3;  // of sqrt(1/2)
constexpr int32_t kMantissaBits = 0x007FFFFF;

// exp(x) for x <= 88, relative error below 1e-7; 0 below -87.7, where 2^n is subnormal.
SURE_FAST_INLINE float exponential(float x) {
  const float clamped = x < -88.0f ? -88.0f : x;
  const float shifted = clamped * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: round to nearest in the mantissa
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * kLn2[0]) - n * kLn2[1];
  const float q = polynomial(kExponential, r);  // (exp(r) - 1 - r) / r^2 on |r| <= ln2 / 2
  // 2^n from the bits of n + 127; n = -127 gives 0
  const uint32_t exponent = static_cast<uint32_t>(bits_of(shifted)) - 0x4B400000u + 127u;
  return (q * (r * r) + (r + 1.0f)) * float_of(static_cast<int32_t>(exponent << 23));
}

SURE_FAST_INLINE double exponential(double x) { return exp(x); }

// ln(x) for a positive normal x; of +inf some finite number, which is why evidence() makes a NaN of it.
SURE_FAST_INLINE float logarithm(float x) {
  // less sqrt(1/2): the mantissa falls in [sqrt(1/2), sqrt(2))
  const int32_t i = static_cast<int32_t>(static_cast<uint32_t>(bits_of(x)) - static_cast<uint32_t>(kSqrtHalfBits));
  const float exponent = static_cast<float>(i >> 23);
  const float m = float_of((i & kMantissaBits) + kSqrtHalfBits);
  const float s = (m - 1.0f) / (m + 1.0f);
  const float w = s * s;
  const float q = polynomial(kLogarithm, w);  // (atanh(s) / s - 1) / s^2
  const float s2 = 2.0f * s;
  return exponent * kLn2[0] + (exponent * kLn2[1] + (s2 + s2 * w * q));
}

SURE_FAST_INLINE double logarithm(double x) { return log(x); }

// ln(1 + x) for x in [0, 1], with full relative accuracy at 0: the polynomial is (ln(1 + x) - x) / x^2.
SURE_FAST_INLINE float log_one_plus(float x) { return polynomial(kLogOnePlus, x) * (x * x) + x; }

SURE_FAST_INLINE double log_one_plus(double x) { return log1p(x); }

SURE_FAST_INLINE float magnitude(float x) { return __builtin_fabsf(x); }
SURE_FAST_INLINE double magnitude(double x) { return __builtin_fabs(x); }

constexpr double kExpClamp = 10.0;  // exp evidence is exp(clamp(z, -10, 10))

// Evidence e(z) and its derivative. A z that is NaN or +inf gives NaN (0 * z), -inf gives e = 0.
template <Evidence kind, typename T>
SURE_FAST_INLINE T evidence(T z, T& derivative) {
  const T positive = z < T(0) ? T(0) : z;
  const T poison = positive * T(0);
  if (kind == Evidence::relu) {
    derivative = (z > T(0) ? T(1) : T(0)) + poison;
    return positive + poison;
  }
  if (kind == Evidence::exp) {
    const T limit = T(kExpClamp);
    const T e = exponential(z < -limit ? -limit : (z > limit ? limit : z));
    const T keep = z < -limit ? T(0) : (z > limit ? T(0) : T(1));
    const T nan = z != z ? z : T(0);
    derivative = e * keep + nan;
    return e + nan;
  }
  const T t = exponential(-magnitude(z));
  const T r = T(1) / (T(1) + t);
  derivative = (z > T(0) ? r : t * r) + poison;
  return positive + (log_one_plus(t) + poison);
}

}  // namespace math
}  // namespace sure_fast
