// Counter-based random numbers: splitmix64 (Steele, Lea, Flood, OOPSLA 2014) of (seed, row, counter). No state, the
// same anywhere.
#pragma once

#include "math/bits.h"

namespace sure_fast {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;

SURE_FAST_INLINE uint64_t splitmix(uint64_t x) {
  x += kGolden;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// Where the numbers of a row start.
SURE_FAST_INLINE uint64_t random_row(uint64_t seed, int64_t row) {
  return splitmix(splitmix(seed) + static_cast<uint64_t>(row) * kGolden);
}

// 53 random bits.
SURE_FAST_INLINE uint64_t random_bits(uint64_t start, int64_t counter) {
  return splitmix(start + static_cast<uint64_t>(counter) * kGolden) >> 11;
}

// A number below `total` from 53 random bits.
SURE_FAST_INLINE int64_t random_below(uint64_t bits, int64_t total) {
  const int64_t draw = static_cast<int64_t>(static_cast<double>(bits) * 0x1p-53 * static_cast<double>(total));
  return draw < total ? draw : total - 1;
}

}  // namespace sure_fast
