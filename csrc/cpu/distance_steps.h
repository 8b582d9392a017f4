// Exact squared distances in whole steps as uint16, lines of 32 columns in a vector: half the bytes and twice the
// voxels an instruction of distance_lines.h. A line looks outwards until nothing nearer is possible; sums are cut off
// at none.
#pragma once

#include "cpu/distance_lines.h"

#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int64_t kColumns = 32;
// Squared distances of 32 columns.
struct Columns {
  typedef uint16_t All __attribute__((vector_size(2 * kColumns)));
  typedef uint64_t Words __attribute__((vector_size(2 * kColumns)));
  All all;

  static SURE_FAST_INLINE_MEMBER Columns at(const uint16_t* from) {
    Columns columns;
    memcpy(&columns.all, from, sizeof(All));
    return columns;
  }

  SURE_FAST_INLINE_MEMBER bool any_above(uint16_t limit) const {
#if defined(__AVX512BW__)
    return _mm512_cmpgt_epu16_mask((__m512i)all, _mm512_set1_epi16(static_cast<int16_t>(limit))) != 0;
#else
    const Words above = (Words)(all > limit);
    return ((above[0] | above[1]) | (above[2] | above[3]) | (above[4] | above[5]) | (above[6] | above[7])) != 0;
#endif
  }

  // The lower of x and y, which are some steps away, with the square of these added, where it is nearer.
  SURE_FAST_INLINE_MEMBER void look(const uint16_t* x, const uint16_t* y, uint16_t square) {
    const All most = All{} + static_cast<uint16_t>(kNoSteps - square);
    const All left = at(x).all, right = at(y).all, lower = left < right ? left : right;
    const All sum = (lower < most ? lower : most) + square;
    all = sum < all ? sum : all;
  }
};

// out[i] = min over j of rows[j] + (i - j)^2 of 32 columns, |i - j| <= reach; rows outside of first..last hold none.
inline void line_of_columns(const uint16_t* rows, int64_t stride, int64_t length, int64_t first, int64_t last,
                            int64_t reach, uint16_t* out, int64_t out_stride) {
  constexpr int64_t kSteps = 2;  // of these the first is asked whether it can be nearer
  for (int64_t i = 0; i < length; ++i) {
    const int64_t farthest = i - first > last - i ? i - first : last - i, end = farthest < reach ? farthest : reach;
    Columns best = Columns::at(rows + i * stride);
    int64_t k = i < first ? first - i : i > last ? i - last : 1;
    for (; k <= end; k += kSteps) {
      if (k * k >= kNoSteps || !best.any_above(static_cast<uint16_t>(k * k))) break;
      for (int64_t step = k; step < k + kSteps && step * step < kNoSteps; ++step) {
        const int64_t above = i - step < first ? i : i - step, below = i + step > last ? i : i + step;
        best.look(rows + above * stride, rows + below * stride, static_cast<uint16_t>(step * step));
      }
    }
    memcpy(out + i * out_stride, &best.all, sizeof(best.all));
  }
}

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
