// Concordant, discordant and tied pairs of two rankings a, b of n elements, row by row (Knight, JASA 61, 1966).
// In the order of rising a, falling b where a is equal, a pair is concordant exactly when its rank in b rises. Those
// are counted while the ranks are dealt digit by digit; ties are runs of the sorted keys.
// Parallel over rows, or inside a row where there are fewer rows than threads. Integer sums: exact.
// Bytes per element: a and b once, 20 of scratch. Bound by the two radix sorts and the dealing, O(n log n).
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
    number.add(CountLanes::from(smaller[digit]));
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

template <typename Value>
struct Scratch {
  using Key = typename KeyOf<Value>::type;
  Value *a, *b;
  uint32_t *rank, *ordered, *other;
  int64_t* chunk_totals;
  RadixSort<Key> sort;

  Scratch(Arena& arena, const RowPairArgs& args, int threads)
      : a(arena.take<Value>(args.mask != nullptr ? args.most : 0)),
        b(arena.take<Value>(args.mask != nullptr ? args.most : 0)),
        rank(arena.take<uint32_t>(args.most)),
        ordered(arena.take<uint32_t>(args.most)),
        other(arena.take<uint32_t>(args.most)),
        chunk_totals(arena.take<int64_t>(pair_chunks(args.most) * kDigits)),
        sort(arena, args.most, threads) {}
};

SURE_FAST_INLINE int64_t pairs_of(int64_t n) { return n * (n - 1) / 2; }

// Elements begin..end have equal a and falling b: pairs with 0 < b_k - b_i < tolerance.
template <typename Value>
int64_t close_pairs(const Value* b, const uint32_t* order, int64_t begin, int64_t end, double tolerance) {
  int64_t close = 0, near = begin, same = begin;
  for (int64_t i = begin; i < end; ++i) {
    const double here = static_cast<double>(b[order[i]]);
    while (b[order[same]] != b[order[i]]) ++same;
    while (near < same && !(static_cast<double>(b[order[near]]) < here + tolerance)) ++near;
    close += same - near;
  }
  return close;
}

template <typename Value>
void count_row(const RowPairArgs& args, int64_t row, double tolerance, int threads, Scratch<Value> s, int64_t* out) {
  using Key = typename KeyOf<Value>::type;
  const RowPair<Value> x = compact_row(args, row, s.a, s.b);
  const int64_t n = x.count;
  for (int i = 0; i < 6; ++i) out[i] = 0;
  if (n == 0) return;
  bool spoiled = false;
  for (int64_t i = 0; i < n; ++i) {
    s.sort.keys[i] = static_cast<Key>(~sort_key(x.b[i]));
    s.sort.payload[i] = static_cast<uint32_t>(i);
    spoiled |= x.a[i] != x.a[i] || x.b[i] != x.b[i];
  }
  if (spoiled) {
    for (int i = 0; i < 6; ++i) out[i] = -1;
    return;
  }
  s.sort.run(n, threads);
  int64_t tied_b = 0, run = 0;
  uint32_t level = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (i > 0 && s.sort.keys[i] != s.sort.keys[i - 1]) {
      ++level;
      tied_b += pairs_of(i - run);
      run = i;
    }
    s.rank[s.sort.payload[i]] = level;
  }
  tied_b += pairs_of(n - run);
  for (int64_t i = 0; i < n; ++i) s.sort.keys[i] = sort_key(x.a[s.sort.payload[i]]);
  s.sort.run(n, threads);
  int64_t tied_a = 0, both = 0, close = 0, run_both = 0;
  run = 0;
  for (int64_t i = 0; i <= n; ++i) {
    const bool ends = i == n || (i > 0 && s.sort.keys[i] != s.sort.keys[i - 1]);
    if (i < n) s.ordered[i] = level - s.rank[s.sort.payload[i]];
    if (ends || (i > 0 && s.ordered[i] != s.ordered[i - 1])) {
      both += pairs_of(i - run_both);
      run_both = i;
    }
    if (ends) {
      tied_a += pairs_of(i - run);
      if (tolerance > 0 && i - run > 1) close += close_pairs(x.b, s.sort.payload, run, i, tolerance);
      run = i;
    }
  }
  const int bits = bits_needed(static_cast<int64_t>(level) + 1);
  out[0] = count_rising(s.ordered, s.other, n, bits, s.chunk_totals, threads);
  out[1] = pairs_of(n) - out[0] - tied_a - tied_b + both;
  out[2] = tied_a - both;
  out[3] = tied_b - both;
  out[4] = both;
  out[5] = close;
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
