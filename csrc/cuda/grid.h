// Blocks that wait for each other, in grids of launch_together: what would be several launches is one.
#pragma once

#include "cuda/launch.h"

namespace sure_fast {
namespace {

constexpr uint32_t kOpened = 1u << 31;  // flips whenever all blocks have come

// Where blocks meet, on the device: 0 before the first grid that uses it, and ready for the next after each.
struct Gate {
  uint32_t* arrived;

  explicit Gate(Arena& arena) : arrived(arena.take<uint32_t>(1)) {}
  Gate() = default;

  // By an earlier grid.
  SURE_FAST_DEVICE_MEMBER void close() const { *arrived = 0; }

  // Every thread of the grid calls it. What any of them wrote before, all of them see after: the barriers join the
  // block with its first thread, the fences that thread's with those of the others through what they all add to, which
  // is read past the caches. The first block adds what makes a whole round 2^31, so that nobody has to reset anything:
  // the lower bits are 0 again when the upper one flips, and it cannot flip back before all have seen that.
  SURE_FAST_DEVICE_MEMBER void meet() const {
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      const uint32_t before = atomicAdd(arrived, blockIdx.x == 0 ? kOpened - (gridDim.x - 1) : 1u);
      while (((*static_cast<volatile uint32_t*>(arrived) ^ before) & kOpened) == 0) __nanosleep(32);
      __threadfence();
    }
    __syncthreads();
  }
};

}  // namespace
}  // namespace sure_fast
