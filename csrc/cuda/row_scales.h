// What the pair loss needs to know of each row before its pairs: the range of g, for fixed point, the middle of u, and
// with `normalize` the standard deviations of both. Slices of a row are summed in a fixed order (rows.h).
#pragma once

#include "cuda/rankings.h"
#include "cuda/rows.h"
#include "math/fixed_point.h"

namespace sure_fast {
namespace {

// Smallest and largest sort keys of g and u.
struct Extremes {
  unsigned long long low_g, high_g, low_u, high_u;
};

SURE_FAST_DEVICE Extremes operator+(const Extremes& x, const Extremes& y) {
  return {x.low_g < y.low_g ? x.low_g : y.low_g, x.high_g > y.high_g ? x.high_g : y.high_g,
          x.low_u < y.low_u ? x.low_u : y.low_u, x.high_u > y.high_u ? x.high_u : y.high_u};
}

struct RowScale {
  FixedPoint g;
  double center_u;
  bool spoiled;              // a NaN or an infinity
  double each;               // 1 / number of pairs, NaN where spoiled; with `normalize` / (s_g s_u)
  double mean_u, deviation;  // of u over the row; s_g s_u
  double shrink;             // with `normalize` loss / (elements s_u^2), what a slope loses by u - mean u
};

// Sums over a row, or a slice of it, about the middle of the range.
struct Moments {
  double u, uu, g, gg;
};

SURE_FAST_DEVICE Moments operator+(const Moments& x, const Moments& y) {
  return {x.u + y.u, x.uu + y.uu, x.g + y.g, x.gg + y.gg};
}

template <typename Value>
__global__ void __launch_bounds__(kRowThreads, 4)
    slice_extremes(Rankings<Value> r, const uint32_t* begins, int64_t slices, Extremes* extremes) {
  SURE_FAST_SHARED(shared, Extremes[kRowThreads]);
  const RowSlice slice = row_slice(begins, slices);
  Extremes own = {~0ull, 0, ~0ull, 0};
  for (int64_t e = slice.first + threadIdx.x; e < slice.last; e += kRowThreads) {
    const uint32_t i = r.map_index(static_cast<uint32_t>(e));
    const unsigned long long g = sort_key(static_cast<double>(r.g[i])), u = sort_key(static_cast<double>(r.u[i]));
    own = own + Extremes{g, g, u, u};
  }
  const Extremes all = block_sum<kRowThreads>(own, shared);
  if (threadIdx.x == 0) extremes[blockIdx.x] = all;
}

__global__ void __launch_bounds__(kRowThreads, 4)
    row_scales(const Extremes* extremes, int64_t slices, const uint32_t* begins, int64_t num_pairs, RowScale* scales) {
  SURE_FAST_SHARED(shared, Extremes[kRowThreads]);
  const int64_t row = blockIdx.x, t = threadIdx.x;
  const Extremes own = t < slices ? extremes[row * slices + t] : Extremes{~0ull, 0, ~0ull, 0};
  const Extremes x = block_sum<kRowThreads>(own, shared);
  if (t != 0) return;
  const int64_t elements = begins[row + 1] - begins[row], terms = num_pairs > 0 ? num_pairs : elements;
  RowScale scale = {fixed_point(0.0, 0.0, 0), 0.0, false, 0.0, 0.0, 0.0, 0.0};
  if (elements > 0) {
    const double low_g = number_of_key(uint64_t{x.low_g}), high_g = number_of_key(uint64_t{x.high_g});
    const double low_u = number_of_key(uint64_t{x.low_u}), high_u = number_of_key(uint64_t{x.high_u});
    scale.spoiled = !((high_g - low_g) * 0.0 == 0.0 && (high_u - low_u) * 0.0 == 0.0);
    int bits = 0;
    while ((int64_t{1} << bits) < terms) ++bits;
    if (!scale.spoiled) {
      scale.g = fixed_point(low_g, high_g, bits);
      scale.center_u = low_u / 2 + high_u / 2;
    }
  }
  scales[row] = scale;
}

template <typename Value>
__global__ void __launch_bounds__(kRowThreads, 4)
    slice_moments(Rankings<Value> r, const RowScale* scales, const uint32_t* begins, int64_t slices, Moments* moments) {
  SURE_FAST_SHARED(shared, Moments[kRowThreads]);
  const RowSlice slice = row_slice(begins, slices);
  const double center_u = scales[slice.row].center_u, center_g = scales[slice.row].g.center;
  Moments own = {0.0, 0.0, 0.0, 0.0};
  for (int64_t e = slice.first + threadIdx.x; e < slice.last; e += kRowThreads) {
    const uint32_t i = r.map_index(static_cast<uint32_t>(e));
    const double u = static_cast<double>(r.u[i]) - center_u, g = static_cast<double>(r.g[i]) - center_g;
    own = own + Moments{u, u * u, g, g * g};
  }
  const Moments all = block_sum<kRowThreads>(own, shared);
  if (threadIdx.x == 0) moments[blockIdx.x] = all;
}

// What `normalize` divides by; finish_rows turns `shrink` from 1 / (m s_u^2) into the whole.
__global__ void __launch_bounds__(kRowThreads, 4)
    row_moments(const Moments* moments, int64_t slices, const uint32_t* begins, RowScale* scales) {
  SURE_FAST_SHARED(shared, Moments[kRowThreads]);
  const int64_t row = blockIdx.x, t = threadIdx.x;
  const Moments own = t < slices ? moments[row * slices + t] : Moments{0.0, 0.0, 0.0, 0.0};
  const Moments sum = block_sum<kRowThreads>(own, shared);
  if (t != 0 || begins[row + 1] == begins[row]) return;
  RowScale& scale = scales[row];
  const double m = static_cast<double>(begins[row + 1] - begins[row]), mean_u = sum.u / m, mean_g = sum.g / m;
  const double variance_u = sum.uu / m - mean_u * mean_u, variance_g = sum.gg / m - mean_g * mean_g;
  scale.mean_u = mean_u + scale.center_u;
  scale.deviation = variance_u > 0.0 && variance_g > 0.0 ? sqrt(variance_u) * sqrt(variance_g) : 0.0;
  scale.shrink = scale.deviation > 0.0 ? 1.0 / (m * variance_u) : 0.0;
}

}  // namespace
}  // namespace sure_fast
