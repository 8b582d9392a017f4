// Numbers as unsigned keys that sort as they do, and what Spearman's correlation makes of exact sums over ranks.
#pragma once

#include "math/bits.h"

namespace sure_fast {

__extension__ typedef __int128 int128;

// Unsigned keys in the order of the numbers; -0 and 0 are one key, NaN the largest.
SURE_FAST_INLINE uint32_t sort_key(float x) {
  const uint32_t bits = static_cast<uint32_t>(math::bits_of(x + 0.0f));
  const uint32_t key = bits >> 31 ? ~bits : bits | 0x80000000u;
  return x != x ? UINT32_MAX : key;
}

SURE_FAST_INLINE uint64_t sort_key(double x) {
  const double y = x + 0.0;
  uint64_t bits;
  memcpy(&bits, &y, sizeof(bits));
  const uint64_t key = bits >> 63 ? ~bits : bits | 0x8000000000000000u;
  return x != x ? UINT64_MAX : key;
}

// The number of a key.
SURE_FAST_INLINE float number_of_key(uint32_t key) {
  return math::float_of(static_cast<int32_t>(key >> 31 ? key ^ 0x80000000u : ~key));
}

SURE_FAST_INLINE double number_of_key(uint64_t key) {
  const uint64_t bits = key >> 63 ? key ^ 0x8000000000000000u : ~key;
  double x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

template <typename Value>
struct KeyOf;
template <>
struct KeyOf<float> {
  using type = uint32_t;
};
template <>
struct KeyOf<double> {
  using type = uint64_t;
};

// The correlation from sums over centered, doubled ranks c: sum c_a c_b, and n^3 - n - sum (t^3 - t) over the runs of t
// tied elements, which is 3 sum c^2. NaN where all of a or of b is tied.
SURE_FAST_INLINE double rank_correlation(int128 product, int128 spread_a, int128 spread_b) {
  if (spread_a == 0 || spread_b == 0) return __builtin_nan("");
  // one root of the product: exactly 1 for equal rankings
  const double scale = sqrt(static_cast<double>(spread_a / 3) * static_cast<double>(spread_b / 3));
  const double r = static_cast<double>(product) / scale;
  return r > 1.0 ? 1.0 : r < -1.0 ? -1.0 : r;
}

SURE_FAST_INLINE int128 cube_less(int64_t t) { return static_cast<int128>(t) * t * t - t; }

}  // namespace sure_fast
