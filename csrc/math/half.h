// Half precision in memory, float in arithmetic.
#pragma once

#include "math/bits.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace sure_fast {

#if defined(__CUDACC__)
using half_t = __half;
SURE_FAST_INLINE float widen(half_t x) { return __half2float(x); }
SURE_FAST_INLINE void narrow(float x, half_t& out) { out = __float2half_rn(x); }
#elif defined(__ARM_FP16_FORMAT_IEEE) || defined(__FLT16_MAX__)
#if defined(__ARM_FP16_FORMAT_IEEE)
using half_t = __fp16;  // GCC 12 has _Float16 on ARM in C alone
#else
using half_t = _Float16;
#endif
SURE_FAST_INLINE float widen(half_t x) { return static_cast<float>(x); }
SURE_FAST_INLINE void narrow(float x, half_t& out) { out = static_cast<half_t>(x); }
#else
#error "the compiler needs _Float16, as GCC 12 has it, or on ARM __fp16"
#endif

struct bfloat16_t {
  uint16_t bits;
};
SURE_FAST_INLINE float widen(bfloat16_t x) {
  return math::float_of(static_cast<int32_t>(static_cast<uint32_t>(x.bits) << 16));
}
SURE_FAST_INLINE void narrow(float x, bfloat16_t& out) {
  const uint32_t u = static_cast<uint32_t>(math::bits_of(x));
  const uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;  // to nearest even
  out.bits = static_cast<uint16_t>(x != x ? 0x7FC0u : rounded);
}
SURE_FAST_INLINE float widen(float x) { return x; }
SURE_FAST_INLINE void narrow(float x, float& out) { out = x; }
SURE_FAST_INLINE double widen(double x) { return x; }
SURE_FAST_INLINE void narrow(double x, double& out) { out = x; }

}  // namespace sure_fast
