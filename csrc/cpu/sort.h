// Stable radix sort of keys with a 32-bit payload; the order does not depend on the number of threads, which share all
// but the search for the lowest and highest key. Keys are put into two to four times as many cells as there are
// elements (2^22 at most), of equal width in the numbers or in the keys, whichever spreads a sample of them more
// evenly: one or two passes in the place of three (six of 64 bits). What shares a cell is put in order in place. Keys
// that no cells spread are sorted by all of their bits.
#pragma once

#include "cpu/common.h"
#include "math/order.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kRadixBits = 11;
constexpr int kRadixBins = 1 << kRadixBits;
constexpr int kMostCellBits = 2 * kRadixBits;
constexpr int64_t kInPlace = 32;  // as many elements are sorted by insertion alone
constexpr int kSampleBits = 8;
constexpr int64_t kSample = 512;
constexpr int64_t kRadixBlock = 256;  // keys whose bins are worked out together

// Cells of equal width in the numbers that the keys stand for.
template <typename Key>
struct NumberCells {
  using Number = decltype(number_of_key(Key()));
  Number low, scale;
  bool usable;

  NumberCells(Key lowest, Key highest, int bits) : low(number_of_key(lowest)), scale(Number(0)), usable(false) {
    const Number range = number_of_key(highest) - low;
    scale = static_cast<Number>((1 << bits) - 1) / range;
    usable = range * scale > Number(0) && range * scale < static_cast<Number>(1 << bits);  // false with NaN, infinity
  }
  SURE_FAST_INLINE_MEMBER uint32_t operator()(Key key) const {
    return static_cast<uint32_t>(static_cast<int32_t>((number_of_key(key) - low) * scale));
  }
};

// Cells of equal width in the keys, which are finer for small numbers; one a key where they are as many.
template <typename Key>
struct KeyCells {
  Key lowest;
  int shift;

  KeyCells(Key low, Key highest, int bits) : lowest(low), shift(0) {
    while (static_cast<Key>(highest - low) >> shift >> bits != 0) ++shift;
  }
  SURE_FAST_INLINE_MEMBER uint32_t operator()(Key key) const {
    return static_cast<uint32_t>(static_cast<Key>(key - lowest) >> shift);
  }
};

// Bits of the keys themselves.
template <typename Key>
struct KeyBits {
  int shift;
  SURE_FAST_INLINE_MEMBER uint32_t operator()(Key key) const { return static_cast<uint32_t>(key >> shift); }
};

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
  // with the others.
  void run(int64_t n, int threads) {
    if (n <= kInPlace) {
      order_in_place(0, n, n * n);
      return;
    }
    Key lowest = keys[0], highest = keys[0];
    for (int64_t i = 0; i < n; ++i) {
      lowest = keys[i] < lowest ? keys[i] : lowest;
      highest = keys[i] > highest ? keys[i] : highest;
    }
    if (lowest == highest) return;
    int bits = 1;
    while (bits < kMostCellBits && int64_t{1} << bits < 2 * n) ++bits;
    const NumberCells<Key> numbers(lowest, highest, bits);
    const KeyCells<Key> cells(lowest, highest, bits);
    const double by_number = numbers.usable ? crowding(numbers, n, bits) : kMostCellBits * 1e9;
    const double by_key = cells.shift == 0 ? 0.0 : crowding(cells, n, bits);
    if (by_key < by_number ? sort_cells(cells, by_key, n, bits, threads)
                           : sort_cells(numbers, by_number, n, bits, threads)) {
      return;
    }
    const int width = 8 * static_cast<int>(sizeof(Key));
    if (width == 64) {  // mostly the upper half tells keys apart
      for (int shift = 32; shift < width; shift += kRadixBits) {
        pass(KeyBits<Key>{shift}, 0, kRadixBits, n, threads);
      }
      if (order_in_place(0, n, 4 * n)) return;
    }
    for (int shift = 0; shift < width; shift += kRadixBits) pass(KeyBits<Key>{shift}, 0, kRadixBits, n, threads);
  }

  // Of sorted keys: visit(i, level) for every element, levels counted from 0 by different keys. Returns the last level.
  template <typename Visit>
  uint32_t each_level(int64_t n, int threads, const Visit& visit) {
    const int blocks = ranges_of(n, threads);
    parallel_tasks(blocks, threads, [&](int64_t b) {
      int64_t changes = 0;
      for (int64_t i = n * b / blocks; i < n * (b + 1) / blocks; ++i) changes += i > 0 && keys[i] != keys[i - 1];
      counts[b] = changes;
    });
    int64_t total = 0;
    for (int b = 0; b < blocks; ++b) {
      const int64_t changes = counts[b];
      counts[b] = total;
      total += changes;
    }
    parallel_tasks(blocks, threads, [&](int64_t b) {
      uint32_t level = static_cast<uint32_t>(counts[b]);
      for (int64_t i = n * b / blocks; i < n * (b + 1) / blocks; ++i) {
        level += i > 0 && keys[i] != keys[i - 1];
        visit(i, level);
      }
    });
    return static_cast<uint32_t>(total);
  }

  // Of sorted keys: visit(range, begin, end) for the runs of equal ones, range by range, those that begin in it.
  template <typename Visit>
  void each_run(int64_t n, int threads, const Visit& visit) const {
    const int ranges = ranges_of(n, threads);
    parallel_tasks(ranges, threads, [&](int64_t r) {
      int64_t begin = n * r / ranges;
      const int64_t last = n * (r + 1) / ranges;
      while (begin > 0 && begin < last && keys[begin] == keys[begin - 1]) ++begin;
      while (begin < last) {
        int64_t end = begin + 1;
        while (end < n && keys[end] == keys[begin]) ++end;
        visit(r, begin, end);
        begin = end;
      }
    });
  }

  void swap_keys() {
    Key* k = keys;
    keys = other_keys;
    other_keys = k;
  }

  void swap_payload() {
    uint32_t* p = payload;
    payload = other_payload;
    other_payload = p;
  }

 private:
  // How many times more a key shares its cell with other keys than if all cells were equally full, from a sample. Equal
  // keys stay as they are and do not count; of a part of the cells those equal to the first are known.
  template <typename Cells>
  double crowding(const Cells& cells, int64_t n, int bits) const {
    constexpr int kParts = 1 << kSampleBits;
    uint16_t equal[kParts] = {}, other[kParts] = {};
    Key first[kParts];
    const int shift = bits > kSampleBits ? bits - kSampleBits : 0;
    const int64_t size = n < kSample ? n : kSample, each = n / size;
    for (int64_t i = 0; i < size; ++i) {  // one of each part, not all from one column of an image
      const int64_t within = static_cast<int64_t>(static_cast<uint32_t>(i) * 0x9E3779B9u >> 16) % each;
      const Key key = keys[i * each + within];
      const uint32_t part = cells(key) >> shift;
      if (equal[part] == 0) first[part] = key;
      ++(first[part] == key ? equal : other)[part];
    }
    double pairs = 0.0;
    for (int k = 0; k < kParts; ++k) pairs += static_cast<double>(other[k]) * (other[k] - 1 + 2 * equal[k]);
    return pairs / static_cast<double>(size * (size - 1)) * static_cast<double>(1 << (bits - shift));
  }

  // False where the cells are too crowded: keys and payload are then a permutation that keeps equal keys in order.
  template <typename Cells>
  bool sort_cells(const Cells& cells, double crowding, int64_t n, int bits, int threads) {
    constexpr double kCrowded = 12.0;  // an element would move over more than one or two others
    if (crowding > kCrowded) return false;
    const int low_bits = bits > kRadixBits ? bits / 2 : bits;
    pass(cells, 0, low_bits, n, threads);
    if (bits > low_bits) pass(cells, low_bits, bits - low_bits, n, threads);
    const int blocks = ranges_of(n, threads);
    int64_t* border = counts;
    for (int64_t b = 0; b <= blocks; ++b) border[b] = cell_border(cells, n * b / blocks, n);
    bool ordered = true;
    parallel_tasks(blocks, threads, [&](int64_t b) {
      const int64_t first = border[b], last = border[b + 1];
      if (!order_in_place(first, last, 4 * (last - first))) __atomic_store_n(&ordered, false, __ATOMIC_RELAXED);
    });
    return ordered;
  }

  // Where a cell begins, at or after an element.
  template <typename Cells>
  int64_t cell_border(const Cells& cells, int64_t at, int64_t n) const {
    while (at > 0 && at < n && cells(keys[at]) == cells(keys[at - 1])) ++at;
    return at;
  }

  // Insertion sort of elements first..last. False when it gave up after so many moves.
  bool order_in_place(int64_t first, int64_t last, int64_t moves) {
    for (int64_t i = first + 1; i < last; ++i) {
      if (!(keys[i] < keys[i - 1])) continue;
      const Key key = keys[i];
      const uint32_t value = payload[i];
      int64_t to = i;
      for (; to > first && key < keys[to - 1]; --to) {
        keys[to] = keys[to - 1];
        payload[to] = payload[to - 1];
      }
      keys[to] = key;
      payload[to] = value;
      moves -= i - to;
      if (moves < 0) return false;
    }
    return true;
  }

  // Calls visit(i, bin) for elements first..last.
  template <typename Cells, typename Visit>
  void each_bin(const Cells& cells, int shift, uint32_t mask, int64_t first, int64_t last, const Visit& visit) const {
    uint32_t bin[kRadixBlock];
    for (; first < last; first += kRadixBlock) {
      const int64_t size = last - first < kRadixBlock ? last - first : kRadixBlock;
      const Key* from = keys + first;
#pragma omp simd
      for (int64_t i = 0; i < size; ++i) bin[i] = cells(from[i]) >> shift & mask;
      for (int64_t i = 0; i < size; ++i) visit(first + i, bin[i]);
    }
  }

  // One pass by `bits` bits of the cells from `shift` on.
  template <typename Cells>
  void pass(const Cells& cells, int shift, int bits, int64_t n, int threads) {
    const int blocks = ranges_of(n, threads), bins = 1 << bits;
    const uint32_t mask = static_cast<uint32_t>(bins - 1);
    parallel_tasks(blocks, threads, [&](int64_t b) {
      int64_t* count = counts + b * kRadixBins;
      memset(count, 0, sizeof(int64_t) * static_cast<size_t>(bins));
      each_bin(cells, shift, mask, n * b / blocks, n * (b + 1) / blocks, [&](int64_t, uint32_t bin) { ++count[bin]; });
    });
    int64_t total = 0;
    bool one_bin = false;
    for (int bin = 0; bin < bins; ++bin) {
      const int64_t before = total;
      for (int b = 0; b < blocks; ++b) {
        const int64_t count = counts[b * kRadixBins + bin];
        counts[b * kRadixBins + bin] = total;
        total += count;
      }
      one_bin |= total - before == n;
    }
    if (one_bin) return;
    parallel_tasks(blocks, threads, [&](int64_t b) {
      int64_t* next = counts + b * kRadixBins;
      each_bin(cells, shift, mask, n * b / blocks, n * (b + 1) / blocks, [&](int64_t i, uint32_t bin) {
        const int64_t to = next[bin]++;
        other_keys[to] = keys[i];
        other_payload[to] = payload[i];
      });
    });
    swap_keys();
    swap_payload();
  }
};

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
