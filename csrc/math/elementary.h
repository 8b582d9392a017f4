// exp, log, log1p and the evidence functions for one value: branch-free in float, so that loops over them vectorise.
// Polynomials: minimax (Remez) fits of the stated functions. One copy for host and device.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "math/enums.h"

#if defined(__CUDACC__)
#define SURE_FAST_INLINE static __host__ __device__ __forceinline__
#else
#define SURE_FAST_INLINE static inline __attribute__((always_inline))
#endif

namespace sure_fast {
namespace math {

SURE_FAST_INLINE int32_t bits_of(float x) {
  int32_t i;
  memcpy(&i, &x, sizeof(i));
  return i;
}

SURE_FAST_INLINE float float_of(int32_t i) {
  float x;
  memcpy(&x, &i, sizeof(x));
  return x;
}

// exp(x) for x <= 88, relative error below 1e-7; 0 below -87.7, where 2^n is subnormal.
SURE_FAST_INLINE float exponential(float x) {
  const float clamped = x < -88.0f ? -88.0f : x;
  const float shifted = clamped * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: round to nearest in the mantissa
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
  float q = 0.00138146f;  // (exp(r) - 1 - r) / r^2 on |r| <= ln2 / 2
  q = q * r + 0.00836871658f;
  q = q * r + 0.041668389f;
  q = q * r + 0.166665211f;
  q = q * r + 0.49999994f;
  // 2^n from the bits of n + 127; n = -127 gives 0
  const uint32_t exponent = static_cast<uint32_t>(bits_of(shifted)) - 0x4B400000u + 127u;
  return (q * (r * r) + (r + 1.0f)) * float_of(static_cast<int32_t>(exponent << 23));
}

SURE_FAST_INLINE double exponential(double x) { return exp(x); }

// ln(x) for a positive normal x; of +inf some finite number, which is why evidence() makes a NaN of it.
SURE_FAST_INLINE float logarithm(float x) {
  // less sqrt(1/2): the mantissa falls in [sqrt(1/2), sqrt(2))
  const int32_t i = static_cast<int32_t>(static_cast<uint32_t>(bits_of(x)) - 0x3F3504F3u);
  const float exponent = static_cast<float>(i >> 23);
  const float m = float_of((i & 0x007FFFFF) + 0x3F3504F3);
  const float s = (m - 1.0f) / (m + 1.0f);
  const float w = s * s;
  float q = 0.149358645f;  // (atanh(s) / s - 1) / s^2
  q = q * w + 0.199887708f;
  q = q * w + 0.33333388f;
  const float s2 = 2.0f * s;
  return exponent * 0.693145752f + (exponent * 1.42860677e-6f + (s2 + s2 * w * q));
}

SURE_FAST_INLINE double logarithm(double x) { return log(x); }

// ln(1 + x) for x in [0, 1], with full relative accuracy at 0.
SURE_FAST_INLINE float log_one_plus(float x) {
  float q = 0.00536482967f;  // (ln(1 + x) - x) / x^2
  q = q * x - 0.030065814f;
  q = q * x + 0.0792045668f;
  q = q * x - 0.137538046f;
  q = q * x + 0.191536561f;
  q = q * x - 0.248571634f;
  q = q * x + 0.33321324f;
  q = q * x - 0.499996483f;
  return q * (x * x) + x;
}

SURE_FAST_INLINE double log_one_plus(double x) { return log1p(x); }

SURE_FAST_INLINE float magnitude(float x) { return __builtin_fabsf(x); }
SURE_FAST_INLINE double magnitude(double x) { return __builtin_fabs(x); }

constexpr double kExpEvidenceClamp = 10.0;  // exp evidence is exp(clamp(z, -10, 10))

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
    const T limit = T(kExpEvidenceClamp);
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
