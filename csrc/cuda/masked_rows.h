// Rows of two rankings whose masked elements were compacted: what pair_concordance and spearman share.
#pragma once

#include "cuda/compact.h"
#include "cuda/rankings.h"
#include "cuda/row_pairs.h"
#include "cuda/rows.h"

namespace sure_fast {
namespace {

struct Masked {
  const uint8_t* mask;  // null: all
  SURE_FAST_DEVICE_MEMBER bool operator()(int64_t i) const { return mask == nullptr || mask[i] != 0; }
};

// Scratch of the rows that go together.
struct MaskedRows {
  int64_t rows, capacity, slices;
  Compaction compaction;
  uint32_t* begins;

  MaskedRows(const RowPairArgs& a, Arena& arena)
      : rows(rows_at_once(a.rows, a.n)), capacity(rows * a.n), slices(row_slices(a.n)), compaction(arena, capacity) {
    begins = arena.take<uint32_t>(rows + 1);
  }

  // Rows first ... as two rankings.
  template <typename Value>
  Rankings<Value> compact(const RowPairArgs& a, const Stream& stream, int64_t first) const {
    const int64_t here = a.rows - first < rows ? a.rows - first : rows;
    const Masked mask = {a.mask == nullptr ? nullptr : a.mask + first * a.n};
    sure_fast::compact(stream, mask, here * a.n, compaction);
    const Rankings<Value> r = {static_cast<const Value*>(a.a) + first * a.n,
                               static_cast<const Value*>(a.b) + first * a.n,
                               compaction.list,
                               compaction.length(here * a.n),
                               here * a.n,
                               here,
                               a.n,
                               {nullptr, DType::u8}};
    find_rows(stream, r.list, r.length, a.n, here, begins);
    return r;
  }
};

}  // namespace
}  // namespace sure_fast
