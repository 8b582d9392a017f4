// exp, log, log1p and the evidence functions for one value: branch-free in float, so that loops over them vectorise.
// Polynomials: minimax (Remez) fits of the stated functions, summed in pairs: short chains keep the pipes full. One copy for host and device.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

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

// exp(x) for x <= 88, relative error below 1e-7; 0 below -87.7, where 2^n is subnormal. NaN is not carried through.
SURE_FAST_INLINE float exponential(float x) {
  const float clamped = x < -88.0f ? -88.0f : x;
  const float shifted = clamped * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: round to nearest in the mantissa
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
  // (exp(r) - 1 - r) / r^2 on |r| <= ln2 / 2
  const float r2 = r * r;
  const float q = (0.001392617612f * r2 + (0.008363173075f * r + 0.04166655466f)) * r2 + (0.1666657703f * r + 0.5f);
  // 2^n from the bits of n + 127; n = -127 gives 0
  const uint32_t exponent = static_cast<uint32_t>(bits_of(shifted)) - 0x4B400000u + 127u;
  return (q * r2 + (r + 1.0f)) * float_of(static_cast<int32_t>(exponent << 23));
}

SURE_FAST_INLINE double exponential(double x) { return exp(x); }

// ln(x) for a positive normal x.
SURE_FAST_INLINE float logarithm(float x) {
  // less sqrt(1/2): the mantissa falls in [sqrt(1/2), sqrt(2))
  const int32_t i = static_cast<int32_t>(static_cast<uint32_t>(bits_of(x)) - 0x3F3504F3u);
  const float exponent = static_cast<float>(i >> 23);
  const float m = float_of((i & 0x007FFFFF) + 0x3F3504F3);
  const float s = (m - 1.0f) / (m + 1.0f);
  const float w = s * s;
  // (atanh(s) / s - 1) / s^2
  const float q = (0.1166548203f * w + 0.1427540128f) * (w * w) + (0.20000061f * w + 0.3333333328f);
  const float s2 = 2.0f * s;
  return exponent * 0.693145752f + (exponent * 1.42860677e-6f + (s2 + s2 * w * q));
}

SURE_FAST_INLINE double logarithm(double x) { return log(x); }

// ln(1 + x) for x in [0, 1], with full relative accuracy at 0.
SURE_FAST_INLINE float log_one_plus(float x) {
  const float s = x / (2.0f + x);
  const float w = s * s;
  const float w2 = w * w;
  // (atanh(s) / s - 1) / s^2 on s <= 1/3
  const float q = ((0.1039380843f * w + 0.08732351233f) * w2 + (0.111323556f * w + 0.1428515286f)) * w2 +
                  (0.2000000538f * w + 0.3333333333f);
  const float s2 = 2.0f * s;
  return s2 + s2 * w * q;
}

SURE_FAST_INLINE double log_one_plus(double x) { return log1p(x); }

SURE_FAST_INLINE float magnitude(float x) { return __builtin_fabsf(x); }
SURE_FAST_INLINE double magnitude(double x) { return __builtin_fabs(x); }

enum class Evidence : int { softplus = 0, relu = 1, exp = 2 };

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
