// Sixteen running numbers, one a digit, read by one digit and changed by all of them with every element. Where vectors
// hold eight doubles they stay in registers and a lane is picked by a permutation: a number would else wait each time
// for the store before. Elsewhere they are arrays, as narrower vectors cannot pick a lane.
#pragma once

#include "cpu/common.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kLanes = 16;

#if defined(__AVX512F__)

struct Lanes {
  typedef double Half __attribute__((vector_size(64)));
  typedef int64_t Index __attribute__((vector_size(64)));
  Half low, high;

  static SURE_FAST_INLINE_MEMBER Lanes from(const double* x) { return {half(x), half(x + kLanes / 2)}; }

  SURE_FAST_INLINE_MEMBER void add(const double* x) {
    low += half(x);
    high += half(x + kLanes / 2);
  }

  SURE_FAST_INLINE_MEMBER void add(const double* x, double times) {
    low += half(x) * times;
    high += half(x + kLanes / 2) * times;
  }

  SURE_FAST_INLINE_MEMBER void add_products(const Lanes& x, const double* y) {
    low += x.low * half(y);
    high += x.high * half(y + kLanes / 2);
  }

  SURE_FAST_INLINE_MEMBER double sum() const {
    Half all = low + high;
    all += __builtin_shuffle(all, Index{4, 5, 6, 7, 0, 1, 2, 3});
    all += __builtin_shuffle(all, Index{2, 3, 0, 1, 6, 7, 4, 5});
    return all[0] + all[1];
  }

  SURE_FAST_INLINE_MEMBER double at(int64_t lane) const {
    return __builtin_shuffle(low, high, Index{lane, lane, lane, lane, lane, lane, lane, lane})[0];
  }

 private:
  static SURE_FAST_INLINE_MEMBER Half half(const double* x) {
    Half values;
    memcpy(&values, x, sizeof(Half));
    return values;
  }
};

struct CountLanes {
  typedef uint32_t All __attribute__((vector_size(64)));
  All all;

  static SURE_FAST_INLINE_MEMBER CountLanes from(const uint32_t* x) {
    CountLanes lanes;
    memcpy(&lanes.all, x, sizeof(All));
    return lanes;
  }

  SURE_FAST_INLINE_MEMBER void add(const uint32_t* x) { all += from(x).all; }

  SURE_FAST_INLINE_MEMBER uint32_t at(uint32_t lane) const {
    const All index = {lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane};
    return __builtin_shuffle(all, index)[0];
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
