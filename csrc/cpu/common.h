// What every CPU kernel file shares. Each file is compiled once per instruction set (SURE_FAST_ISA) and everything in
// it lives in that set's namespace: nothing here may be an external inline function or a weak template, or the linker
// could hand AVX-512 code to a machine without it. Hence raw arrays instead of std:: containers.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "math/elementary.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

#define SURE_FAST_NS_(isa) isa
#define SURE_FAST_NS SURE_FAST_NS_(SURE_FAST_ISA)
#define SURE_FAST_FOR_EACH_ISA(declare) declare(baseline) declare(avx2) declare(avx512)

// A member of a class that several instruction sets share must be inlined: the linker would merge its copies.
#define SURE_FAST_INLINE_MEMBER inline __attribute__((always_inline))

namespace sure_fast {

enum class DType : int { f32 = 0, f64 = 1, bf16 = 2, f16 = 3, u8 = 4, i8 = 5, i16 = 6, i32 = 7, i64 = 8 };

// A [N, C, V] view of a tensor whose spatial axes step by one stride; strides in elements.
struct View {
  const void* data;
  DType dtype;
  int64_t batch, channels, voxels;
  int64_t batch_stride, channel_stride, voxel_stride;
};

namespace {

#if defined(__FLT16_MAX__)
using half_t = _Float16;
SURE_FAST_INLINE float widen(half_t x) { return static_cast<float>(x); }
SURE_FAST_INLINE void narrow(float x, half_t& out) { out = static_cast<half_t>(x); }
#else
#error "the compiler needs _Float16, as GCC 12 has it"
#endif

struct bfloat16_t {
  uint16_t bits;
};
SURE_FAST_INLINE float widen(bfloat16_t x) {
  return math::float_of(static_cast<int32_t>(static_cast<uint32_t>(x.bits) << 16));
}
SURE_FAST_INLINE void narrow(float x, bfloat16_t& out) {
  const uint32_t u = static_cast<uint32_t>(math::bits_of(x));
  const uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;  // to nearest even
  out.bits = static_cast<uint16_t>(x != x ? 0x7FC0u : rounded);
}
SURE_FAST_INLINE float widen(float x) { return x; }
SURE_FAST_INLINE void narrow(float x, float& out) { out = x; }
SURE_FAST_INLINE double widen(double x) { return x; }
SURE_FAST_INLINE void narrow(double x, double& out) { out = x; }

// Runs task(first..last) for tasks 0..count-1. One thread runs the plain loop, without an OpenMP region: a forked
// child of a process that has used OpenMP would wait there for threads that fork did not copy.
template <typename Task>
static inline void parallel_tasks(int64_t count, int threads, const Task& task) {
#if defined(_OPENMP)
  if (threads > 1 && count > 1) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < count; ++i) {
      task(i);
    }
    return;
  }
#endif
  (void)threads;
  for (int64_t i = 0; i < count; ++i) {
    task(i);
  }
}

// The same for tasks of unequal size: a free thread takes the next one.
template <typename Task>
static inline void dynamic_tasks(int64_t count, int threads, const Task& task) {
#if defined(_OPENMP)
  if (threads > 1 && count > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t i = 0; i < count; ++i) {
      task(i);
    }
    return;
  }
#endif
  (void)threads;
  for (int64_t i = 0; i < count; ++i) {
    task(i);
  }
}

// Index of the running thread in its team, below the number of threads asked for.
static inline int thread_index() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace

// Threads for the rows, and inside each of them.
struct Team {
  int outer, inner;
};

// Large rows one after the other: the scratch of several at once would not fit the cache.
SURE_FAST_INLINE Team team_of(int64_t rows, int64_t elements, int threads) {
  return rows < threads || elements > 1 << 15 ? Team{1, threads} : Team{threads, 1};
}

// Hands out a kernel's scratch memory in aligned pieces. The memory belongs to the caller, so that torch accounts for
// it; with a null base it only adds up how much is needed.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <typename T>
  SURE_FAST_INLINE_MEMBER T* take(int64_t count) {
    const int64_t at = used_;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + at);
  }
  SURE_FAST_INLINE_MEMBER int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace sure_fast
