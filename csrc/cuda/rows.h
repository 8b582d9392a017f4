// Rows of a list cut into slices, one a block, so that sums over a row have a fixed order.
#pragma once

#include "cuda/block.h"

namespace sure_fast {
namespace {

constexpr int kRowThreads = 256;
constexpr int kMostSlices = 256;

// As many rows go together as make this many elements, which bounds the scratch memory.
constexpr int64_t kElementsAtOnce = 1 << 22;

inline int64_t rows_at_once(int64_t rows, int64_t n) {
  const int64_t fit = kElementsAtOnce / n;
  return fit < 1 ? 1 : fit < rows ? fit : rows;
}

// How many slices a row of at most n elements has.
inline int64_t row_slices(int64_t n) {
  const int64_t wanted = ceil_div<int64_t>(n, 4096);
  return wanted < 1 ? 1 : wanted > kMostSlices ? kMostSlices : wanted;
}

struct RowSlice {
  int64_t row, first, last;
};

SURE_FAST_DEVICE RowSlice row_slice(const uint32_t* begins, int64_t slices) {
  const uint32_t parts = static_cast<uint32_t>(slices), row = blockIdx.x / parts, k = blockIdx.x % parts;
  const int64_t begin = begins[row], end = begins[row + 1], each = (begins[row + 1] - begins[row]) / parts + 1;
  const int64_t first = begin + k * each, last = first + each;
  return {row, first < end ? first : end, last < end ? last : end};
}

}  // namespace
}  // namespace sure_fast
