// Sixteen running numbers, one a digit, read by one digit and changed by all of them with every element. Where vectors
// hold eight doubles they stay in registers and a lane is picked by a permutation: a number would else wait each time
// for the store before. Elsewhere they are arrays, as narrower vectors cannot pick a lane.
#pragma once

#include "cpu/common.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kLanes = 16;

#if defined(__AVX512F__)

struct Lanes {
  __m512d low, high;

  static SURE_FAST_INLINE_MEMBER Lanes from(const double* x) {
    return {_mm512_loadu_pd(x), _mm512_loadu_pd(x + kLanes / 2)};
  }

  SURE_FAST_INLINE_MEMBER void add(const double* x) {
    low = _mm512_add_pd(low, _mm512_loadu_pd(x));
    high = _mm512_add_pd(high, _mm512_loadu_pd(x + kLanes / 2));
  }

  SURE_FAST_INLINE_MEMBER void add(const double* x, double times) {
    const __m512d all = _mm512_set1_pd(times);
    low = _mm512_fmadd_pd(_mm512_loadu_pd(x), all, low);
    high = _mm512_fmadd_pd(_mm512_loadu_pd(x + kLanes / 2), all, high);
  }

  SURE_FAST_INLINE_MEMBER void add_products(const Lanes& x, const double* y) {
    low = _mm512_fmadd_pd(x.low, _mm512_loadu_pd(y), low);
    high = _mm512_fmadd_pd(x.high, _mm512_loadu_pd(y + kLanes / 2), high);
  }

  SURE_FAST_INLINE_MEMBER double sum() const {
    double x[kLanes / 2];
    _mm512_storeu_pd(x, _mm512_add_pd(low, high));
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
  }

  SURE_FAST_INLINE_MEMBER double at(int64_t lane) const {
    return _mm512_permutex2var_pd(low, _mm512_set1_epi64(lane), high)[0];
  }
};

struct CountLanes {
  __m512i all;

  static SURE_FAST_INLINE_MEMBER CountLanes from(const uint32_t* x) { return {_mm512_loadu_si512(x)}; }

  SURE_FAST_INLINE_MEMBER void add(const uint32_t* x) { all = _mm512_add_epi32(all, _mm512_loadu_si512(x)); }

  SURE_FAST_INLINE_MEMBER uint32_t at(uint32_t lane) const {
    const __m512i index = _mm512_set1_epi32(static_cast<int32_t>(lane));
    return static_cast<uint32_t>(_mm512_maskz_permutexvar_epi32(0xFFFF, index, all)[0]);
  }
};

#else

struct Lanes {
  alignas(64) double all[kLanes];

  static SURE_FAST_INLINE_MEMBER Lanes from(const double* x) {
    Lanes lanes;
    memcpy(lanes.all, x, sizeof(lanes.all));
    return lanes;
  }

  SURE_FAST_INLINE_MEMBER void add(const double* x) {
#pragma omp simd
    for (int k = 0; k < kLanes; ++k) all[k] += x[k];
  }

  SURE_FAST_INLINE_MEMBER void add(const double* x, double times) {
#pragma omp simd
    for (int k = 0; k < kLanes; ++k) all[k] += x[k] * times;
  }

  SURE_FAST_INLINE_MEMBER void add_products(const Lanes& x, const double* y) {
#pragma omp simd
    for (int k = 0; k < kLanes; ++k) all[k] += x.all[k] * y[k];
  }

  SURE_FAST_INLINE_MEMBER double sum() const {
    double total = 0.0;
#pragma omp simd reduction(+ : total)
    for (int k = 0; k < kLanes; ++k) total += all[k];
    return total;
  }

  SURE_FAST_INLINE_MEMBER double at(int64_t lane) const { return all[lane]; }
};

struct CountLanes {
  alignas(64) uint32_t all[kLanes];

  static SURE_FAST_INLINE_MEMBER CountLanes from(const uint32_t* x) {
    CountLanes lanes;
    memcpy(lanes.all, x, sizeof(lanes.all));
    return lanes;
  }

  SURE_FAST_INLINE_MEMBER void add(const uint32_t* x) {
#pragma omp simd
    for (int k = 0; k < kLanes; ++k) all[k] += x[k];
  }

  SURE_FAST_INLINE_MEMBER uint32_t at(uint32_t lane) const { return all[lane]; }
};

#endif

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
