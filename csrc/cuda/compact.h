// Which elements of a map count, as a list in the order of the map: one pass over the map leaves a bit an element and a
// number a tile; the numbers are scanned, the bits expanded. The length of the list stays on the device.
#pragma once

#include "cuda/block.h"
#include "cuda/grid.h"

namespace sure_fast {
namespace {

constexpr int kCompactThreads = 256;
constexpr int kCompactTile = 4096;
constexpr int kTileWords = kCompactTile / kWarp;

struct Compaction {
  uint32_t* words;   // a bit an element
  uint32_t* totals;  // of each tile, then those before it; the last one is the length of the list
  uint32_t* list;
  Gate gate;  // of the grids that follow

  Compaction(Arena& arena, int64_t elements)
      : words(arena.take<uint32_t>(ceil_div<int64_t>(elements, kCompactTile) * kTileWords)),
        totals(arena.take<uint32_t>(ceil_div<int64_t>(elements, kCompactTile) + 1)),
        list(arena.take<uint32_t>(elements)),
        gate(arena) {}

  // Where the length is, on the device.
  const uint32_t* length(int64_t elements) const { return totals + ceil_div<int64_t>(elements, kCompactTile); }
};

// keep(i) says whether element i counts; it is called once for each.
template <typename Keep>
__global__ void __launch_bounds__(kCompactThreads)
    mark_elements(Keep keep, int64_t elements, uint32_t* words, uint32_t* totals, Gate gate) {
  SURE_FAST_SHARED(shared, ScanShared<uint32_t, kCompactThreads>);
  if (blockIdx.x == 0 && threadIdx.x == 0) gate.close();
  constexpr int kRounds = kCompactTile / kCompactThreads;
  const int64_t tiles = (elements + kCompactTile - 1) / kCompactTile;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    uint32_t own = 0;
    for (int round = 0; round < kRounds; ++round) {
      const int64_t i = tile * kCompactTile + (warp_index() * kRounds + round) * kWarp + lane_index();
      const unsigned word = __ballot_sync(kAllLanes, i < elements && keep(i));
      own = lane_index() == round ? word : own;
    }
    if (lane_index() < kRounds) words[tile * kTileWords + warp_index() * kRounds + lane_index()] = own;
    uint32_t total;
    block_exclusive<kCompactThreads>(static_cast<uint32_t>(__popc(own)), 0u, shared, total);
    if (threadIdx.x == 0) totals[tile] = total;
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kCompactThreads)
    list_elements(const uint32_t* words, const uint32_t* totals, int64_t elements, uint32_t* list) {
  SURE_FAST_SHARED(shared, ScanShared<uint32_t, kCompactThreads>);
  SURE_FAST_SHARED(word_of, uint32_t[kTileWords]);
  SURE_FAST_SHARED(place_of, uint32_t[kTileWords]);
  const int64_t tiles = (elements + kCompactTile - 1) / kCompactTile;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    if (totals[tile] == totals[tile + 1]) continue;
    const int t = static_cast<int>(threadIdx.x);
    const uint32_t word = t < kTileWords ? words[tile * kTileWords + t] : 0;
    uint32_t total;
    const uint32_t before = block_exclusive<kCompactThreads>(static_cast<uint32_t>(__popc(word)), 0u, shared, total);
    if (t < kTileWords) {
      word_of[t] = word;
      place_of[t] = totals[tile] + before;
    }
    __syncthreads();
    for (int w = warp_index(); w < kTileWords; w += kCompactThreads / kWarp) {
      const uint32_t bits = word_of[w];
      if ((bits >> lane_index() & 1u) != 0) {
        const int64_t i = tile * kCompactTile + w * kWarp + lane_index();
        list[place_of[w] + static_cast<uint32_t>(__popc(bits & lanes_before(lane_index())))] = static_cast<uint32_t>(i);
      }
    }
    __syncthreads();
  }
}

template <typename Keep>
void compact(const Stream& stream, const Keep& keep, int64_t elements, const Compaction& c) {
  const int64_t tiles = ceil_div<int64_t>(elements, kCompactTile);
  launch(stream, "mark_elements", fill(stream, tiles), kCompactThreads, mark_elements<Keep>, keep, elements, c.words,
         c.totals, c.gate);
  launch(stream, "scan_totals", 1, kScanThreads, scan_totals<uint32_t>, c.totals, nullptr, elements, kCompactTile, 0u);
  launch(stream, "list_elements", fill(stream, tiles), kCompactThreads, list_elements, c.words, c.totals, elements,
         c.list);
}

// Where each row of n elements begins in the list; begins has rows + 1.
__global__ void row_begins(const uint32_t* list, const uint32_t* length, int64_t n, int64_t rows, uint32_t* begins) {
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; row <= rows;
       row += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    begins[row] = static_cast<uint32_t>(first_not(0, *length, [&](int64_t i) { return list[i] < row * n; }));
  }
}

inline void find_rows(const Stream& stream, const uint32_t* list, const uint32_t* length, int64_t n, int64_t rows,
                      uint32_t* begins) {
  launch(stream, "row_begins", fill(stream, ceil_div<int64_t>(rows + 1, 256)), 256, row_begins, list, length, n, rows,
         begins);
}

}  // namespace
}  // namespace sure_fast
