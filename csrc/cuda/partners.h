// Pairs counted by sorting. Elements stand in the order of rising u (falling g where u is equal); each has as its key
// its position in the order of rising g (falling u where g is equal). Of two elements both of u and g rise exactly when
// the earlier one has the smaller key. Keys are a permutation of 0 .. m - 1: from the highest bit on, groups of
// 2^(b + 1) equal higher bits, which lie where they belong, are dealt into their halves, zeros before ones. In that
// moment a one sees the zeros before it, a zero the ones after it: a scan of each tile, one of the tiles' totals, and
// differences of it. The last ten bits are dealt in shared memory. Sums are exact integers modulo 2^64.
#pragma once

#include "cuda/block.h"

namespace sure_fast {
namespace {

using Fixed = unsigned long long;  // a number in fixed point, two's complement

constexpr int kDealThreads = 256;
constexpr int kDealItems = 4;
constexpr int kDealBits = 10;
constexpr int kDealTile = 1 << kDealBits;
static_assert(kDealTile == kDealThreads * kDealItems, "a tile is dealt by one block");

// Elements in one half of the buffers, dealt into the other. Weighted: with sums; else each pair is counted once, by
// its later element.
template <bool kWeighted>
struct Dealing {
  uint32_t* key[2];
  uint32_t* number[2];  // of partners counted
  Fixed* weight[2];     // g
  Fixed* slope[2];      // sum over the partners j of (g - g_j)

  Dealing(Arena& arena, int64_t capacity) {
    for (int i = 0; i < 2; ++i) key[i] = arena.take<uint32_t>(capacity);
    for (int i = 0; i < 2; ++i) number[i] = arena.take<uint32_t>(capacity);
    for (int i = 0; i < 2; ++i) weight[i] = arena.take<Fixed>(kWeighted ? capacity : 0);
    for (int i = 0; i < 2; ++i) slope[i] = arena.take<Fixed>(kWeighted ? capacity : 0);
  }
};

// Of elements in a row: how many have bit 0, their weights, all weights.
struct Sums {
  uint32_t zeros;
  Fixed zero_weight, weight;
};

SURE_FAST_DEVICE Sums operator+(const Sums& x, const Sums& y) {
  return {x.zeros + y.zeros, x.zero_weight + y.zero_weight, x.weight + y.weight};
}

SURE_FAST_DEVICE Sums operator-(const Sums& x, const Sums& y) {
  return {x.zeros - y.zeros, x.zero_weight - y.zero_weight, x.weight - y.weight};
}

SURE_FAST_DEVICE Sums shift_up(const Sums& x, int by) {
  return {__shfl_up_sync(kAllLanes, x.zeros, by), __shfl_up_sync(kAllLanes, x.zero_weight, by),
          __shfl_up_sync(kAllLanes, x.weight, by)};
}

struct Element {
  uint32_t key, number;
  Fixed weight, slope;
};

SURE_FAST_DEVICE Sums sums_of(const Element& x, int bit) {
  const bool zero = (x.key >> bit & 1u) == 0;
  return {zero ? 1u : 0u, zero ? x.weight : 0, x.weight};
}

// Partners of an element, the `at`-th of its group, as its group is dealt: `before` sums what precedes it in the
// group, `group` all `size` of it. Returns where in the group it goes.
template <bool kWeighted>
SURE_FAST_DEVICE uint32_t meet(Element& x, int bit, uint32_t at, uint32_t size, const Sums& before, const Sums& group) {
  const uint32_t ones_before = at - before.zeros;
  if ((x.key >> bit & 1u) != 0) {
    x.number += before.zeros;
    if (kWeighted) x.slope += x.weight * before.zeros - before.zero_weight;
    return (1u << bit) + ones_before;
  }
  if (kWeighted) {
    const Sums after = group - before;
    const uint32_t ones_after = size - group.zeros - ones_before;
    x.number += ones_after;
    x.slope += x.weight * ones_after - (after.weight - after.zero_weight);
  }
  return before.zeros;
}

// One of two pointers, without indexing an array of the kernel's arguments.
template <typename T>
SURE_FAST_DEVICE T* pick(T* const (&pointers)[2], int half) {
  return half != 0 ? pointers[1] : pointers[0];
}

template <bool kWeighted>
SURE_FAST_DEVICE Element load(const Dealing<kWeighted>& d, int half, int64_t i) {
  return {pick(d.key, half)[i], pick(d.number, half)[i], kWeighted ? pick(d.weight, half)[i] : 0,
          kWeighted ? pick(d.slope, half)[i] : 0};
}

template <bool kWeighted>
SURE_FAST_DEVICE void store(const Dealing<kWeighted>& d, int half, int64_t i, const Element& x) {
  pick(d.key, half)[i] = x.key;
  pick(d.number, half)[i] = x.number;
  if (kWeighted) {
    pick(d.weight, half)[i] = x.weight;
    pick(d.slope, half)[i] = x.slope;
  }
}

// The highest bit that m keys are dealt by, in tiles; kDealBits - 1 where shared memory does it all. The elements start
// in half (top & 1), as bit b is dealt from half (b & 1) into the other.
SURE_FAST_DEVICE int top_bit(int64_t m) {
  int top = kDealBits - 1;
  while ((int64_t{2} << top) < m) ++top;
  return top;
}

template <bool kWeighted>
__global__ void __launch_bounds__(kDealThreads)
    deal_totals(Dealing<kWeighted> d, const uint32_t* length, int bit, Sums* totals) {
  __shared__ ScanShared<Sums, kDealThreads> shared;
  const int64_t m = *length;
  if (bit > top_bit(m)) return;
  for (int64_t tile = blockIdx.x; tile * kDealTile < m; tile += gridDim.x) {
    Sums own = {0, 0, 0};
    for (int k = 0; k < kDealItems; ++k) {
      const int64_t i = tile * kDealTile + k * kDealThreads + threadIdx.x;
      if (i >= m) continue;
      const Fixed weight = kWeighted ? pick(d.weight, bit & 1)[i] : 0;
      own = own + sums_of({pick(d.key, bit & 1)[i], 0, weight, 0}, bit);
    }
    Sums total;
    block_exclusive<kDealThreads>(own, Sums{0, 0, 0}, shared, total);
    if (threadIdx.x == 0) totals[tile] = total;
    __syncthreads();
  }
}

template <bool kWeighted>
__global__ void __launch_bounds__(kDealThreads)
    deal_bit(Dealing<kWeighted> d, const uint32_t* length, int bit, const Sums* totals) {
  __shared__ ScanShared<Sums, kDealThreads> shared;
  const int64_t m = *length;
  if (bit > top_bit(m)) return;
  const int64_t tiles = (m + kDealTile - 1) / kDealTile, group_tiles = int64_t{2} << (bit - kDealBits);
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t first = tile * kDealTile + threadIdx.x * kDealItems;
    Element x[kDealItems];
    Sums own = {0, 0, 0};
#pragma unroll
    for (int k = 0; k < kDealItems; ++k) {
      if (first + k >= m) continue;
      x[k] = load(d, bit & 1, first + k);
      own = own + sums_of(x[k], bit);
    }
    Sums total;
    Sums before = block_exclusive<kDealThreads>(own, Sums{0, 0, 0}, shared, total);
    const int64_t from = tile / group_tiles * group_tiles, to = from + group_tiles < tiles ? from + group_tiles : tiles;
    const int64_t begin = from * kDealTile, end = to * kDealTile < m ? to * kDealTile : m;
    const Sums group = totals[to] - totals[from];
    before = before + (totals[tile] - totals[from]);
#pragma unroll
    for (int k = 0; k < kDealItems; ++k) {
      if (first + k >= m) continue;
      const Sums mine = sums_of(x[k], bit);
      const uint32_t position = meet<kWeighted>(x[k], bit, static_cast<uint32_t>(first + k - begin),
                                                static_cast<uint32_t>(end - begin), before, group);
      store(d, ~bit & 1, begin + position, x[k]);
      before = before + mine;
    }
    __syncthreads();
  }
}

template <bool kWeighted>
struct DealShared {
  static constexpr int kWide = kWeighted ? kDealTile : 1;
  ScanShared<Sums, kDealThreads> scan;
  uint32_t key[kDealTile], number[kDealTile], zeros[kDealTile + 1];
  Fixed weight[kWide], slope[kWide], zero_weight[kWide + 1], all_weight[kWide + 1];

  // The sums over the elements of the tile before the i-th.
  SURE_FAST_DEVICE_MEMBER Sums upto(int i) const {
    return {zeros[i], kWeighted ? zero_weight[i] : 0, kWeighted ? all_weight[i] : 0};
  }
};

// Writes what `upto` reads. The whole block calls it; x are the thread's elements, from the `first`-th of the tile on.
template <bool kWeighted>
SURE_FAST_DEVICE void scan_tile(const Element* x, int first, int size, int bit, DealShared<kWeighted>& shared) {
  Sums own = {0, 0, 0};
#pragma unroll
  for (int k = 0; k < kDealItems; ++k) {
    if (first + k < size) own = own + sums_of(x[k], bit);
  }
  Sums total;
  Sums before = block_exclusive<kDealThreads>(own, Sums{0, 0, 0}, shared.scan, total);
#pragma unroll
  for (int k = 0; k <= kDealItems; ++k) {
    if (k == kDealItems && threadIdx.x != kDealThreads - 1) continue;  // the last thread writes the total too
    shared.zeros[first + k] = before.zeros;
    if (kWeighted) {
      shared.zero_weight[first + k] = before.zero_weight;
      shared.all_weight[first + k] = before.weight;
    }
    if (k < kDealItems && first + k < size) before = before + sums_of(x[k], bit);
  }
  __syncthreads();
}

// Deals the thread's elements into their halves by a bit, and takes those that then stand where they stood.
template <bool kWeighted>
SURE_FAST_DEVICE void deal_in_tile(Element* x, int first, int size, int bit, DealShared<kWeighted>& shared) {
#pragma unroll
  for (int k = 0; k < kDealItems; ++k) {
    const int i = first + k, from = i >> (bit + 1) << (bit + 1);
    if (i >= size) continue;
    const int to = from + (2 << bit) < size ? from + (2 << bit) : size;
    const Sums start = shared.upto(from);
    const uint32_t position =
        static_cast<uint32_t>(from) + meet<kWeighted>(x[k], bit, static_cast<uint32_t>(i - from),
                                                      static_cast<uint32_t>(to - from), shared.upto(i) - start,
                                                      shared.upto(to) - start);
    shared.key[position] = x[k].key;
    shared.number[position] = x[k].number;
    if (kWeighted) {
      shared.weight[position] = x[k].weight;
      shared.slope[position] = x[k].slope;
    }
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kDealItems; ++k) {
    const int i = first + k;
    if (i >= size) continue;
    x[k] = {shared.key[i], shared.number[i], kWeighted ? shared.weight[i] : 0, kWeighted ? shared.slope[i] : 0};
  }
}

// The bits below kDealBits, each tile by itself; leaves number and slope of the element of key p at position p of
// half 0.
template <bool kWeighted>
__global__ void __launch_bounds__(kDealThreads) deal_tile(Dealing<kWeighted> d, const uint32_t* length) {
  __shared__ DealShared<kWeighted> shared;
  const int64_t m = *length;
  for (int64_t tile = blockIdx.x; tile * kDealTile < m; tile += gridDim.x) {
    const int64_t begin = tile * kDealTile;
    const int size = static_cast<int>(m - begin < kDealTile ? m - begin : kDealTile);
    const int first = static_cast<int>(threadIdx.x) * kDealItems;
    Element x[kDealItems];
#pragma unroll
    for (int k = 0; k < kDealItems; ++k) {
      x[k] = first + k < size ? load(d, (kDealBits - 1) & 1, begin + first + k) : Element{0, 0, 0, 0};
    }
#pragma unroll 1  // of the bits: more would take more registers
    for (int bit = kDealBits - 1; bit >= 0; --bit) {
      scan_tile(x, first, size, bit, shared);
      deal_in_tile(x, first, size, bit, shared);
    }
#pragma unroll
    for (int k = 0; k < kDealItems; ++k) {
      if (first + k >= size) continue;
      d.number[0][begin + first + k] = x[k].number;
      if (kWeighted) d.slope[0][begin + first + k] = x[k].slope;
    }
    __syncthreads();
  }
}

inline int64_t deal_tiles(int64_t capacity) { return ceil_div<int64_t>(capacity, kDealTile); }

// Deals elements that stand in half (top_bit(*length) & 1); totals has deal_tiles(capacity) + 1. Number and slope of
// the element of key p are then d.number[0][p], d.slope[0][p].
template <bool kWeighted>
void deal(const Stream& stream, const Dealing<kWeighted>& d, Sums* totals, int64_t capacity, const uint32_t* length) {
  const int64_t blocks = fill(stream, deal_tiles(capacity));
  int bit = kDealBits - 1;
  while ((int64_t{2} << bit) < capacity) ++bit;
  for (; bit >= kDealBits; --bit) {
    launch(stream, "deal_totals", blocks, kDealThreads, deal_totals<kWeighted>, d, length, bit, totals);
    launch(stream, "scan_totals", 1, kScanThreads, scan_totals<Sums>, totals, length, int64_t{0}, kDealTile,
           Sums{0, 0, 0});
    launch(stream, "deal_bit", blocks, kDealThreads, deal_bit<kWeighted>, d, length, bit, totals);
  }
  launch(stream, "deal_tile", blocks, kDealThreads, deal_tile<kWeighted>, d, length);
}

}  // namespace
}  // namespace sure_fast
