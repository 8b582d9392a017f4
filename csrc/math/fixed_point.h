// Numbers of a known range as 64-bit integers, whose sums do not depend on their order.
#pragma once

#include "math/bits.h"

namespace sure_fast {

// Numbers in [low, high] become multiples of 2^-exponent around the center: up to 2^`terms_bits` differences of two of
// them add up to less than 2^62.
struct FixedPoint {
  double center;
  double scale[2], inverse[2];  // 2^exponent may be outside of what a double holds: one half of it after the other
};

SURE_FAST_INLINE FixedPoint fixed_point(double low, double high, int terms_bits) {
  const double reach = high / 2 - low / 2;
  int exponent = 0;
  frexp(reach, &exponent);
  const int shift = reach > 0 ? 61 - terms_bits - exponent : 0, half = shift / 2;
  return {
      low / 2 + high / 2, {ldexp(1.0, half), ldexp(1.0, shift - half)}, {ldexp(1.0, -half), ldexp(1.0, half - shift)}};
}

SURE_FAST_INLINE int64_t to_fixed(const FixedPoint& f, double x) {
  return static_cast<int64_t>(llrint((x - f.center) * f.scale[0] * f.scale[1]));
}

// A sum of differences as a number again.
SURE_FAST_INLINE double from_fixed(const FixedPoint& f, double sum) { return sum * f.inverse[0] * f.inverse[1]; }

}  // namespace sure_fast
