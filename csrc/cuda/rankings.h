// Two rankings of the same elements brought into the two orders that partners.h deals with, row after row and, within a
// row, label after label: groups rise in one order and fall in the other, so that no pair of two groups counts.
// Three sorts: by g; what is then in one run of equal g, and which group it is in, has a number of few bits. By u, from
// the reverse. By the numbers of the runs, from the reverse. Labels are sorted as what they exceed the least one by: 32
// bits with the row, in as many passes as the device finds needed; of a wider range by one block, slowly.
#pragma once

#include "cuda/compact.h"
#include "cuda/labels.h"
#include "cuda/sort.h"
#include "math/order.h"

namespace sure_fast {
namespace {

constexpr int kRankThreads = 256;
constexpr int kRunTile = 1024;
constexpr int kLabelParts = kRankThreads;
constexpr uint32_t kGroupBits = 32;  // of a row and a label in one key

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

template <typename Value>
struct ValueKey {
  const Value* values;
  Rankings<Value> r;
  const uint32_t* through;  // elements by the payload that is sorted; null: it is the element
  SURE_FAST_DEVICE_MEMBER typename KeyOf<Value>::type operator()(uint32_t x) const {
    return sort_key(values[r.map_index(through != nullptr ? through[x] : x)]);
  }
};

// Smallest and largest key of the labels.
struct LabelExtremes {
  unsigned long long low, high;
};

SURE_FAST_DEVICE LabelExtremes operator+(const LabelExtremes& x, const LabelExtremes& y) {
  return {x.low < y.low ? x.low : y.low, x.high > y.high ? x.high : y.high};
}

struct LabelRange {
  unsigned long long low;  // key
  uint32_t label_bits;     // of key - low
  uint32_t bits;           // of the keys of groups
  bool wide;               // more than kGroupBits with the row
};

// A key of row and label, or the lowest bits of the label where its range is wide.
template <typename Value>
struct GroupKey {
  Rankings<Value> r;
  const LabelRange* range;  // null: rows alone
  bool falling;
  SURE_FAST_DEVICE_MEMBER uint32_t operator()(uint32_t x) const {
    const uint32_t row = r.row(x);
    if (range == nullptr) return falling ? static_cast<uint32_t>(r.rows) - 1 - row : row;
    const unsigned long long label = label_key(r.label, r.map_index(x)) - range->low;
    const unsigned long long key =
        range->wide ? label : static_cast<unsigned long long>(row) << range->label_bits | label;
    return static_cast<uint32_t>(falling ? ~key : key) & (~0u >> (kGroupBits - (range->bits > 0 ? range->bits : 1)));
  }
};

SURE_FAST_DEVICE uint32_t bits_of_number(unsigned long long most) {
  const uint32_t upper = static_cast<uint32_t>(most >> 32), lower = static_cast<uint32_t>(most);
  return static_cast<uint32_t>(upper != 0 ? 64 - __clz(static_cast<int>(upper)) : 32 - __clz(static_cast<int>(lower)));
}

template <typename Value>
__global__ void __launch_bounds__(kRankThreads) label_extremes(Rankings<Value> r, LabelExtremes* parts) {
  SURE_FAST_SHARED(shared, LabelExtremes[kRankThreads]);
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, m = *r.length;
  LabelExtremes own = {~0ull, 0};
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < m; i += step) {
    const unsigned long long key = label_key(r.label, r.map_index(static_cast<uint32_t>(i)));
    own = own + LabelExtremes{key, key};
  }
  const LabelExtremes all = block_sum<kRankThreads>(own, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = all;
}

__global__ void __launch_bounds__(kRankThreads)
    finish_labels(const LabelExtremes* parts, int64_t number, int row_bits, LabelRange* range) {
  SURE_FAST_SHARED(shared, LabelExtremes[kRankThreads]);
  const LabelExtremes own = threadIdx.x < number ? parts[threadIdx.x] : LabelExtremes{~0ull, 0};
  const LabelExtremes all = block_sum<kRankThreads>(own, shared);
  if (threadIdx.x != 0) return;
  const uint32_t bits = all.high > all.low ? bits_of_number(all.high - all.low) : 0;
  const uint32_t with_row = bits + static_cast<uint32_t>(row_bits);
  *range = {all.low, bits, with_row < kGroupBits ? with_row : kGroupBits, with_row > kGroupBits};
}

// The passes over the bits of label and row that are not in a GroupKey, where the range is wide: an even number of
// them, so that the list stays in its place.
template <typename Value>
__global__ void __launch_bounds__(kSortThreads, 1)
    sort_wide_labels(GroupKey<Value> group, Sorted sorted, int row_passes, uint32_t* keys) {
  SURE_FAST_SHARED(shared, MoveShared);
  if (!group.range->wide) return;
  const int label_passes = row_passes % 2 == 0 ? 4 : 3, width = label_passes == 4 ? 8 : kDigitBits;
  const Slice all = {0, static_cast<int64_t>(*group.r.length)};
  int half = sorted.half();
  for (int pass = 0; pass < label_passes + row_passes; ++pass, half ^= 1) {
    const bool of_label = pass < label_passes;
    const Digit digit = {0, of_label ? width : kDigitBits};
    const uint32_t* payload = pick(sorted.payload, half);
    clear_digits(shared.next, digit);
    for (int64_t i = threadIdx.x; i < all.last; i += kSortThreads) {
      unsigned long long key = group.r.row(payload[i]) >> (of_label ? 0 : (pass - label_passes) * kDigitBits);
      if (of_label) {
        key = (label_key(group.r.label, group.r.map_index(payload[i])) - group.range->low) >> (32 + pass * width);
      }
      keys[i] = digit.of(static_cast<uint32_t>(group.falling ? ~key : key));
      atomicAdd(&shared.next[keys[i]], 1u);
    }
    __syncthreads();
    begin_digits(shared, digit);
    move_slice<uint32_t>(keys, payload, all, digit, shared, nullptr, pick(sorted.payload, half ^ 1));
    __syncthreads();
  }
}

// Where the range of the labels is found.
struct LabelMemory {
  LabelExtremes* parts;
  LabelRange* range;
  LabelMemory(Arena& arena, bool labels)
      : parts(arena.take<LabelExtremes>(labels ? kLabelParts : 0)), range(arena.take<LabelRange>(labels ? 1 : 0)) {}
};

template <typename Value>
int group_bits(const Rankings<Value>& r) {
  return bits_needed(r.rows) + (r.label.data != nullptr ? label_bits(r.label.dtype) : 0);
}

// Sorts by row and label. `half` holds the payload where `start` says that it is given.
template <typename Value>
Sorted sort_groups(const Stream& stream, const SortBuffers<uint32_t>& s, Start start, int half,
                   const Rankings<Value>& r, const LabelMemory& labels, bool falling) {
  const int bits = group_bits(r), row_bits = bits_needed(r.rows);
  if (r.label.data == nullptr) {
    const GroupKey<Value> key = {r, nullptr, falling};
    if (bits == 0 && start == Start::given) return {{s.payload[0], s.payload[1]}, half, 1, 0, nullptr};
    return sort_by(stream, s, start, half, key, bits, nullptr, r.capacity, r.length);
  }
  constexpr int kMost = static_cast<int>(kGroupBits);
  const int64_t wanted = ceil_div<int64_t>(r.capacity, 4096), parts = wanted < kLabelParts ? wanted : kLabelParts;
  launch(stream, "label_extremes", parts, kRankThreads, label_extremes<Value>, r, labels.parts);
  launch(stream, "finish_labels", 1, kRankThreads, finish_labels, labels.parts, parts, row_bits, labels.range);
  const GroupKey<Value> key = {r, labels.range, falling};
  const Sorted sorted =
      sort_by(stream, s, start, half, key, bits < kMost ? bits : kMost, &labels.range->bits, r.capacity, r.length);
  if (bits > kMost) {
    launch(stream, "sort_wide_labels", 1, kSortThreads, sort_wide_labels<Value>, key, sorted,
           ceil_div(row_bits, kDigitBits), s.keys[0]);
  }
  return sorted;
}

// Runs of equal g in a group, and groups, as counted together.
struct Runs {
  uint32_t runs, groups;
};

SURE_FAST_DEVICE Runs operator+(const Runs& x, const Runs& y) { return {x.runs + y.runs, x.groups + y.groups}; }
SURE_FAST_DEVICE Runs shift_up(const Runs& x, int by) {
  return {__shfl_up_sync(kAllLanes, x.runs, by), __shfl_up_sync(kAllLanes, x.groups, by)};
}

// Whether with an element of `sorted`, which is by groups and g, a run or a group begins.
template <typename Value>
SURE_FAST_DEVICE Runs begins_run(const Rankings<Value>& r, const uint32_t* sorted, int64_t i) {
  if (i == 0) return {1, 1};
  const uint32_t own = sorted[i], last = sorted[i - 1];
  const uint32_t at = r.map_index(own), before = r.map_index(last);
  if (r.row(own) != r.row(last)) return {1, 1};
  if (r.label.data != nullptr && label_at(r.label, at) != label_at(r.label, before)) return {1, 1};
  return {sort_key(r.g[at]) != sort_key(r.g[before]) ? 1u : 0u, 0};
}

// What follows from the order by groups and g.
struct RunNumbers {
  uint32_t* sequence;  // the order itself
  uint32_t* run;       // of each position: the number of its run
  uint32_t* group;     // of its group; null: not wanted
  Runs* totals;        // of the tiles
  Runs* bits;          // of the numbers
};

// Of each tile how many runs begin in it.
template <typename Value>
SURE_FAST_DEVICE void count_runs(const Rankings<Value>& r, const uint32_t* list, int64_t m, Runs* totals,
                                 ScanShared<Runs, kRankThreads>& shared) {
  for (int64_t tile = blockIdx.x; tile * kRunTile < m; tile += gridDim.x) {
    Runs own = {0, 0}, total;
    for (int64_t i = tile * kRunTile + threadIdx.x; i < (tile + 1) * kRunTile && i < m; i += kRankThreads) {
      own = own + begins_run(r, list, i);
    }
    block_exclusive<kRankThreads>(own, Runs{0, 0}, shared, total);
    if (threadIdx.x == 0) totals[tile] = total;
    __syncthreads();
  }
}

template <typename Value>
__global__ void __launch_bounds__(kRankThreads)
    number_runs(Rankings<Value> r, Sorted sorted, RunNumbers out, Gate gate) {
  SURE_FAST_SHARED(shared, ScanShared<Runs, kRankThreads>);
  constexpr int kEach = kRunTile / kRankThreads;
  const int64_t m = *r.length, tiles = (m + kRunTile - 1) / kRunTile;
  const uint32_t* list = sorted.list();
  count_runs(r, list, m, out.totals, shared);
  gate.meet();
  if (blockIdx.x == 0) scan_list(out.totals, tiles, Runs{0, 0}, shared);
  gate.meet();
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t first = tile * kRunTile + threadIdx.x * kEach;
    Runs begins[kEach], own = {0, 0}, total;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      begins[k] = first + k < m ? begins_run(r, list, first + k) : Runs{0, 0};
      own = own + begins[k];
    }
    Runs upto = out.totals[tile] + block_exclusive<kRankThreads>(own, Runs{0, 0}, shared, total);
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      upto = upto + begins[k];
      if (first + k >= m) continue;
      out.sequence[first + k] = list[first + k];
      out.run[first + k] = upto.runs - 1;
      if (out.group != nullptr) out.group[first + k] = upto.groups - 1;
    }
    __syncthreads();
  }
  if (blockIdx.x != 0 || threadIdx.x != 0) return;
  const Runs all = out.totals[tiles];
  *out.bits = {all.runs > 0 ? bits_of_number(all.runs - 1) : 0, all.groups > 0 ? bits_of_number(all.groups - 1) : 0};
}

// Rising groups, by the numbers that they have in the falling order, or by rows alone.
template <typename Value>
struct NumberedGroup {
  Rankings<Value> r;
  RunNumbers numbers;
  SURE_FAST_DEVICE_MEMBER uint32_t operator()(uint32_t x) const {
    if (numbers.group == nullptr) return r.row(numbers.sequence[x]);
    return ~numbers.group[x] & (~0u >> (31u - (numbers.bits->groups > 0 ? numbers.bits->groups - 1 : 0)));
  }
};

// The runs of g in the order by u, which is also written down as elements.
struct NumberedRun {
  RunNumbers numbers;
  Sorted by_u;
  uint32_t* order;
  SURE_FAST_DEVICE_MEMBER uint32_t operator()(uint32_t x) const { return numbers.run[by_u.list()[x]]; }
};

SURE_FAST_DEVICE void write_beside(const NumberedRun& fetch, uint32_t x) {
  fetch.order[x] = fetch.numbers.sequence[fetch.by_u.list()[x]];
}

// Memory of order_rankings. What follows `lent` in the arena is free when the elements are ordered.
template <typename Value>
struct RankingMemory {
  SortBuffers<typename KeyOf<Value>::type> values;
  SortBuffers<uint32_t> numbers, last;  // the same memory for keys of 32 bits; that of the last sort
  uint32_t* order;
  RunNumbers runs;
  Arena lent;
  LabelMemory labels;

  // compaction: of the elements, whose list makes room
  RankingMemory(Arena& arena, const Compaction& compaction, int64_t capacity, int64_t blocks, bool with_labels)
      : order(arena.take<uint32_t>(capacity)), lent(nullptr), labels(arena, with_labels) {
    last.payload[0] = arena.take<uint32_t>(capacity);
    last.payload[1] = compaction.list;
    runs.bits = arena.take<Runs>(1);
    lent = arena;
    runs.sequence = arena.take<uint32_t>(capacity);
    values.payload[0] = compaction.list;
    values.payload[1] = arena.take<uint32_t>(capacity);
    runs.run = arena.take<uint32_t>(capacity);
    runs.group = with_labels ? order : nullptr;  // which is not in use before the last sort
    runs.totals = arena.take<Runs>(ceil_div<int64_t>(capacity, kRunTile) + 1);
    for (int i = 0; i < 2; ++i) values.keys[i] = arena.take<typename KeyOf<Value>::type>(capacity);
    values.counts = values.take_counts(arena, blocks);
    values.gate = compaction.gate;
    numbers = SortBuffers<uint32_t>(values);
    for (int i = 0; i < 2; ++i) last.keys[i] = numbers.keys[i];
    last.counts = values.counts;
    last.gate = values.gate;
  }
};

// The elements of the list, which is used up: memory.order has them by rising row and label, rising u, falling g;
// memory.runs.sequence by falling row and label, rising g. Returns which position of the first order comes at each
// position of the order by falling row and label, rising g, falling u.
template <typename Value>
Sorted order_rankings(const Stream& stream, const RankingMemory<Value>& memory, const Rankings<Value>& listed) {
  Rankings<Value> r = listed;
  r.list = nullptr;  // elements are indices of the maps from here on
  constexpr int kBits = 8 * static_cast<int>(sizeof(Value));
  const bool labels = r.label.data != nullptr;
  const int64_t tiles = ceil_div<int64_t>(r.capacity, kRunTile);
  const ValueKey<Value> by_g = {r.g, r, nullptr}, by_u = {r.u, r, memory.runs.sequence};
  Sorted sorted = sort_by(stream, memory.values, Start::given, 0, by_g, kBits, nullptr, r.capacity, r.length);
  sorted = sort_groups(stream, memory.numbers, Start::given, sorted.half(), r, memory.labels, true);
  launch_together(stream, "number_runs", tiles, kRankThreads, number_runs<Value>, r, sorted, memory.runs,
                  memory.values.gate);
  const int most = bits_needed(r.capacity), groups = group_bits(r) < most ? group_bits(r) : most;
  sorted = sort_by(stream, memory.values, Start::falling, 0, by_u, kBits, nullptr, r.capacity, r.length);
  if (groups > 0) {
    sorted = sort_by(stream, memory.numbers, Start::given, sorted.half(), NumberedGroup<Value>{r, memory.runs}, groups,
                     labels ? &memory.runs.bits->groups : nullptr, r.capacity, r.length);
  }
  return sort_by(stream, memory.last, Start::falling, 0, NumberedRun{memory.runs, sorted, memory.order}, most,
                 &memory.runs.bits->runs, r.capacity, r.length);
}

}  // namespace
}  // namespace sure_fast
