// Stable radix sort of keys with a 32-bit payload, threaded; the order does not depend on the number of threads.
#pragma once

#include "cpu/common.h"
#include "math/order.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kRadixBits = 11;
constexpr int kRadixBins = 1 << kRadixBits;
constexpr int64_t kRadixGrain = 1 << 14;  // fewer elements a thread are not worth a second one

template <typename Key>
class RadixSort {
 public:
  Key *keys, *other_keys;
  uint32_t *payload, *other_payload;
  int64_t* counts;  // [threads, kRadixBins]

  // Room for `capacity` elements and `threads` threads.
  RadixSort(Arena& arena, int64_t capacity, int threads)
      : keys(arena.take<Key>(capacity)),
        other_keys(arena.take<Key>(capacity)),
        payload(arena.take<uint32_t>(capacity)),
        other_payload(arena.take<uint32_t>(capacity)),
        counts(arena.take<int64_t>(static_cast<int64_t>(threads) * kRadixBins)) {}

  // Sorts the first n of keys and payload; the result is in `keys` and `payload` again, which may have changed places
  // with the others. 64-bit keys are mostly told apart by their upper half: three passes over it, and what is left in
  // runs of equal upper halves is put in order in place; where that is too much work, six passes over everything.
  void run(int64_t n, int threads) {
    const int bits = 8 * static_cast<int>(sizeof(Key));
    if (bits == 64) {
      passes(n, threads, 32, bits);
      if (order_runs(n)) return;
    }
    passes(n, threads, 0, bits);
  }

 private:
  // Insertion sort within runs of equal upper halves. False when it gave up.
  bool order_runs(int64_t n) {
    int64_t budget = 4 * n;
    for (int64_t i = 1; i < n; ++i) {
      if (!(keys[i] < keys[i - 1])) continue;
      const Key key = keys[i];
      const uint32_t value = payload[i];
      int64_t to = i;
      for (; to > 0 && key < keys[to - 1]; --to) {
        keys[to] = keys[to - 1];
        payload[to] = payload[to - 1];
      }
      keys[to] = key;
      payload[to] = value;
      budget -= i - to;
      if (budget < 0) return false;
    }
    return true;
  }

  void passes(int64_t n, int threads, int from_bit, int to_bit) {
    const int64_t useful = n / kRadixGrain < threads ? n / kRadixGrain : threads;
    const int blocks = useful < 1 ? 1 : static_cast<int>(useful);
    for (int shift = from_bit; shift < to_bit; shift += kRadixBits) {
      parallel_tasks(blocks, threads, [&](int64_t b) {
        int64_t* count = counts + b * kRadixBins;
        memset(count, 0, sizeof(int64_t) * kRadixBins);
        const int64_t last = n * (b + 1) / blocks;
        for (int64_t i = n * b / blocks; i < last; ++i) ++count[(keys[i] >> shift) & (kRadixBins - 1)];
      });
      int64_t total = 0;
      bool one_bin = false;
      for (int bin = 0; bin < kRadixBins; ++bin) {
        const int64_t before = total;
        for (int b = 0; b < blocks; ++b) {
          const int64_t count = counts[b * kRadixBins + bin];
          counts[b * kRadixBins + bin] = total;
          total += count;
        }
        one_bin |= total - before == n;
      }
      if (one_bin) continue;
      parallel_tasks(blocks, threads, [&](int64_t b) {
        int64_t* next = counts + b * kRadixBins;
        const int64_t last = n * (b + 1) / blocks;
        for (int64_t i = n * b / blocks; i < last; ++i) {
          const int64_t to = next[(keys[i] >> shift) & (kRadixBins - 1)]++;
          other_keys[to] = keys[i];
          other_payload[to] = payload[i];
        }
      });
      Key* k = keys;
      keys = other_keys;
      other_keys = k;
      uint32_t* p = payload;
      payload = other_payload;
      other_payload = p;
    }
  }
};

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
