// Concordant, discordant and tied pairs of two rankings a, b of n elements, row by row (Knight, JASA 61, 1966).
// In the order of rising a, falling b where a is equal, a pair is concordant exactly when its rank in b rises. Those
// are counted while the ranks are dealt digit by digit; ties are runs of the sorted keys.
// Parallel over rows, or inside a row where there are fewer rows than threads. Integer sums: exact.
// Bytes per element: a and b once, 32 of scratch (40 for float64). Bound by the two sorts and the dealing, O(n log n).
#include "cpu/pair_concordance.h"

#include "cpu/digits.h"
#include "cpu/lanes.h"
#include "cpu/sort.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int64_t kFew = 64;

// Pairs of rising rank among at most kFew elements.
int64_t count_few(const uint32_t* from, int64_t n) {
  if (n < 2) return 0;
  alignas(64) uint32_t rank[kFew] = {}, below[kFew] = {};
  memcpy(rank, from, sizeof(uint32_t) * static_cast<size_t>(n));
  const int64_t width = (n + 15) / 16 * 16;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t r = rank[i];
    rank[i] = 0;  // later ones no longer compare with it
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) below[j] += rank[j] > r;
  }
  uint32_t pairs = 0;
  for (int64_t j = 0; j < kFew; ++j) pairs += below[j];
  return pairs;
}

SURE_FAST_INLINE int64_t count_deal(const uint32_t* from, uint32_t* to, int64_t begin, int64_t end, int shift,
                                    const uint32_t (*smaller)[kDigits], const uint32_t* met, int64_t* next) {
  uint64_t pairs = 0;
  CountLanes number = CountLanes::from(met);
  for (int64_t i = begin; i < end; ++i) {
    const uint32_t rank = from[i], digit = rank >> shift & (kDigits - 1);
    to[next[digit]++] = rank;
    pairs += number.at(digit);
    number.add(smaller[digit]);
  }
  return static_cast<int64_t>(pairs);
}

void count_digits(const uint32_t* rank, int64_t begin, int64_t end, int shift, int64_t* number) {
  for (int d = 0; d < kDigits; ++d) number[d] = 0;
  for (int64_t i = begin; i < end; ++i) ++number[(rank[i] >> shift) & (kDigits - 1)];
}

int64_t count_group(uint32_t* from, uint32_t* to, int64_t begin, int64_t end, int shift,
                    const uint32_t (*smaller)[kDigits]) {
  if (end - begin <= kFew) return count_few(from + begin, end - begin);
  if (shift < 0) return 0;
  int64_t number[kDigits], next[kDigits], first[kDigits + 1];
  count_digits(from, begin, end, shift, number);
  first[0] = begin;
  for (int d = 0; d < kDigits; ++d) {
    next[d] = first[d];
    first[d + 1] = first[d] + number[d];
  }
  alignas(64) uint32_t met[kDigits] = {};
  int64_t pairs = count_deal(from, to, begin, end, shift, smaller, met, next);
  for (int d = 0; d < kDigits; ++d) {
    pairs += count_group(to, from, first[d], first[d + 1], next_shift(shift), smaller);
  }
  return pairs;
}

// Pairs i < j with rank_i < rank_j; chunk_totals int64 [pair_chunks(n), kDigits].
int64_t count_rising(uint32_t* rank, uint32_t* other, int64_t n, int bits, int64_t* chunk_totals, int threads) {
  alignas(64) uint32_t smaller[kDigits][kDigits];
  for (int e = 0; e < kDigits; ++e) {
    for (int d = 0; d < kDigits; ++d) smaller[e][d] = d > e;
  }
  const int shift = first_shift(bits);
  const int64_t chunks = pair_chunks(n);
  if (chunks <= 1 || shift < 0) return count_group(rank, other, 0, n, shift, smaller);
  parallel_tasks(chunks, threads, [&](int64_t c) {
    const int64_t last = (c + 1) * kPairChunk < n ? (c + 1) * kPairChunk : n;
    count_digits(rank, c * kPairChunk, last, shift, chunk_totals + c * kDigits);
  });
  int64_t number[kDigits] = {}, first[kDigits + 1] = {};
  for (int64_t c = 0; c < chunks; ++c) {
    for (int d = 0; d < kDigits; ++d) {
      const int64_t here = chunk_totals[c * kDigits + d];
      chunk_totals[c * kDigits + d] = number[d];
      number[d] += here;
    }
  }
  for (int d = 0; d < kDigits; ++d) first[d + 1] = first[d] + number[d];
  int64_t pairs = 0;
  parallel_tasks(chunks, threads, [&](int64_t c) {
    const int64_t last = (c + 1) * kPairChunk < n ? (c + 1) * kPairChunk : n;
    const int64_t* before = chunk_totals + c * kDigits;
    int64_t next[kDigits];
    alignas(64) uint32_t met[kDigits];
    uint32_t lower = 0;
    for (int d = 0; d < kDigits; ++d) {
      next[d] = first[d] + before[d];
      met[d] = lower;
      lower += static_cast<uint32_t>(before[d]);
    }
    const int64_t counted = count_deal(rank, other, c * kPairChunk, last, shift, smaller, met, next);
    __atomic_fetch_add(&pairs, counted, __ATOMIC_RELAXED);
  });
  dynamic_tasks(kDigits, threads, [&](int64_t d) {
    const int64_t counted = count_group(other, rank, first[d], first[d + 1], next_shift(shift), smaller);
    __atomic_fetch_add(&pairs, counted, __ATOMIC_RELAXED);
  });
  return pairs;
}

// Pairs of one range that are tied.
struct Ties {
  int64_t a, b, both, close;
};

template <typename Value>
struct Scratch {
  using Key = typename KeyOf<Value>::type;
  Value *a, *b;
  uint64_t* by_b;  // in the order of falling b: an element, and its level above it
  uint32_t *ordered, *other;
  int64_t* chunk_totals;
  Ties* ties;  // of a range
  RadixSort<Key> sort;

  Scratch(Arena& arena, const RowPairArgs& args, int threads)
      : a(arena.take<Value>(args.mask != nullptr ? args.most : 0)),
        b(arena.take<Value>(args.mask != nullptr ? args.most : 0)),
        by_b(arena.take<uint64_t>(args.most)),
        ordered(arena.take<uint32_t>(args.most)),
        other(arena.take<uint32_t>(args.most)),
        chunk_totals(arena.take<int64_t>(pair_chunks(args.most) * kDigits)),
        ties(arena.take<Ties>(threads)),
        sort(arena, args.most, threads) {}
};

SURE_FAST_INLINE int64_t pairs_of(int64_t n) { return n * (n - 1) / 2; }

// The element of a word that has its level in b above it.
SURE_FAST_INLINE uint32_t element_of(uint64_t word) { return static_cast<uint32_t>(word); }
SURE_FAST_INLINE uint32_t level_of(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

// Elements begin..end have equal a and falling b: pairs with 0 < b_k - b_i < tolerance.
template <typename Value>
int64_t close_pairs(const Value* b, const uint64_t* by_b, const uint32_t* order, int64_t begin, int64_t end,
                    double tolerance) {
  const auto value = [&](int64_t i) { return b[element_of(by_b[order[i]])]; };
  int64_t close = 0, near = begin, same = begin;
  for (int64_t i = begin; i < end; ++i) {
    const Value here = value(i);
    while (value(same) != here) ++same;
    while (near < same && !(static_cast<double>(value(near)) < static_cast<double>(here) + tolerance)) ++near;
    close += same - near;
  }
  return close;
}

// Sorts by falling b, elements and levels into s.by_b, then by rising a; s.ordered: ranks in b, rising, in that order.
// Returns the last level.
template <typename Value>
uint32_t order_row(const RowPair<Value>& x, int threads, Scratch<Value>& s) {
  using Key = typename KeyOf<Value>::type;
  const int64_t n = x.count;
  auto& sort = s.sort;
  parallel_ranges(n, threads, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      sort.keys[i] = static_cast<Key>(~sort_key(x.b[i]));
      sort.payload[i] = static_cast<uint32_t>(i);
    }
  });
  sort.run(n, threads);
  sort.each_run(n, threads, [&](int64_t r, int64_t begin, int64_t end) { s.ties[r].b += pairs_of(end - begin); });
  const uint32_t top = sort.each_level(n, threads, [&](int64_t i, uint32_t level) {
    const uint32_t element = sort.payload[i];
    s.by_b[i] = uint64_t{level} << 32 | element;
    sort.other_keys[i] = sort_key(x.a[element]);
    sort.other_payload[i] = static_cast<uint32_t>(i);
  });
  sort.swap_keys();
  sort.swap_payload();
  sort.run(n, threads);
  parallel_ranges(n, threads, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) s.ordered[i] = top - level_of(s.by_b[sort.payload[i]]);
  });
  return top;
}

template <typename Value>
void count_row(const RowPairArgs& args, int64_t row, double tolerance, int threads, Scratch<Value> s, int64_t* out) {
  const RowPair<Value> x = compact_row(args, row, s.a, s.b);
  const int64_t n = x.count;
  for (int i = 0; i < 6; ++i) out[i] = 0;
  if (n == 0) return;
  bool spoiled = false;
  for (int64_t i = 0; i < n; ++i) spoiled |= (x.a[i] != x.a[i]) | (x.b[i] != x.b[i]);
  if (spoiled) {
    for (int i = 0; i < 6; ++i) out[i] = -1;
    return;
  }
  memset(s.ties, 0, sizeof(Ties) * static_cast<size_t>(threads));
  const uint32_t top = order_row(x, threads, s);
  s.sort.each_run(n, threads, [&](int64_t r, int64_t begin, int64_t end) {
    Ties& ties = s.ties[r];
    ties.a += pairs_of(end - begin);
    for (int64_t i = begin, same = begin; i < end; i = same) {
      while (same < end && s.ordered[same] == s.ordered[i]) ++same;
      ties.both += pairs_of(same - i);
    }
    if (tolerance > 0 && end - begin > 1) {
      ties.close += close_pairs(x.b, s.by_b, s.sort.payload, begin, end, tolerance);
    }
  });
  Ties tied = {0, 0, 0, 0};
  for (int r = 0; r < threads; ++r) {
    tied = {tied.a + s.ties[r].a, tied.b + s.ties[r].b, tied.both + s.ties[r].both, tied.close + s.ties[r].close};
  }
  out[0] = count_rising(s.ordered, s.other, n, bits_needed(int64_t{top} + 1), s.chunk_totals, threads);
  out[1] = pairs_of(n) - out[0] - tied.a - tied.b + tied.both;
  out[2] = tied.a - tied.both;
  out[3] = tied.b - tied.both;
  out[4] = tied.both;
  out[5] = tied.close;
}

template <typename Value>
int64_t scratch_bytes(const RowPairArgs& args) {
  Arena arena(nullptr);
  Scratch<Value>(arena, args, team_of(args.rows, args.most, args.threads).inner);
  return arena.used();
}

template <typename Value>
void run(const RowPairArgs& args, double tolerance, void* workspace, int64_t* counts) {
  const Team team = team_of(args.rows, args.most, args.threads);
  const int64_t bytes = scratch_bytes<Value>(args);
  dynamic_tasks(args.rows, team.outer, [&](int64_t row) {
    Arena arena(static_cast<char*>(workspace) + (team.outer > 1 ? thread_index() : 0) * bytes);
    count_row<Value>(args, row, tolerance, team.inner, Scratch<Value>(arena, args, team.inner), counts + 6 * row);
  });
}

}  // namespace

int64_t pair_concordance_workspace(const RowPairArgs& args) {
  const int64_t one = args.dtype == DType::f64 ? scratch_bytes<double>(args) : scratch_bytes<float>(args);
  return team_of(args.rows, args.most, args.threads).outer * one;
}

void pair_concordance_forward(const RowPairArgs& args, double tolerance, void* workspace, int64_t* counts) {
  args.dtype == DType::f64 ? run<double>(args, tolerance, workspace, counts)
                           : run<float>(args, tolerance, workspace, counts);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
