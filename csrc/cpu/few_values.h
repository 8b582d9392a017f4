// Pairs of elements whose g takes few values, as distances in voxels do. The elements are met in the order of rising u,
// and of every value it is counted how many were met and how many are still to come: those of lower g among the former
// and those of higher g among the latter are an element's partners, whatever else is true of them. So its slope is a
// sum over the values, in the place of a second sort and the dealing of pairs.h; counts are whole numbers, and nothing
// is left of them where there is no partner. Elements of equal u are no partners. O(n) after the sort.
#pragma once

#include "cpu/digits.h"
#include "cpu/lanes.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kMostValues = 2 * kDigits;  // as many totals of a chunk as pairs.h has

// The distinct values of g, found by hashing, and of each element which it has.
template <typename Value>
class FewValues {
 public:
  Value value[kMostValues];

  // The number of values, `which` [n] written; 0 where there are more than kMostValues.
  int find(const Value* g, int64_t n, uint8_t* which) {
    uint8_t slots[kSlots] = {};  // number of a value, from 1 on
    int number = 0;
    for (int64_t i = 0; i < n; ++i) {
      const Value v = g[i] + Value(0);  // -0 is 0
      unsigned at = hash(v);
      while (slots[at] != 0 && !(value[slots[at] - 1] == v)) at = (at + 1) % kSlots;
      if (slots[at] == 0) {
        if (number == kMostValues) return 0;
        value[number] = v;
        slots[at] = static_cast<uint8_t>(++number);
      }
      which[i] = static_cast<uint8_t>(slots[at] - 1);
    }
    return number;
  }

 private:
  static constexpr unsigned kSlots = 256;

  static unsigned hash(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof(bits));
    return (bits * 0x9E3779B9u) >> 24;
  }
  static unsigned hash(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof(bits));
    return static_cast<unsigned>((bits * 0x9E3779B97F4A7C15u) >> 56);
  }
};

// How many elements of every value were met, and how many are to come.
template <int kWidth>
struct Counts {
  static constexpr int kParts = kWidth / kLanes;
  Lanes met[kParts], left[kParts];
};

// Of partners by their value.
template <int kWidth>
struct Partners {
  alignas(64) double lower[kWidth][kWidth];  // [e][k]: whether g_k is, 1 or 0
  alignas(64) double fall[kWidth][kWidth];   // there g_e - g_k, else 0
  alignas(64) double rise[kWidth][kWidth];   // g_e - g_k where g_k is higher, else 0
  alignas(64) double one[kWidth][kWidth];    // [e][k]: 1 where k is e
  static constexpr int kParts = Counts<kWidth>::kParts;

  template <typename Value>
  explicit Partners(const FewValues<Value>& few, int number) {
    for (int e = 0; e < kWidth; ++e) {
      for (int k = 0; k < kWidth; ++k) {
        const bool both = e < number && k < number;
        const double by = both ? static_cast<double>(few.value[e]) - static_cast<double>(few.value[k]) : 0.0;
        lower[e][k] = by > 0.0 ? 1.0 : 0.0;
        fall[e][k] = by > 0.0 ? by : 0.0;
        rise[e][k] = by < 0.0 ? by : 0.0;
        one[e][k] = e == k ? 1.0 : 0.0;
      }
    }
  }

  SURE_FAST_INLINE_MEMBER void move(Lanes* counts, unsigned e, double by) const {
    for (int part = 0; part < kParts; ++part) counts[part].add(one[e] + part * kLanes, by);
  }

  // Of an element of value e: the sum over its partners of g_e - g_k; `pairs` learns those of lower u.
  SURE_FAST_INLINE_MEMBER double find(const Counts<kWidth>& c, unsigned e, Lanes& pairs) const {
    Lanes by = {};
    for (int part = 0; part < kParts; ++part) {
      by.add_products(c.met[part], fall[e] + part * kLanes);
      by.add_products(c.left[part], rise[e] + part * kLanes);
      pairs.add_products(c.met[part], lower[e] + part * kLanes);
    }
    return by.sum();
  }
};

// Elements begin..end in the order of u, of which no run of equal keys reaches out. Returns the number of pairs whose
// higher u is among them.
template <int kWidth, typename Key>
int64_t meet_all(const Partners<kWidth>& partners, Counts<kWidth> c, const Key* keys, const uint32_t* element,
                 const uint8_t* which, int64_t begin, int64_t end, double* slope_of) {
  int64_t pairs = 0;
  while (begin < end) {
    Lanes some = {};  // exact below 2^53: about kExact elements, and a run of equal u that ends beyond them
    for (const int64_t block = begin; begin < end && begin < block + kExact;) {
      int64_t last = begin + 1;
      while (last < end && keys[last] == keys[begin]) ++last;
      for (int64_t i = begin; i < last; ++i) partners.move(c.left, which[element[i]], -1.0);
      for (int64_t i = begin; i < last; ++i) {
        slope_of[element[i]] = partners.find(c, which[element[i]], some);
      }
      for (int64_t i = begin; i < last; ++i) partners.move(c.met, which[element[i]], 1.0);
      begin = last;
    }
    pairs += static_cast<int64_t>(some.sum());
  }
  return pairs;
}

// Where the run of equal keys ends that reaches over `at`.
template <typename Key>
int64_t run_border(const Key* keys, int64_t at, int64_t n) {
  if (at <= 0 || at >= n) return at <= 0 ? 0 : n;
  int64_t low = at - 1, high = n;  // keys[low] is of the run, keys[high] behind it
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (keys[middle] == keys[at - 1]) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return high;
}

// Slopes of n elements, sorted by rising u into keys and element, into slope_of[element]; which: of each element the
// number of its value; chunk_totals as for sum_partners. Returns the number of pairs.
template <int kWidth, typename Value, typename Key>
int64_t sum_partners_of_few(const FewValues<Value>& few, int number, const Key* keys, const uint32_t* element,
                            const uint8_t* which, int64_t n, double* chunk_totals, int threads, double* slope_of) {
  const Partners<kWidth> partners(few, number);
  const int64_t chunks = pair_chunks(n);
  const auto border = [&](int64_t c) { return run_border(keys, c * kPairChunk, n); };
  parallel_tasks(chunks, threads, [&](int64_t c) {
    double* totals = chunk_totals + c * kMostValues;
    for (int k = 0; k < kWidth; ++k) totals[k] = 0.0;
    for (int64_t i = border(c), last = border(c + 1); i < last; ++i) totals[which[element[i]]] += 1.0;
  });
  double all[kWidth] = {};  // what lies before a chunk, and at the end everything
  for (int64_t c = 0; c < chunks; ++c) {
    for (int k = 0; k < kWidth; ++k) {
      const double here = chunk_totals[c * kMostValues + k];
      chunk_totals[c * kMostValues + k] = all[k];
      all[k] += here;
    }
  }
  int64_t pairs = 0;
  parallel_tasks(chunks, threads, [&](int64_t c) {
    Counts<kWidth> counts;
    double left[kWidth];
    const double* met = chunk_totals + c * kMostValues;
    for (int k = 0; k < kWidth; ++k) left[k] = all[k] - met[k];
    for (int part = 0; part < counts.kParts; ++part) {
      counts.met[part] = Lanes::from(met + part * kLanes);
      counts.left[part] = Lanes::from(left + part * kLanes);
    }
    const int64_t found = meet_all(partners, counts, keys, element, which, border(c), border(c + 1), slope_of);
    __atomic_fetch_add(&pairs, found, __ATOMIC_RELAXED);
  });
  return pairs;
}

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
