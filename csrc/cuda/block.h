// Scans and reductions of a warp, a block, and of the totals of all tiles, in a fixed order.
#pragma once

#include "cuda/launch.h"

namespace sure_fast {
namespace {

SURE_FAST_DEVICE int lane_index() { return static_cast<int>(threadIdx.x) & (kWarp - 1); }
SURE_FAST_DEVICE int warp_index() { return static_cast<int>(threadIdx.x) / kWarp; }
SURE_FAST_DEVICE unsigned lanes_before(int lane) { return (1u << lane) - 1u; }

template <typename T>
SURE_FAST_DEVICE T shift_up(T x, int by) {
  return __shfl_up_sync(kAllLanes, x, by);
}

// x of lane `by` before, added in all lanes that have one.
template <typename T>
SURE_FAST_DEVICE T warp_inclusive(T x) {
  for (int by = 1; by < kWarp; by *= 2) {
    const T before = shift_up(x, by);
    if (lane_index() >= by) x = x + before;
  }
  return x;
}

// The first i in [low, high) of which before(i) no longer holds, or high.
template <typename Before>
SURE_FAST_DEVICE int64_t first_not(int64_t low, int64_t high, const Before& before) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (before(middle)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

template <typename T, int kThreads>
struct ScanShared {
  T warps[kThreads / kWarp];
};

// Sum over the threads before this one, and over all. Every thread of the block calls it; `shared` may be used again
// after the next __syncthreads.
template <int kThreads, typename T>
SURE_FAST_DEVICE T block_exclusive(T x, T zero, ScanShared<T, kThreads>& shared, T& total) {
  const T upto = warp_inclusive(x);
  if (lane_index() == kWarp - 1) shared.warps[warp_index()] = upto;
  __syncthreads();
  T before = zero;
  total = zero;
  for (int w = 0; w < kThreads / kWarp; ++w) {
    if (w == warp_index()) before = total;
    total = total + shared.warps[w];
  }
  const T previous = shift_up(upto, 1);
  return lane_index() == 0 ? before : before + previous;
}

// Sum over the block in a tree that depends on kThreads alone, in every thread; for types that are not shuffled.
template <int kThreads, typename T>
SURE_FAST_DEVICE T block_sum(T x, T* shared) {
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();
  shared[t] = x;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) shared[t] = shared[t] + shared[t + half];
  }
  __syncthreads();
  return shared[0];
}

// totals[0 .. tiles) become the sums before each, totals[tiles] the sum of all. The whole block calls it.
template <int kThreads, typename T>
SURE_FAST_DEVICE void scan_list(T* totals, int64_t tiles, T zero, ScanShared<T, kThreads>& shared) {
  T carry = zero;
  for (int64_t first = 0; first <= tiles; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    T total;
    const T before = block_exclusive<kThreads>(i < tiles ? totals[i] : zero, zero, shared, total);
    if (i <= tiles) totals[i] = carry + before;
    carry = carry + total;
    __syncthreads();
  }
}

constexpr int kScanThreads = 512;

// The same by one block; tiles = number elements, `tile` a tile.
template <typename T>
__global__ void __launch_bounds__(kScanThreads)
    scan_totals(T* totals, const uint32_t* number, int64_t fixed_number, int64_t tile, T zero) {
  SURE_FAST_SHARED(shared, ScanShared<T, kScanThreads>);
  const int64_t elements = number != nullptr ? static_cast<int64_t>(*number) : fixed_number;
  scan_list(totals, (elements + tile - 1) / tile, zero, shared);
}

}  // namespace
}  // namespace sure_fast
