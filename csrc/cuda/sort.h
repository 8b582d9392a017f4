// Stable radix sort of a list whose length only the device knows: 8 bits a pass. A fixed grid; each block takes a
// slice of the list, counts its digits, and after the counts were scanned moves its elements tile by tile. Equal digits
// of a warp find each other by match_any, so that ranks need no atomics.
#pragma once

#include "cuda/block.h"

namespace sure_fast {
namespace {

constexpr int kSortThreads = 256;
constexpr int kSortRounds = 8;  // elements a thread moves in one tile
constexpr int kSortTile = kSortThreads * kSortRounds;
constexpr int kSortWarps = kSortThreads / kWarp;
constexpr int kDigits = 256;

// Keys and payload of a pass, read from one half and written to the other.
template <typename Key>
struct SortBuffers {
  Key* keys[2];
  uint32_t* payload[2];
  uint32_t* counts;  // [kDigits, blocks], then [kDigits] totals

  SortBuffers(Arena& arena, int64_t capacity, int64_t blocks) : SortBuffers(arena, arena, capacity, blocks) {}

  // Keys in memory that is free while the sort lasts.
  SortBuffers(Arena& free, Arena& arena, int64_t capacity, int64_t blocks) {
    for (int i = 0; i < 2; ++i) keys[i] = free.take<Key>(capacity);
    for (int i = 0; i < 2; ++i) payload[i] = arena.take<uint32_t>(capacity);
    counts = arena.take<uint32_t>(kDigits * (blocks + 1));
  }
};

inline int64_t sort_blocks(const Stream& stream, int64_t capacity) {
  return fill(stream, ceil_div<int64_t>(capacity, kSortTile), 4);
}

struct Slice {
  int64_t first, last;
};

SURE_FAST_DEVICE Slice own_slice(int64_t length) {
  const int64_t tiles = (length + kSortTile - 1) / kSortTile;
  const int64_t each = (tiles + gridDim.x - 1) / gridDim.x * kSortTile;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * each;
  return {first < length ? first : length, first + each < length ? first + each : length};
}

template <typename Key>
SURE_FAST_DEVICE uint32_t digit_of(Key key, int shift) {
  return static_cast<uint32_t>(key >> shift) & (kDigits - 1);
}

template <typename Key>
__global__ void __launch_bounds__(kSortThreads)
    count_digits(const Key* keys, const uint32_t* length, int shift, uint32_t* counts) {
  __shared__ uint32_t number[kDigits];
  number[threadIdx.x] = 0;
  __syncthreads();
  const Slice slice = own_slice(*length);
  for (int64_t i = slice.first + threadIdx.x; i < slice.last; i += kSortThreads) {
    atomicAdd(&number[digit_of(keys[i], shift)], 1u);
  }
  __syncthreads();
  counts[static_cast<int64_t>(threadIdx.x) * gridDim.x + blockIdx.x] = number[threadIdx.x];
}

// One warp a digit: its counts of all blocks become what lies before each.
__global__ void __launch_bounds__(kSortThreads) scan_digits(uint32_t* counts, int64_t blocks) {
  const int digit = static_cast<int>(blockIdx.x) * kSortWarps + warp_index();
  uint32_t* own = counts + digit * blocks;
  uint32_t carry = 0;
  for (int64_t first = 0; first < blocks; first += kWarp) {
    const int64_t i = first + lane_index();
    const uint32_t count = i < blocks ? own[i] : 0;
    const uint32_t upto = warp_inclusive(count);
    if (i < blocks) own[i] = carry + upto - count;
    carry += __shfl_sync(kAllLanes, upto, kWarp - 1);
  }
  if (lane_index() == 0) counts[kDigits * blocks + digit] = carry;
}

template <typename Key>
__global__ void __launch_bounds__(kSortThreads)
    move_elements(const Key* keys, const uint32_t* payload, const uint32_t* length, int shift, const uint32_t* counts,
                  Key* out_keys, uint32_t* out_payload) {
  __shared__ ScanShared<uint32_t, kSortThreads> shared;
  __shared__ uint32_t next[kDigits];               // where the block's next element of a digit goes
  __shared__ uint32_t ahead[kSortWarps][kDigits];  // of the tile, in the warp so far; then in the warps before
  const int t = static_cast<int>(threadIdx.x), lane = lane_index(), warp = warp_index();
  const int64_t blocks = gridDim.x;
  uint32_t all;
  next[t] =
      block_exclusive<kSortThreads>(counts[kDigits * blocks + t], 0u, shared, all) + counts[t * blocks + blockIdx.x];
  const Slice slice = own_slice(*length);
  for (int64_t tile = slice.first; tile < slice.last; tile += kSortTile) {
    for (int w = 0; w < kSortWarps; ++w) ahead[w][t] = 0;
    __syncthreads();
    Key key[kSortRounds];
    uint32_t rank[kSortRounds];
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      const int64_t i = tile + (warp * kSortRounds + round) * kWarp + lane;
      const bool real = i < slice.last;
      key[round] = real ? keys[i] : Key(0);
      const uint32_t digit = real ? digit_of(key[round], shift) : kDigits;
      const unsigned same = __match_any_sync(kAllLanes, digit);
      const uint32_t before = real ? ahead[warp][digit] : 0;
      rank[round] = before + static_cast<uint32_t>(__popc(same & lanes_before(lane)));
      __syncwarp();
      if (real && (same & lanes_before(lane)) == 0) ahead[warp][digit] = before + static_cast<uint32_t>(__popc(same));
      __syncwarp();
    }
    __syncthreads();
    uint32_t sum = 0;
    for (int w = 0; w < kSortWarps; ++w) {
      const uint32_t here = ahead[w][t];
      ahead[w][t] = sum;
      sum += here;
    }
    __syncthreads();
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      const int64_t i = tile + (warp * kSortRounds + round) * kWarp + lane;
      if (i < slice.last) {
        const uint32_t digit = digit_of(key[round], shift);
        const uint32_t to = next[digit] + ahead[warp][digit] + rank[round];
        out_keys[to] = key[round];
        out_payload[to] = payload[i];
      }
    }
    __syncthreads();
    next[t] += sum;
  }
}

// Elements in their own order.
__global__ void count_up(uint32_t* list, const uint32_t* length) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, n = *length;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    list[i] = static_cast<uint32_t>(i);
  }
}

template <typename Key, typename Fetch>
__global__ void fetch_keys(Fetch fetch, const uint32_t* payload, const uint32_t* length, Key* keys) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, n = *length;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    keys[i] = static_cast<Key>(fetch(payload[i]));
  }
}

// Sorts payload[half] stably by the lowest `bits` bits of fetch(payload); returns the half that holds the result.
template <typename Key, typename Fetch>
int sort_by(const Stream& stream, const SortBuffers<Key>& s, int half, const Fetch& fetch, int bits, int64_t capacity,
            const uint32_t* length) {
  if (bits == 0) return half;
  const int64_t blocks = sort_blocks(stream, capacity);
  launch(stream, "fetch_keys", fill(stream, ceil_div<int64_t>(capacity, 256)), 256, fetch_keys<Key, Fetch>, fetch,
         s.payload[half], length, s.keys[half]);
  for (int shift = 0; shift < bits; shift += 8, half ^= 1) {
    launch(stream, "count_digits", blocks, kSortThreads, count_digits<Key>, s.keys[half], length, shift, s.counts);
    launch(stream, "scan_digits", kDigits / kSortWarps, kSortThreads, scan_digits, s.counts, blocks);
    launch(stream, "move_elements", blocks, kSortThreads, move_elements<Key>, s.keys[half], s.payload[half], length,
           shift, s.counts, s.keys[half ^ 1], s.payload[half ^ 1]);
  }
  return half;
}

inline int bits_needed(int64_t values) {
  int bits = 0;
  while ((int64_t{1} << bits) < values) ++bits;
  return bits;
}

}  // namespace
}  // namespace sure_fast
