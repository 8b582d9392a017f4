// Stable radix sort of a list whose length only the device knows: digits of up to 11 bits, all passes in one grid whose
// blocks wait for each other (grid.h). Each block takes a slice of the list, counts its digits, and after the counts
// were scanned moves its elements tile by tile. The first count also fetches the keys, the last move leaves them
// behind. Equal digits of a warp find each other by match_any, so that ranks need no atomics. How many bits the keys
// have may be known to the device alone: it leaves out the passes beyond them. Bytes an element: 4 + key in a count,
// twice that in a move.
#pragma once

#include "cuda/block.h"
#include "cuda/grid.h"

namespace sure_fast {
namespace {

constexpr int kSortThreads = 256;
constexpr int kSortRounds = 12;  // elements a thread moves in one tile: as many as leave registers for three blocks
constexpr int kSortTile = kSortThreads * kSortRounds;
constexpr int kSortWarps = kSortThreads / kWarp;
constexpr int kDigitBits = 11;  // counters of a tile fill shared memory
constexpr int kDigits = 1 << kDigitBits;
static_assert(kSortTile < 1 << 16, "counters of a tile have 16 bits");

// Keys and payload of a pass, read from one half and written to the other.
template <typename Key>
struct SortBuffers {
  Key* keys[2];
  uint32_t* payload[2];
  uint32_t* counts;  // [digits, blocks], then [digits] totals
  Gate gate;

  SortBuffers() = default;
  SortBuffers(Arena& arena, int64_t capacity, int64_t blocks, const Gate& open) : gate(open) {
    for (int i = 0; i < 2; ++i) keys[i] = arena.take<Key>(capacity);
    for (int i = 0; i < 2; ++i) payload[i] = arena.take<uint32_t>(capacity);
    counts = take_counts(arena, blocks);
  }

  // The same memory for keys that are no longer.
  template <typename Wider>
  explicit SortBuffers(const SortBuffers<Wider>& s) : counts(s.counts), gate(s.gate) {
    for (int i = 0; i < 2; ++i) {
      keys[i] = reinterpret_cast<Key*>(s.keys[i]);
      payload[i] = s.payload[i];
    }
  }

  static uint32_t* take_counts(Arena& arena, int64_t blocks) { return arena.take<uint32_t>(kDigits * (blocks + 1)); }
};

inline int64_t sort_blocks(const Stream& stream, int64_t capacity) {
  return fill(stream, ceil_div<int64_t>(capacity, kSortTile), 3);  // what a multiprocessor holds at once
}

inline int bits_needed(int64_t values) {
  int bits = 0;
  while ((int64_t{1} << bits) < values) ++bits;
  return bits;
}

// One of two pointers, without indexing an array of the kernel's arguments.
template <typename T>
SURE_FAST_DEVICE T* pick(T* const (&pointers)[2], int half) {
  return half != 0 ? pointers[1] : pointers[0];
}

// By which bits of the keys a pass sorts.
struct Digit {
  int shift, width;

  SURE_FAST_DEVICE_MEMBER int values() const { return 1 << width; }
  template <typename Key>
  SURE_FAST_DEVICE_MEMBER uint32_t of(Key key) const {
    return static_cast<uint32_t>(key >> shift) & ((1u << width) - 1u);
  }
};

// A sorted list, in one of two places: in which may depend on the number of bits that the device knows.
struct Sorted {
  uint32_t* payload[2];
  int start, width, passes;
  const uint32_t* bits;  // of the keys, on the device; null: there are no fewer than passes

  // How many passes there are.
  SURE_FAST_DEVICE_MEMBER int done() const {
    int needed = bits == nullptr ? passes : 1;  // the first one fetches
    while (needed < passes && static_cast<uint32_t>(needed * width) < *bits) ++needed;
    return needed;
  }
  SURE_FAST_DEVICE_MEMBER const uint32_t* list() const { return pick(payload, (start + done()) & 1); }
  // Where the host knows it.
  SURE_FAST_COMMON_MEMBER int half() const { return (start + passes) & 1; }
};

struct Slice {
  int64_t first, last;
};

SURE_FAST_DEVICE Slice own_slice(int64_t length) {
  const int64_t tiles = (length + kSortTile - 1) / kSortTile;
  const int64_t each = (tiles + gridDim.x - 1) / gridDim.x * kSortTile;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * each;
  return {first < length ? first : length, first + each < length ? first + each : length};
}

SURE_FAST_DEVICE void clear_digits(uint32_t* number, const Digit& digit) {
  for (int d = static_cast<int>(threadIdx.x); d < digit.values(); d += kSortThreads) number[d] = 0;
  __syncthreads();
}

SURE_FAST_DEVICE void store_digits(const uint32_t* number, const Digit& digit, uint32_t* counts) {
  __syncthreads();
  for (int d = static_cast<int>(threadIdx.x); d < digit.values(); d += kSortThreads) {
    counts[static_cast<int64_t>(d) * gridDim.x + blockIdx.x] = number[d];
  }
}

enum class Start { given, rising, falling };  // from the payload as it stands, from 0 .. n - 1, from n - 1 .. 0

constexpr int kFetched = 4;  // elements a thread waits for together

// What a fetch also writes down of an element; most write nothing.
template <typename Fetch>
SURE_FAST_DEVICE void write_beside(const Fetch&, uint32_t) {}

// Counts the first digit of a slice; keys and, where it is not given, the payload are written in passing.
template <typename Key, typename Fetch>
SURE_FAST_DEVICE void fetch_and_count(const Fetch& fetch, const Digit& digit, Start start, const Slice& slice,
                                      int64_t n, uint32_t* payload, Key* keys, uint32_t* number) {
  for (int64_t first = slice.first + threadIdx.x; first < slice.last; first += kFetched * kSortThreads) {
    uint32_t x[kFetched];
    Key key[kFetched];
#pragma unroll
    for (int k = 0; k < kFetched; ++k) {
      const int64_t i = first + k * kSortThreads < slice.last ? first + k * kSortThreads : first;
      x[k] = start == Start::given ? payload[i] : static_cast<uint32_t>(start == Start::rising ? i : n - 1 - i);
    }
#pragma unroll
    for (int k = 0; k < kFetched; ++k) key[k] = static_cast<Key>(fetch(x[k]));
#pragma unroll
    for (int k = 0; k < kFetched; ++k) {
      const int64_t i = first + k * kSortThreads;
      if (i >= slice.last) continue;
      if (start != Start::given) payload[i] = x[k];
      keys[i] = key[k];
      write_beside(fetch, x[k]);
      atomicAdd(&number[digit.of(key[k])], 1u);
    }
  }
}

template <typename Key>
SURE_FAST_DEVICE void count_digits(const Key* keys, const Digit& digit, const Slice& slice, uint32_t* number) {
#pragma unroll 8
  for (int64_t i = slice.first + threadIdx.x; i < slice.last; i += kSortThreads) {
    atomicAdd(&number[digit.of(keys[i])], 1u);
  }
}

// A warp a digit: its counts of all blocks become what lies before each.
SURE_FAST_DEVICE void scan_digits(uint32_t* counts, const Digit& digit) {
  const int64_t blocks = gridDim.x;
  for (int64_t d = blockIdx.x * kSortWarps + warp_index(); d < digit.values(); d += blocks * kSortWarps) {
    uint32_t* own = counts + d * blocks;
    uint32_t carry = 0;
    for (int64_t first = 0; first < blocks; first += kWarp) {
      const int64_t i = first + lane_index();
      const uint32_t count = i < blocks ? own[i] : 0;
      const uint32_t upto = warp_inclusive(count);
      if (i < blocks) own[i] = carry + upto - count;
      carry += __shfl_sync(kAllLanes, upto, kWarp - 1);
    }
    if (lane_index() == 0) counts[digit.values() * blocks + d] = carry;
  }
}

struct MoveShared {
  ScanShared<uint32_t, kSortThreads> scan;
  uint32_t next[kDigits];  // where the block's next element of a digit goes
  union {
    uint16_t ahead[kSortWarps][kDigits];      // of the tile, in the warp so far; then in the warps before
    uint32_t pairs[kSortWarps][kDigits / 2];  // the same, two counters at once
  };
};
constexpr int kPairsEach = kDigits / 2 / kSortThreads;  // pairs of digits a thread adds up
constexpr int kRankPairs = kSortRounds / 2;             // ranks are of 16 bits: two share a register

// next: from numbers of the digits to where each begins. The whole block calls it.
SURE_FAST_DEVICE void begin_digits(MoveShared& shared, const Digit& digit) {
  const int each = (digit.values() + kSortThreads - 1) / kSortThreads, first = static_cast<int>(threadIdx.x) * each;
  uint32_t own = 0, all;
  for (int d = first; d < first + each && d < digit.values(); ++d) own += shared.next[d];
  uint32_t before = block_exclusive<kSortThreads>(own, 0u, shared.scan, all);
  for (int d = first; d < first + each && d < digit.values(); ++d) {
    const uint32_t here = shared.next[d];
    shared.next[d] = before;
    before += here;
  }
  __syncthreads();
}

// Of each element of a tile that the thread moves: how many of the warp with its digit lie before it. The elements are
// kWarp apart; `left`: how far it is from the first to the end.
template <typename Key>
SURE_FAST_DEVICE void rank_in_warp(const Key* key, int left, const Digit& digit, uint16_t* ahead, uint32_t* rank) {
  const int lane = lane_index();
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    const bool real = round * kWarp < left;
    const uint32_t own = real ? digit.of(key[round]) : kDigits;
    const unsigned same = __match_any_sync(kAllLanes, own);
    const uint32_t before = real ? ahead[own] : 0;
    const uint32_t here = before + static_cast<uint32_t>(__popc(same & lanes_before(lane)));
    rank[round / 2] = round % 2 == 0 ? here : rank[round / 2] | here << 16;
    __syncwarp();
    if (real && (same & lanes_before(lane)) == 0) {
      ahead[own] = static_cast<uint16_t>(before + static_cast<uint32_t>(__popc(same)));
    }
    __syncwarp();
  }
}

// Counters of the warps become what lies in the warps before; `sum`: the tile's numbers of the thread's pairs of
// digits.
SURE_FAST_DEVICE void add_warps(MoveShared& shared, const Digit& digit, uint32_t* sum) {
#pragma unroll
  for (int k = 0; k < kPairsEach; ++k) {
    const int pair = k * kSortThreads + static_cast<int>(threadIdx.x);
    sum[k] = 0;
    if (pair >= digit.values() / 2) continue;
    for (int w = 0; w < kSortWarps; ++w) {
      const uint32_t here = shared.pairs[w][pair];
      shared.pairs[w][pair] = sum[k];
      sum[k] += here;
    }
  }
}

// Writes the elements of a tile that the thread moves.
template <typename Key>
SURE_FAST_DEVICE void write_moved(const Key* key, const uint32_t* rank, const uint32_t* payload, int left,
                                  const Digit& digit, const MoveShared& shared, Key* out_keys, uint32_t* out_payload) {
  constexpr int kAtOnce = 4;  // loads before the stores, which they could not pass
#pragma unroll
  for (int part = 0; part < kSortRounds; part += kAtOnce) {
    uint32_t x[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) x[k] = (part + k) * kWarp < left ? payload[(part + k) * kWarp] : 0;
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      if ((part + k) * kWarp >= left) continue;
      const uint32_t own = digit.of(key[part + k]);
      const uint32_t to = shared.next[own] + shared.ahead[warp_index()][own] +
                          (rank[(part + k) / 2] >> ((part + k) % 2 * 16) & 0xFFFFu);
      if (out_keys != nullptr) out_keys[to] = key[part + k];
      out_payload[to] = x[k];
    }
  }
}

// Moves a slice, whose digits go where shared.next says. The whole block calls it.
template <typename Key>
SURE_FAST_DEVICE void move_slice(const Key* keys, const uint32_t* payload, const Slice& slice, const Digit& digit,
                                 MoveShared& shared, Key* out_keys, uint32_t* out_payload) {
  const int t = static_cast<int>(threadIdx.x), own = warp_index() * kSortRounds * kWarp + lane_index();
  keys += slice.first + own;
  payload += slice.first + own;
  for (uint32_t rest = static_cast<uint32_t>(slice.last - slice.first); rest > 0;
       rest -= rest < kSortTile ? rest : kSortTile) {
    const int left = static_cast<int>(rest < kSortTile ? rest : kSortTile) - own;
    Key key[kSortRounds];
    uint32_t rank[kRankPairs], sum[kPairsEach];
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      key[round] = round * kWarp < left ? keys[round * kWarp] : Key(0);
    }
    for (int w = 0; w < kSortWarps; ++w) {
      for (int pair = t; pair < digit.values() / 2; pair += kSortThreads) shared.pairs[w][pair] = 0;
    }
    __syncthreads();
    rank_in_warp(key, left, digit, shared.ahead[warp_index()], rank);
    __syncthreads();
    add_warps(shared, digit, sum);
    __syncthreads();
    write_moved(key, rank, payload, left, digit, shared, out_keys, out_payload);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kPairsEach; ++k) {
      const int pair = k * kSortThreads + t;
      if (pair >= digit.values() / 2) continue;
      shared.next[2 * pair] += sum[k] & 0xFFFFu;
      shared.next[2 * pair + 1] += sum[k] >> 16;
    }
    keys += kSortTile;
    payload += kSortTile;
  }
}

// Where the block's elements of each digit go, from the scanned counts. The whole block calls it.
SURE_FAST_DEVICE void find_next(const uint32_t* counts, const Digit& digit, MoveShared& shared) {
  const int64_t blocks = gridDim.x;
  for (int d = static_cast<int>(threadIdx.x); d < digit.values(); d += kSortThreads) {
    shared.next[d] = counts[digit.values() * blocks + d];
  }
  __syncthreads();
  begin_digits(shared, digit);
  for (int d = static_cast<int>(threadIdx.x); d < digit.values(); d += kSortThreads) {
    shared.next[d] += counts[d * blocks + blockIdx.x];
  }
}

// Counts a digit of the block's slice, of which the first pass fetches the keys. The whole block calls it.
template <typename Key, typename Fetch>
SURE_FAST_DEVICE void count_slice(const Fetch& fetch, const SortBuffers<Key>& s, Start start, int pass, int half,
                                  const Digit& digit, int64_t n, uint32_t* number) {
  const Slice slice = own_slice(n);
  clear_digits(number, digit);
  if (pass == 0) {
    fetch_and_count(fetch, digit, start, slice, n, pick(s.payload, half), pick(s.keys, half), number);
  } else {
    count_digits(pick(s.keys, half), digit, slice, number);
  }
  store_digits(number, digit, s.counts);
}

template <typename Key, typename Fetch>
__global__ void __launch_bounds__(kSortThreads, sizeof(Key) == 4 ? 3 : 2)
    sort_list(Fetch fetch, SortBuffers<Key> s, Start start, Sorted sorted, const uint32_t* length) {
  SURE_FAST_SHARED(shared, MoveShared);
#pragma unroll 1
  for (int pass = 0; pass < sorted.done(); ++pass) {
    const int half = (sorted.start + pass) & 1;
    const Digit digit = {pass * sorted.width, sorted.width};
    if (pass > 0) s.gate.meet();
    count_slice(fetch, s, start, pass, half, digit, *length, shared.next);
    s.gate.meet();
    scan_digits(s.counts, digit);
    s.gate.meet();
    find_next(s.counts, digit, shared);
    move_slice(pick(s.keys, half), pick(s.payload, half), own_slice(*length), digit, shared,
               pass + 1 < sorted.done() ? pick(s.keys, half ^ 1) : nullptr, pick(s.payload, half ^ 1));
  }
}

// Sorts a payload, which begins as `start` says in `half`, stably by the lowest `bits` bits of fetch(payload), or by
// the fewer ones that *fewer says. Each element is fetched once.
template <typename Key, typename Fetch>
Sorted sort_by(const Stream& stream, const SortBuffers<Key>& s, Start start, int half, const Fetch& fetch, int bits,
               const uint32_t* fewer, int64_t capacity, const uint32_t* length) {
  const int passes = bits > 0 ? ceil_div(bits, kDigitBits) : 1, width = bits > 0 ? ceil_div(bits, passes) : 1;
  const Sorted sorted = {{s.payload[0], s.payload[1]}, half, width, passes, fewer};
  launch_together(stream, "sort_list", sort_blocks(stream, capacity), kSortThreads, sort_list<Key, Fetch>, fetch, s,
                  start, sorted, length);
  return sorted;
}

}  // namespace
}  // namespace sure_fast
