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
constexpr int64_t kRowsApart = 8;  // of a line, those that tell the rows between where to look
constexpr uint16_t kHere = 256;    // a row as a number of rows from another one, of which there are fewer

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

  // The lower of x and y, which are some steps away, with the square of these added.
  static SURE_FAST_INLINE_MEMBER All away(All x, All y, uint16_t square) {
    const All most = All{} + static_cast<uint16_t>(kNoSteps - square);
    const All lower = x < y ? x : y;
    return (lower < most ? lower : most) + square;
  }
};

// The rows of a line that can be the nearest ones.
struct Window {
  int64_t first, last;
};

// Row i of 32 columns: the least of rows[j] + (i - j)^2 over the window and |i - j| <= reach. With `nearest` that is
// told which rows, from the first to the last, are the nearest of any column; i itself where no row is.
template <bool kTold>
SURE_FAST_INLINE Columns look_outwards(const uint16_t* rows, int64_t stride, int64_t i, Window within, int64_t reach,
                                       Window* nearest) {
  constexpr int64_t kSteps = 2;  // of these the first is asked whether it can be nearer
  const int64_t first = within.first, last = within.last;
  const int64_t farthest = i - first > last - i ? i - first : last - i, end = farthest < reach ? farthest : reach;
  Columns best = Columns::at(rows + i * stride), row = {Columns::All{} + kHere};
  const int64_t start = i < first ? first - i : i > last ? i - last : 1;
  int64_t k = start;
  for (; k <= end; k += kSteps) {
    if (k * k >= kNoSteps || !best.any_above(static_cast<uint16_t>(k * k))) break;
    for (int64_t step = k; step < k + kSteps && step * step < kNoSteps; ++step) {
      const int64_t above = i - step < first ? i : i - step, below = i + step > last ? i : i + step;
      const Columns x = Columns::at(rows + above * stride), y = Columns::at(rows + below * stride);
      const Columns::All sum = Columns::away(x.all, y.all, static_cast<uint16_t>(step * step));
      if (kTold) {
        const Columns::All from = x.all < y.all ? Columns::All{} + static_cast<uint16_t>(kHere + above - i)
                                                : Columns::All{} + static_cast<uint16_t>(kHere + below - i);
        row.all = sum < best.all ? from : row.all;
      }
      best.all = sum < best.all ? sum : best.all;
    }
  }
  if (kTold) *nearest = {i, i};
  if (kTold && k > start) {
    uint16_t each[kColumns], low = UINT16_MAX, high = 0;
    memcpy(each, &row.all, sizeof(each));
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int64_t w = 0; w < kColumns; ++w) {
      low = each[w] < low ? each[w] : low;
      high = each[w] > high ? each[w] : high;
    }
    *nearest = {i + low - kHere, i + high - kHere};
  }
  return best;
}

// out[i] = min over j of rows[j] + (i - j)^2 of 32 columns, |i - j| <= reach; rows outside of first..last hold none.
// The nearest row of a later row is not an earlier one: some rows tell those between where to look.
inline void line_of_columns(const uint16_t* rows, int64_t stride, int64_t length, Window holding, int64_t reach,
                            uint16_t* out, int64_t out_stride) {
  int64_t first = holding.first;
  for (int64_t i = 0, done = 0; done < length; i = i + kRowsApart < length ? i + kRowsApart : length - 1) {
    Window nearest = {0, 0};
    const Columns told = look_outwards<true>(rows, stride, i, {first, holding.last}, reach, &nearest);
    const Window between = {first, nearest.last < holding.last ? nearest.last : holding.last};
    for (; done < i; ++done) {
      const Columns best = look_outwards<false>(rows, stride, done, between, reach, nullptr);
      memcpy(out + done * out_stride, &best.all, sizeof(best.all));
    }
    memcpy(out + i * out_stride, &told.all, sizeof(told.all));
    done = i + 1;
    first = nearest.first > holding.first ? nearest.first : holding.first;
  }
}

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
