// What makes a function of csrc/math one for host, device and every instruction set; floats as their bits.
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

}  // namespace math
}  // namespace sure_fast
