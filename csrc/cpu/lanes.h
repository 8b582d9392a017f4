// Sixteen running numbers, one a digit, that stay in vector registers: one that changes with every element and is read
// by it would else wait for its own store each time.
#pragma once

#include "cpu/common.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kLanes = 16;

struct Lanes {
  typedef double Half __attribute__((vector_size(64)));
  typedef int64_t Index __attribute__((vector_size(64)));
  Half low, high;

  static SURE_FAST_INLINE_MEMBER Lanes from(const double* x) {
    Lanes lanes;
    memcpy(&lanes.low, x, sizeof(Half));
    memcpy(&lanes.high, x + kLanes / 2, sizeof(Half));
    return lanes;
  }

  SURE_FAST_INLINE_MEMBER void add(const Lanes& x) {
    low += x.low;
    high += x.high;
  }

  SURE_FAST_INLINE_MEMBER void add(const Lanes& x, double times) {
    low += x.low * times;
    high += x.high * times;
  }

  // Of the products of both.
  SURE_FAST_INLINE_MEMBER void add(const Lanes& x, const Lanes& y) {
    low += x.low * y.low;
    high += x.high * y.high;
  }

  SURE_FAST_INLINE_MEMBER double sum() const {
    Half all = low + high;
    all += __builtin_shuffle(all, Index{4, 5, 6, 7, 0, 1, 2, 3});
    all += __builtin_shuffle(all, Index{2, 3, 0, 1, 6, 7, 4, 5});
    return all[0] + all[1];
  }

  SURE_FAST_INLINE_MEMBER double at(int64_t lane) const {
#if defined(__AVX512F__)
    const Index index = {lane, lane, lane, lane, lane, lane, lane, lane};
    return __builtin_shuffle(low, high, index)[0];
#else
    double all[kLanes];
    memcpy(all, &low, sizeof(Half));
    memcpy(all + kLanes / 2, &high, sizeof(Half));
    return all[lane];
#endif
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

  SURE_FAST_INLINE_MEMBER void add(const CountLanes& x) { all += x.all; }

  SURE_FAST_INLINE_MEMBER uint32_t at(uint32_t lane) const {
#if defined(__AVX512F__)
    const All index = {lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane, lane};
    return __builtin_shuffle(all, index)[0];
#else
    uint32_t each[kLanes];
    memcpy(each, &all, sizeof(All));
    return each[lane];
#endif
  }
};

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
