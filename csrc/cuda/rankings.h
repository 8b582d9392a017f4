// Two rankings of the same elements brought into the two orders that partners.h deals with, row after row and, within
// a row, label after label: pairs of different rows or labels rise in one order and fall in the other, so none counts.
#pragma once

#include "cuda/labels.h"
#include "cuda/sort.h"
#include "math/order.h"

namespace sure_fast {
namespace {

template <typename Value>
struct Rankings {
  const Value *g, *u;      // maps
  const uint32_t* list;    // index of each element in the maps; null: its own
  const uint32_t* length;  // elements, on the device
  int64_t capacity;        // no more than these
  int64_t rows, n;         // the maps are [rows, n]
  LabelMap label;

  SURE_FAST_DEVICE_MEMBER uint32_t map_index(uint32_t element) const {
    return list != nullptr ? list[element] : element;
  }
  SURE_FAST_DEVICE_MEMBER uint32_t row(uint32_t element) const { return map_index(element) / static_cast<uint32_t>(n); }
};

template <typename Key>
SURE_FAST_DEVICE Key flipped(Key key, bool falling) {
  return falling ? static_cast<Key>(~key) : key;
}

template <typename Value>
struct ValueKey {
  const Value* values;
  Rankings<Value> r;
  const uint32_t* through;  // elements by the payload that is sorted; null: it is the element
  bool falling;
  SURE_FAST_DEVICE_MEMBER typename KeyOf<Value>::type operator()(uint32_t x) const {
    return flipped(sort_key(values[r.map_index(through != nullptr ? through[x] : x)]), falling);
  }
};

template <typename Value>
struct LabelKey {
  Rankings<Value> r;
  const uint32_t* through;
  bool falling;
  SURE_FAST_DEVICE_MEMBER unsigned long long operator()(uint32_t x) const {
    return flipped(label_key(r.label, r.map_index(through != nullptr ? through[x] : x)), falling);
  }
};

template <typename Value>
struct RowKey {
  Rankings<Value> r;
  const uint32_t* through;
  bool falling;
  SURE_FAST_DEVICE_MEMBER uint32_t operator()(uint32_t x) const {
    const uint32_t row = r.row(through != nullptr ? through[x] : x);
    return falling ? static_cast<uint32_t>(r.rows) - 1 - row : row;
  }
};

// Keeps what was sorted and starts the next sort from its reverse.
__global__ void keep_and_reverse(const uint32_t* sorted, const uint32_t* length, uint32_t* kept, uint32_t* next) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, n = *length;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    kept[i] = sorted[i];
    next[i] = static_cast<uint32_t>(n - 1 - i);
  }
}

template <typename Value, typename Key>
int sort_stage(const Stream& stream, const SortBuffers<Key>& s, int half, const Rankings<Value>& r, const Value* values,
               const uint32_t* through, bool falling) {
  return sort_by<Key>(stream, s, half, ValueKey<Value>{values, r, through, falling},
                      8 * static_cast<int>(sizeof(Value)), r.capacity, r.length);
}

template <typename Value, typename Key>
int sort_groups(const Stream& stream, const SortBuffers<Key>& s, int half, const Rankings<Value>& r,
                const uint32_t* through, bool falling) {
  if (r.label.data != nullptr) {
    half = sort_by<Key>(stream, s, half, LabelKey<Value>{r, through, falling}, label_bits(r.label.dtype), r.capacity,
                        r.length);
  }
  return sort_by<Key>(stream, s, half, RowKey<Value>{r, through, falling}, bits_needed(r.rows), r.capacity, r.length);
}

// sequence: elements by falling row and label, rising u, falling g. Returns the half of s.payload that says which
// position of the sequence comes at each position of the order by rising row and label, rising g, falling u.
template <typename Value, typename Key>
int order_rankings(const Stream& stream, const SortBuffers<Key>& s, const Rankings<Value>& r, uint32_t* sequence) {
  const int64_t blocks = fill(stream, ceil_div<int64_t>(r.capacity, 256));
  launch(stream, "count_up", blocks, 256, count_up, s.payload[0], r.length);
  int half = sort_stage(stream, s, 0, r, r.g, nullptr, true);
  half = sort_stage(stream, s, half, r, r.u, nullptr, false);
  half = sort_groups(stream, s, half, r, nullptr, true);
  launch(stream, "keep_and_reverse", blocks, 256, keep_and_reverse, s.payload[half], r.length, sequence,
         s.payload[half ^ 1]);
  half = sort_stage(stream, s, half ^ 1, r, r.g, sequence, false);
  return sort_groups(stream, s, half, r, sequence, false);
}

}  // namespace
}  // namespace sure_fast
