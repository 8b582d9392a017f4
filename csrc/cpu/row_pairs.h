// Two rankings of the same elements, row by row: the arguments of pair_concordance and spearman on the CPU.
#pragma once

#include "args/row_pairs.h"
#include "cpu/common.h"

namespace sure_fast {

namespace {

// Elements of one row that count.
template <typename Value>
struct RowPair {
  const Value *a, *b;
  int64_t count;
};

// Copies the elements that count to `a` and `b` where there is a mask.
template <typename Value>
static inline RowPair<Value> compact_row(const RowPairArgs& args, int64_t row, Value* a, Value* b) {
  const Value* from_a = static_cast<const Value*>(args.a) + row * args.n;
  const Value* from_b = static_cast<const Value*>(args.b) + row * args.n;
  if (args.mask == nullptr) return {from_a, from_b, args.n};
  const uint8_t* mask = args.mask + row * args.n;
  int64_t count = 0;
  for (int64_t i = 0; i < args.n; ++i) {
    if (!mask[i]) continue;
    a[count] = from_a[i];
    b[count++] = from_b[i];
  }
  return {a, b, count};
}

}  // namespace
}  // namespace sure_fast
