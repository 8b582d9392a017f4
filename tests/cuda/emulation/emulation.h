// A CUDA grid on one CPU thread, for tests of the kernels: blocks one after the other, each thread of a block a fiber
// that runs until it waits. Blocks and threads take turns forward, in reverse, or at random (set_order): a kernel
// without races gives the same bits in every order. Shared memory is poisoned before each block. Threads that wait in
// different places, or have left while others wait, are an error. Collectives of a warp need all of its lanes. Of a
// grid launched to run together a thread that sleeps lets the other blocks go on; blocks that only sleep are an error.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

namespace emulation {

struct Index {
  unsigned x;
};

struct Site {
  const char* file;
  int line;
};

// together: blocks may wait for each other
void run(const char* name, bool together, int64_t blocks, int threads, const std::function<void()>& body);
void set_order(int order, uint64_t seed);  // 0: forward, 1: reverse, 2: random
void count_launches(bool only);            // from here on, starting from 0; only: without running what is launched
int64_t launches();

void wait_for_block(Site site);
void wait_for_warp(Site site);
void sleep(Site site);
void* shared_memory(size_t bytes, Site site);  // of the block, the same at each site
void fence();
const uint64_t* exchange(uint64_t value, Site site);  // what the 32 lanes gave
int lane();

template <typename T>
uint64_t bits_of(T value) {
  static_assert(sizeof(T) <= 8, "a lane exchanges at most 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T value_of(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

template <typename T>
T* shared(Site site) {
  static_assert(alignof(T) <= 16, "shared memory is aligned to 16 bytes");
  return static_cast<T*>(shared_memory(sizeof(T), site));
}

void check_mask(unsigned mask, Site site);

template <typename T>
T shuffle(Site site, unsigned mask, T value, int from) {
  check_mask(mask, site);
  const uint64_t* all = exchange(bits_of(value), site);
  return from < 0 || from > 31 ? value : value_of<T>(all[from]);
}

template <typename T>
T shuffle_up(Site site, unsigned mask, T value, int by) {
  return shuffle(site, mask, value, lane() - by);
}

template <typename T>
T shuffle_down(Site site, unsigned mask, T value, int by) {
  return shuffle(site, mask, value, lane() + by);
}

template <typename T>
T shuffle_xor(Site site, unsigned mask, T value, int by) {
  return shuffle(site, mask, value, lane() ^ by);
}

template <typename T>
unsigned match_any(Site site, unsigned mask, T value) {
  check_mask(mask, site);
  const uint64_t own = bits_of(value);
  const uint64_t* all = exchange(own, site);
  unsigned same = 0;
  for (int i = 0; i < 32; ++i) same |= static_cast<unsigned>(all[i] == own) << i;
  return same;
}

inline unsigned ballot(Site site, unsigned mask, bool value) {
  check_mask(mask, site);
  const uint64_t* all = exchange(value, site);
  unsigned set = 0;
  for (int i = 0; i < 32; ++i) set |= static_cast<unsigned>(all[i]) << i;
  return set;
}

// Threads take turns, so that a load and a store are one; they are told apart from plain ones (races.h).
template <typename T, typename Change>
T atomically(T* place, const Change& change) {
  const T before = __atomic_load_n(place, __ATOMIC_RELAXED);
  __atomic_store_n(place, static_cast<T>(change(before)), __ATOMIC_RELAXED);
  return before;
}

}  // namespace emulation

extern emulation::Index threadIdx, blockIdx, blockDim, gridDim;

#define SURE_FAST_SITE \
  emulation::Site { __FILE__, __LINE__ }
#define __syncthreads() emulation::wait_for_block(SURE_FAST_SITE)
#define __nanosleep(nanoseconds) emulation::sleep(SURE_FAST_SITE)
#define __threadfence() emulation::fence()
#define __syncwarp() emulation::wait_for_warp(SURE_FAST_SITE)
#define __shfl_sync(...) emulation::shuffle(SURE_FAST_SITE, __VA_ARGS__)
#define __shfl_up_sync(...) emulation::shuffle_up(SURE_FAST_SITE, __VA_ARGS__)
#define __shfl_down_sync(...) emulation::shuffle_down(SURE_FAST_SITE, __VA_ARGS__)
#define __shfl_xor_sync(...) emulation::shuffle_xor(SURE_FAST_SITE, __VA_ARGS__)
#define __ballot_sync(...) emulation::ballot(SURE_FAST_SITE, __VA_ARGS__)
#define __match_any_sync(...) emulation::match_any(SURE_FAST_SITE, __VA_ARGS__)

// Of a device a sum of integers that overflows wraps.
template <typename T>
T atomicAdd(T* place, T value) {
  using Sum = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>, std::common_type<T>>::type;
  return emulation::atomically(
      place, [=](T before) { return static_cast<T>(static_cast<Sum>(before) + static_cast<Sum>(value)); });
}
template <typename T>
T atomicMin(T* place, T value) {
  return emulation::atomically(place, [=](T before) { return value < before ? value : before; });
}
template <typename T>
T atomicMax(T* place, T value) {
  return emulation::atomically(place, [=](T before) { return value > before ? value : before; });
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
