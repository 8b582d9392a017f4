// Exact squared distances one axis after the other: rows of bytes, then lines of rows.
// Each line looks outwards until nothing nearer is possible and passes over rows that hold no boundary; a line with
// many such rows takes the lower envelope of parabolas, linear in its length (Felzenszwalb and Huttenlocher, Theory of
// Computing 8, 2012).
#pragma once

#include <type_traits>

#include "cpu/common.h"
#include "math/distance.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int64_t kLineBlock = 64;      // voxels of a row that look outwards together
constexpr int64_t kEnvelopeRows = 256;  // lines with more rows that hold a boundary take the envelope
constexpr uint16_t kNoSteps = UINT16_MAX;
const float kInf = __builtin_inff();

// What stands for "none": a squared distance in the unit of the steps, or in whole steps.
template <typename T>
SURE_FAST_INLINE T none() {
  return std::is_same<T, float>::value ? static_cast<T>(kInf) : static_cast<T>(kNoSteps);
}

// Squares of 0 .. length - 1 steps, none where they are farther than `farthest`, upwards and downwards.
template <typename T>
struct SquaresOf {
  T *up, *down;
  int64_t length;

  SquaresOf(Arena& arena, int64_t count) : up(arena.take<T>(count)), down(arena.take<T>(count)), length(count) {}

  SURE_FAST_INLINE_MEMBER void fill(double step, double farthest) const {
    for (int64_t k = 0; k < length; ++k) {
      const double distance = static_cast<double>(k) * step, square = distance * distance;
      const bool fits = distance <= farthest && square < static_cast<double>(none<T>());
      up[k] = down[length - 1 - k] = fits ? static_cast<T>(square) : none<T>();
    }
  }
};

using Squares = SquaresOf<float>;

// Squared distance of each voxel of a row to the nearest byte that is 0: upwards from each to the middle of the gap
// behind it, downwards to the next.
template <typename T>
inline void row_squares(const uint8_t* boundary, const SquaresOf<T>& squares, int64_t W, T* out) {
  int64_t next = 0;  // the first voxel not written
  for (int64_t w = 0; w < W; ++w) {
    uint64_t eight = 1;
    if (w + 8 <= W) memcpy(&eight, boundary + w, 8);
    if (eight == UINT64_MAX) {
      w += 7;
      continue;
    }
    if (eight == 0 && next == w) {
      for (int64_t i = 0; i < 8; ++i) out[w + i] = T(0);
      next = w + 8;
      w += 7;
      continue;
    }
    if (boundary[w] != 0) continue;
    const int64_t gap = w - next, rise = next > 0 ? gap / 2 : 0;
    for (int64_t i = 0; i < rise; ++i) out[next + i] = squares.up[i + 1];
    const T* fall = squares.down + squares.length - 1 - w;
    for (int64_t i = next + rise; i <= w; ++i) out[i] = fall[i];
    next = w + 1;
  }
  for (int64_t w = next; w < W; ++w) out[w] = next > 0 ? squares.up[w - next + 1] : none<T>();
}

// One column of `length` values, a stride apart, by the lower envelope of its parabolas, in place. Positions are rows,
// so that a row's distance to itself is 0 however the compiler rounds.
inline void column_envelope(float* column, int64_t stride, int64_t length, double step, double* scratch) {
  double* value = scratch;
  double* apex = scratch + length + 1;
  double* from = apex + length + 1;
  const double rows = 1.0 / (step * step);  // a squared distance in them
  int64_t top = -1;
  for (int64_t j = 0; j < length; ++j) {
    const double f = static_cast<double>(column[j * stride]);
    if (f == static_cast<double>(kInf)) continue;
    const double x = static_cast<double>(j);
    double start = -1.0;
    while (top >= 0) {
      start = ((f - value[top]) * rows + (x * x - apex[top] * apex[top])) / (2.0 * (x - apex[top]));
      if (start > from[top]) break;
      --top;
      start = -1.0;
    }
    ++top;
    value[top] = f;
    apex[top] = x;
    from[top] = top == 0 ? -1.0 : start;
  }
  if (top < 0) return;
  int64_t k = 0;
  for (int64_t j = 0; j < length; ++j) {
    const double x = static_cast<double>(j);
    while (k < top && from[k + 1] <= x) ++k;
    const double away = (x - apex[k]) * step;
    column[j * stride] = static_cast<float>(away * away + value[k]);
  }
}

// The largest of the block's squared distances; they are not negative, so their bits are ordered as they are.
SURE_FAST_INLINE float largest(const float* values) {
  int32_t bits = 0;
#pragma omp simd reduction(max : bits)
  for (int64_t w = 0; w < kLineBlock; ++w) {
    const int32_t b = math::bits_of(values[w]);
    bits = b > bits ? b : bits;
  }
  return math::float_of(bits);
}

// out[i][w] = min over j of rows[j][w] + ((i - j) step)^2; rows [length, W] are scratch, out rows are a stride apart.
inline void lines_floats(float* rows, const uint8_t* any, int64_t any_stride, int64_t length, int64_t W, double step,
                         double farthest, double* envelope, float* out, int64_t out_stride) {
  int64_t first = -1, last = -1, holding = 0;
  for (int64_t j = 0; j < length; ++j) {
    if (!any[j * any_stride]) continue;
    if (first < 0) first = j;
    last = j;
    ++holding;
  }
  if (holding == 0) {  // every row is infinite
    for (int64_t i = 0; i < length; ++i) {
      memcpy(out + i * out_stride, rows + i * W, sizeof(float) * static_cast<size_t>(W));
    }
    return;
  }
  if (holding > kEnvelopeRows && farthest == static_cast<double>(kInf)) {
    for (int64_t w = 0; w < W; ++w) column_envelope(rows + w, W, length, step, envelope);
    for (int64_t i = 0; i < length; ++i)
      memcpy(out + i * out_stride, rows + i * W, sizeof(float) * static_cast<size_t>(W));
    return;
  }
  const int64_t reach = steps_within(farthest / step, length);
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t w0 = 0; w0 < W; w0 += kLineBlock) {
      const int64_t count = W - w0 < kLineBlock ? W - w0 : kLineBlock;
      alignas(64) float best[kLineBlock] = {};
      for (int64_t w = 0; w < count; ++w) best[w] = rows[i * W + w0 + w];
      float worst = largest(best);
      for (int64_t k = 1; k <= reach; ++k) {
        const bool left = i - k >= first && i - k <= last && any[(i - k) * any_stride];
        const bool right = i + k <= last && i + k >= first && any[(i + k) * any_stride];
        if (!left && !right) {
          if (i - k < first && i + k > last) break;
          continue;
        }
        const float cost = static_cast<float>((static_cast<double>(k) * step) * (static_cast<double>(k) * step));
        if (cost >= worst) break;
        const float* x = rows + (left ? i - k : i + k) * W + w0;
        const float* y = rows + (right ? i + k : i - k) * W + w0;
        if (count == kLineBlock) {
#pragma omp simd
          for (int64_t w = 0; w < kLineBlock; ++w) {
            const float nearest = (x[w] < y[w] ? x[w] : y[w]) + cost;
            best[w] = nearest < best[w] ? nearest : best[w];
          }
        } else {
          for (int64_t w = 0; w < count; ++w) {
            const float nearest = (x[w] < y[w] ? x[w] : y[w]) + cost;
            best[w] = nearest < best[w] ? nearest : best[w];
          }
        }
        worst = largest(best);
      }
      memcpy(out + i * out_stride + w0, best, sizeof(float) * static_cast<size_t>(count));
    }
  }
}

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
