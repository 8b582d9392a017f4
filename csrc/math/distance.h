// Distances on a grid: what is within a limit, and squared distances in steps as bytes. Python reads the numbers and
// calls the functions (bindings/cpu/constants.cpp).
#pragma once

#include "math/bits.h"

namespace sure_fast {

constexpr double kSlack = 1 + 1e-6;  // a distance in float that was meant to be equal to a limit is within
constexpr double kSquaredSlack = kSlack * kSlack;

constexpr double kByteReach = 15.9;  // squared steps below its square fit a byte and leave two values:
constexpr uint8_t kBeyond = 255;     // farther than the limit,
constexpr uint8_t kIgnored = 254;    // or of an ignored voxel

// Whether the squared distances within the limit fit a byte, in steps of this length.
SURE_FAST_INLINE bool squares_fit_bytes(double limit, double step) { return limit * kSlack < kByteReach * step; }

// How many whole steps are within a distance in steps, at most `most`.
SURE_FAST_INLINE int64_t steps_within(double distance, int64_t most) {
  const double steps = distance * kSlack;
  return steps < static_cast<double>(most) ? static_cast<int64_t>(steps) : most;
}

// The largest squared distance within a distance in steps, for comparison with bytes.
SURE_FAST_INLINE int squared_steps_within(double distance) {
  const double squared = distance * distance * kSquaredSlack;
  return squared < static_cast<double>(kBeyond) ? static_cast<int>(squared) : kBeyond;
}

}  // namespace sure_fast
