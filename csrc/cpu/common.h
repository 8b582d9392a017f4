// What every CPU kernel file shares. Each file is compiled once per instruction set (SURE_FAST_ISA) and everything in
// it lives in that set's namespace: nothing here may be an external inline function or a weak template, or the linker
// could hand AVX-512 code to a machine without it. Hence raw arrays instead of std:: containers.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "args/tensor.h"
#include "math/elementary.h"
#include "math/half.h"
#include "math/storage.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

#define SURE_FAST_NS_(isa) isa
#define SURE_FAST_NS SURE_FAST_NS_(SURE_FAST_ISA)
#define SURE_FAST_FOR_EACH_ISA(declare) declare(baseline) declare(avx2) declare(avx512)

namespace sure_fast {

namespace {

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

constexpr int64_t kRange = 1 << 14;  // fewer elements a thread are not worth a second one

// How many ranges n elements are cut into.
static inline int ranges_of(int64_t n, int threads) {
  const int64_t useful = n / kRange < threads ? n / kRange : threads;
  return useful < 1 ? 1 : static_cast<int>(useful);
}

// Runs task(first, last) for the ranges of 0..n: what it writes for an element may not depend on where ranges end.
template <typename Task>
static inline void parallel_ranges(int64_t n, int threads, const Task& task) {
  const int ranges = ranges_of(n, threads);
  parallel_tasks(ranges, threads, [&](int64_t r) { task(n * r / ranges, n * (r + 1) / ranges); });
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

}  // namespace sure_fast
