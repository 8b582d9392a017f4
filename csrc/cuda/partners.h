// Pairs counted by sorting. Elements stand in the order of one ranking; each has as its key its position in the order
// of the other, ties reversed in one of them: of two elements both rankings rise exactly when the earlier one has the
// smaller key. Keys are a permutation of 0 .. m - 1: from the highest bits on, groups of equal higher bits, which lie
// where they belong, are dealt by a digit of up to 6 bits. In that moment an element sees the smaller digits before it
// and the larger ones after it: those of other tiles from a scan of each tile's totals, those of its own tile bit by
// bit in shared memory, where the last ten bits are dealt too. Sums are exact integers modulo 2^64. Rows lie one after
// the other in both orders, which is how an element finds its own. Bytes an element and pass: 20 and twice the weight;
// without weights 12.
#pragma once

#include "cuda/block.h"
#include "cuda/sort.h"

namespace sure_fast {
namespace {

using Fixed = unsigned long long;  // a number in fixed point, two's complement

constexpr int kDealThreads = 256;
constexpr int kDealItems = 4;
constexpr int kDealBits = 10;
constexpr int kDealTile = 1 << kDealBits;
constexpr int kMostWidth = 6;  // bits of a digit
constexpr int kMostDigits = 1 << kMostWidth;
constexpr int kColumns = 8;  // totals of a digit are added up in so many places, which collide less
static_assert(kDealTile == kDealThreads * kDealItems, "a tile is dealt by one block");

// How many elements, and their weights.
struct Total {
  uint32_t number;
  Fixed weight;
};

SURE_FAST_DEVICE Total operator+(const Total& x, const Total& y) { return {x.number + y.number, x.weight + y.weight}; }
SURE_FAST_DEVICE Total operator-(const Total& x, const Total& y) { return {x.number - y.number, x.weight - y.weight}; }
SURE_FAST_DEVICE Total shift_up(const Total& x, int by) {
  return {__shfl_up_sync(kAllLanes, x.number, by), __shfl_up_sync(kAllLanes, x.weight, by)};
}

// For pairs that are only counted.
struct NoWeight {
  using Value = uint32_t;
  static constexpr bool kWeighted = false;
  SURE_FAST_DEVICE_MEMBER Fixed operator()(Value, int) const { return 0; }
};

// The digits between the bits of a tile and the highest of all, numbered from the lowest. Digit p is dealt from half
// ~p & 1 into p & 1, the bits of a tile from half 0. Of m elements only those count that start below the highest bit
// of m - 1.
struct DealDigit {
  int number, shift, width;
  SURE_FAST_DEVICE_MEMBER bool skipped(int64_t m) const { return m <= int64_t{1} << shift; }
  SURE_FAST_DEVICE_MEMBER bool first(int64_t m) const { return m <= int64_t{1} << (shift + width); }
  SURE_FAST_DEVICE_MEMBER int from() const { return ~number & 1; }
  SURE_FAST_DEVICE_MEMBER uint32_t of(uint32_t key) const { return key >> shift & ((1u << width) - 1u); }
};

struct DealDigits {
  int number, low, wider;  // how many; bits of the narrower ones, and how many have one more
  explicit DealDigits(int64_t capacity) {
    const int bits = bits_needed(capacity) > kDealBits ? bits_needed(capacity) - kDealBits : 0;
    number = ceil_div(bits, kMostWidth);
    low = number > 0 ? bits / number : 0;
    wider = number > 0 ? bits % number : 0;
  }
  SURE_FAST_COMMON_MEMBER DealDigit operator[](int p) const {
    return {p, kDealBits + p * low + (p < wider ? p : wider), low + (p < wider ? 1 : 0)};
  }
  // Of the widest digit.
  int64_t most_values() const { return number > 0 ? int64_t{1} << (low + (wider > 0 ? 1 : 0)) : 0; }
  // Where m elements stand before they are dealt.
  SURE_FAST_DEVICE_MEMBER int start(int64_t m) const {
    int dealt = 0;
    while (dealt < number && !(*this)[dealt].skipped(m)) ++dealt;
    return dealt & 1;
  }
};

// Elements in one half of the buffers, dealt into the other. Weigh: has Value, kWeighted and, called with a value and
// its row, the weight.
template <typename Weigh>
struct Dealing {
  uint32_t* key[2];
  typename Weigh::Value* weight[2];  // as values
  Fixed* slope[2];                   // sum over the partners j of (weight - weight_j)
  Total* totals;                     // [digits, tiles + 1]
  unsigned long long* pairs;         // of each row, every pair counted by both
  const uint32_t* length;
  const uint32_t* begins;  // where each row begins among the keys
  int64_t rows, tiles;     // tiles of the capacity
  Weigh weigh;

  // keys: two halves
  Dealing(Arena& arena, uint32_t* const (&keys)[2], int64_t capacity, int64_t rows_, const uint32_t* length_,
          const uint32_t* begins_, const Weigh& weigh_)
      : length(length_), begins(begins_), rows(rows_), tiles(ceil_div<int64_t>(capacity, kDealTile)), weigh(weigh_) {
    for (int i = 0; i < 2; ++i) key[i] = keys[i];
    for (int i = 0; i < 2; ++i) slope[i] = arena.take<Fixed>(Weigh::kWeighted ? capacity : 0);
    for (int i = 0; i < 2; ++i) {
      weight[i] = arena.take<typename Weigh::Value>(Weigh::kWeighted ? capacity : 0);
    }
    totals = arena.take<Total>(DealDigits(capacity).most_values() * (tiles + 1));
    pairs = arena.take<unsigned long long>(rows);
  }

  // Of a key, between two rows.
  SURE_FAST_DEVICE_MEMBER int row_of(uint32_t at, int low, int high) const {
    while (low < high) {
      const int middle = low + (high - low) / 2;
      if (begins[middle + 1] <= at) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
  SURE_FAST_DEVICE_MEMBER Fixed weight_at(int half, int64_t i, int row) const {
    return Weigh::kWeighted ? weigh(pick(weight, half)[i], row) : 0;
  }
};

// The rows of a tile: those of its last and its first element. The whole block calls it, `shared` has two.
template <typename Weigh>
SURE_FAST_DEVICE void find_tile_rows(const Dealing<Weigh>& d, int half, int64_t begin, int size, int* shared) {
  if (threadIdx.x < 2) {
    const int64_t at = begin + (threadIdx.x == 0 ? size - 1 : 0);
    shared[threadIdx.x] = d.row_of(pick(d.key, half)[at], 0, static_cast<int>(d.rows) - 1);
  }
  __syncthreads();
}

// What of a tile one block adds up: a number and a weight of 64 bits in two words a digit and column.
struct DigitShared {
  uint32_t number[kMostDigits][kColumns], lower[kMostDigits][kColumns], upper[kMostDigits][kColumns];
  int rows[2];
};

// Of each tile the totals of its digits.
template <typename Weigh>
SURE_FAST_DEVICE void add_digits(const Dealing<Weigh>& d, const DealDigit& digit, int64_t m, DigitShared& shared) {
  const int digits = 1 << digit.width, column = static_cast<int>(threadIdx.x) % kColumns;
  for (int64_t tile = blockIdx.x; tile * kDealTile < m; tile += gridDim.x) {
    const int64_t begin = tile * kDealTile;
    const int size = static_cast<int>(m - begin < kDealTile ? m - begin : kDealTile);
    for (int i = static_cast<int>(threadIdx.x); i < digits * kColumns; i += kDealThreads) {
      shared.number[i / kColumns][i % kColumns] = 0;
      shared.lower[i / kColumns][i % kColumns] = shared.upper[i / kColumns][i % kColumns] = 0;
    }
    find_tile_rows(d, digit.from(), begin, size, shared.rows);
    for (int i = static_cast<int>(threadIdx.x); i < size; i += kDealThreads) {
      const uint32_t key = pick(d.key, digit.from())[begin + i], own = digit.of(key);
      atomicAdd(&shared.number[own][column], 1u);
      if (!Weigh::kWeighted) continue;
      const Fixed weight = d.weight_at(digit.from(), begin + i, d.row_of(key, shared.rows[0], shared.rows[1]));
      const uint32_t lower = static_cast<uint32_t>(weight);
      const uint32_t before = atomicAdd(&shared.lower[own][column], lower);
      const uint32_t carry = before + lower < lower ? 1 : 0;
      atomicAdd(&shared.upper[own][column], static_cast<uint32_t>(weight >> 32) + carry);
    }
    __syncthreads();
    for (int q = static_cast<int>(threadIdx.x); q < digits; q += kDealThreads) {
      Total all = {0, 0};
      for (int c = 0; c < kColumns; ++c) {
        all = all + Total{shared.number[q][c], (static_cast<Fixed>(shared.upper[q][c]) << 32) + shared.lower[q][c]};
      }
      d.totals[q * (d.tiles + 1) + tile] = all;
    }
    __syncthreads();
  }
}

struct Element {
  uint32_t key, number;  // of partners
  Fixed weight, slope;
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
    return group.zeros + ones_before;
  }
  const Sums after = group - before;
  const uint32_t ones_after = size - group.zeros - ones_before;
  x.number += ones_after;
  if (kWeighted) x.slope += x.weight * ones_after - (after.weight - after.zero_weight);
  return before.zeros;
}

template <bool kWeighted>
struct DealShared {
  static constexpr int kWide = kWeighted ? kDealTile : 1;
  ScanShared<Sums, kDealThreads> scan;
  ScanShared<unsigned long long, kDealThreads> scan_pairs;
  int rows[2];
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

struct Group {
  int from, to;  // in the tile
};

// Deals the thread's elements into the halves of their groups by a bit, and takes those that then stand where they
// stood. group_of(key, i): the group of the i-th element.
template <bool kWeighted, typename GroupOf>
SURE_FAST_DEVICE void deal_in_tile(Element* x, int first, int size, int bit, const GroupOf& group_of,
                                   DealShared<kWeighted>& shared) {
#pragma unroll
  for (int k = 0; k < kDealItems; ++k) {
    const int i = first + k;
    if (i >= size) continue;
    const Group group = group_of(x[k].key, i);
    const Sums start = shared.upto(group.from);
    const uint32_t position =
        static_cast<uint32_t>(group.from) + meet<kWeighted>(x[k], bit, static_cast<uint32_t>(i - group.from),
                                                            static_cast<uint32_t>(group.to - group.from),
                                                            shared.upto(i) - start, shared.upto(group.to) - start);
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

// The thread's elements of a tile; their slopes are none where they were not dealt before. The whole block calls it.
template <typename Weigh>
SURE_FAST_DEVICE void load_tile(const Dealing<Weigh>& d, int half, bool dealt, int64_t begin, int first, int size,
                                DealShared<Weigh::kWeighted>& shared, Element* x) {
  find_tile_rows(d, half, begin, size, shared.rows);
#pragma unroll
  for (int k = 0; k < kDealItems; ++k) {
    x[k] = {0, 0, 0, 0};
    if (first + k >= size) continue;
    const int64_t i = begin + first + k;
    x[k].key = pick(d.key, half)[i];
    if (!Weigh::kWeighted) continue;
    x[k].weight = d.weight_at(half, i, d.row_of(x[k].key, shared.rows[0], shared.rows[1]));
    x[k].slope = dealt ? pick(d.slope, half)[i] : 0;
  }
}

// Adds the partners of the thread's elements to their rows. The whole block calls it.
template <typename Weigh>
SURE_FAST_DEVICE void add_pairs(const Dealing<Weigh>& d, const Element* x, int first, int size,
                                DealShared<Weigh::kWeighted>& shared) {
  const int low = shared.rows[0], high = shared.rows[1];
  unsigned long long own = 0, all;
#pragma unroll
  for (int k = 0; k < kDealItems; ++k) {
    if (first + k >= size || x[k].number == 0) continue;
    if (low == high) {
      own += x[k].number;
    } else {
      atomicAdd(&d.pairs[d.row_of(x[k].key, low, high)], static_cast<unsigned long long>(x[k].number));
    }
  }
  block_exclusive<kDealThreads>(own, 0ull, shared.scan_pairs, all);
  if (threadIdx.x == 0 && all > 0) atomicAdd(&d.pairs[low], all);
}

// Of each digit of a tile: where its elements begin in the tile and how much further they go, and the partners that
// they have in other tiles of their group.
struct DigitPlaces {
  ScanShared<Total, kDealThreads> before, after;
  int begin[kMostDigits + 1];
  uint32_t ahead[kMostDigits];
  Total partners[kMostDigits];
};

// One thread a digit; the whole block calls it.
template <typename Weigh>
SURE_FAST_DEVICE void find_places(const Dealing<Weigh>& d, const DealDigit& digit, int64_t tile, DigitPlaces& places) {
  const int q = static_cast<int>(threadIdx.x), digits = 1 << digit.width;
  const int64_t tiles = (static_cast<int64_t>(*d.length) + kDealTile - 1) / kDealTile;
  const int group_bits = digit.shift + digit.width - kDealBits;  // of the tiles of a group
  const int64_t from = tile >> group_bits << group_bits, end = from + (int64_t{1} << group_bits);
  const int64_t to = end < tiles ? end : tiles;
  Total here = {0, 0}, earlier = {0, 0}, later = {0, 0};
  if (q < digits) {
    const Total* upto = d.totals + q * (d.tiles + 1);
    here = {upto[tile + 1].number - upto[tile].number, 0};
    earlier = upto[tile] - upto[from];
    later = upto[to] - upto[tile + 1];
  }
  Total all_here, all_earlier, all_later;
  const Total begin = block_exclusive<kDealThreads>(here, Total{0, 0}, places.before, all_here);
  const Total smaller = block_exclusive<kDealThreads>(earlier, Total{0, 0}, places.after, all_earlier);
  __syncthreads();
  const Total not_larger = block_exclusive<kDealThreads>(later, Total{0, 0}, places.before, all_later) + later;
  if (q < digits) {
    places.begin[q] = static_cast<int>(begin.number);
    places.ahead[q] = static_cast<uint32_t>(from * kDealTile) + (static_cast<uint32_t>(q) << digit.shift) +
                      earlier.number - begin.number;
    places.partners[q] = smaller + (all_later - not_larger);
  }
  if (q == 0) places.begin[digits] = static_cast<int>(all_here.number);
  __syncthreads();
}

constexpr int kInTileBits = 16;  // of an element's number: its partners in the tile; above them where it stood
static_assert(kDealTile <= 1 << kInTileBits, "partners in the tile are counted in 16 bits");

// Brings the elements of a sorted tile to where their digits go.
template <typename Weigh>
SURE_FAST_DEVICE void store_dealt(const Dealing<Weigh>& d, const DealDigit& digit, bool dealt, int64_t begin, int first,
                                  int size, const DigitPlaces& places, Element* x) {
#pragma unroll
  for (int k = 0; k < kDealItems; ++k) {
    if (first + k >= size) continue;
    const uint32_t own = digit.of(x[k].key), stood = x[k].number >> kInTileBits;
    const Total partners = places.partners[own];
    const uint32_t to = places.ahead[own] + static_cast<uint32_t>(first + k);
    x[k].number = (x[k].number & ((1u << kInTileBits) - 1u)) + partners.number;
    pick(d.key, digit.number & 1)[to] = x[k].key;
    if (!Weigh::kWeighted) continue;
    const Fixed before = dealt ? pick(d.slope, digit.from())[begin + stood] : 0;
    pick(d.slope, digit.number & 1)[to] = before + x[k].slope + x[k].weight * partners.number - partners.weight;
    pick(d.weight, digit.number & 1)[to] = pick(d.weight, digit.from())[begin + stood];
  }
}

// By one digit: the tiles of whole groups, whose totals were scanned.
template <typename Weigh>
SURE_FAST_DEVICE void deal_digit(const Dealing<Weigh>& d, const DealDigit& digit, int64_t m,
                                 DealShared<Weigh::kWeighted>& shared, DigitPlaces& places) {
  const int first = static_cast<int>(threadIdx.x) * kDealItems;
  for (int64_t tile = blockIdx.x; tile * kDealTile < m; tile += gridDim.x) {
    const int64_t begin = tile * kDealTile;
    const int size = static_cast<int>(m - begin < kDealTile ? m - begin : kDealTile);
    find_places(d, digit, tile, places);
    Element x[kDealItems];
    load_tile(d, digit.from(), false, begin, first, size, shared, x);
#pragma unroll
    for (int k = 0; k < kDealItems; ++k) x[k].number = static_cast<uint32_t>(first + k) << kInTileBits;
#pragma unroll 1  // of the bits: more would take more registers
    for (int bit = digit.shift + digit.width - 1; bit >= digit.shift; --bit) {
      const int high = bit + 1 - digit.shift;
      const auto group_of = [&](uint32_t key, int) {
        const int* begins = places.begin + (digit.of(key) >> high << high);
        return Group{begins[0], begins[1 << high]};
      };
      scan_tile(x, first, size, bit, shared);
      deal_in_tile(x, first, size, bit, group_of, shared);
    }
    store_dealt(d, digit, !digit.first(m), begin, first, size, places, x);
    add_pairs(d, x, first, size, shared);
    __syncthreads();
  }
}

// The bits below kDealBits, each tile by itself; leaves the slope of the element of key p at position p of half 1.
template <typename Weigh>
SURE_FAST_DEVICE void deal_tiles(const Dealing<Weigh>& d, int64_t m, DealShared<Weigh::kWeighted>& shared) {
  const int first = static_cast<int>(threadIdx.x) * kDealItems;
  for (int64_t tile = blockIdx.x; tile * kDealTile < m; tile += gridDim.x) {
    const int64_t begin = tile * kDealTile;
    const int size = static_cast<int>(m - begin < kDealTile ? m - begin : kDealTile);
    Element x[kDealItems];
    load_tile(d, 0, m > kDealTile, begin, first, size, shared, x);
#pragma unroll 1
    for (int bit = kDealBits - 1; bit >= 0; --bit) {
      const auto group_of = [&](uint32_t, int i) {
        const int from = i >> (bit + 1) << (bit + 1), to = from + (2 << bit);
        return Group{from, to < size ? to : size};
      };
      scan_tile(x, first, size, bit, shared);
      deal_in_tile(x, first, size, bit, group_of, shared);
    }
    add_pairs(d, x, first, size, shared);
#pragma unroll
    for (int k = 0; k < kDealItems; ++k) {
      if (Weigh::kWeighted && first + k < size) d.slope[1][begin + first + k] = x[k].slope;
    }
    __syncthreads();
  }
}

template <bool kWeighted>
union PassShared {
  DigitShared digits;
  ScanShared<Total, kDealThreads> scan;
  struct {
    DealShared<kWeighted> elements;
    DigitPlaces places;
  } tile;
};

template <typename Weigh>
__global__ void __launch_bounds__(kDealThreads, Weigh::kWeighted ? 3 : 2)
    deal_all(Dealing<Weigh> d, DealDigits digits, Gate gate) {
  SURE_FAST_SHARED(shared, PassShared<Weigh::kWeighted>);
  const int64_t m = *d.length;
#pragma unroll 1
  for (int p = digits.number - 1; p >= 0; --p) {
    const DealDigit digit = digits[p];
    if (digit.skipped(m)) continue;
    add_digits(d, digit, m, shared.digits);
    gate.meet();
    for (int64_t q = blockIdx.x; q < int64_t{1} << digit.width; q += gridDim.x) {
      scan_list(d.totals + q * (d.tiles + 1), (m + kDealTile - 1) / kDealTile, Total{0, 0}, shared.scan);
    }
    gate.meet();
    deal_digit(d, digit, m, shared.tile.elements, shared.tile.places);
    gate.meet();
  }
  deal_tiles(d, m, shared.tile.elements);
}

// Deals elements that stand in half DealDigits(capacity).start(*length), as many as they are; d.pairs is cleared. The
// slope of the element of key p is then d.slope[1][p].
template <typename Weigh>
void deal(const Stream& stream, const Dealing<Weigh>& d, int64_t capacity, const Gate& gate) {
  launch_together(stream, "deal_all", d.tiles, kDealThreads, deal_all<Weigh>, d, DealDigits(capacity), gate);
}

}  // namespace
}  // namespace sure_fast
