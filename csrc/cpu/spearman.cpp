// Spearman's rank correlation of two maps [rows, n], row by row, ties sharing their average rank.
//   r = sum c_a c_b / sqrt(sum c_a^2 sum c_b^2), c = 2 rank - (n - 1), an integer; sum c^2 = (n^3 - n - sum (t^3 - t))
//   / 3 over the runs of t tied elements.
// b is sorted and its ranks written in place, a is sorted with the ranks of b as its payload, run by run of equal a the
// products are added up. Parallel over rows, or inside a row where there are fewer rows than threads.
// Integer sums of 128 bits: exact for any n below 2^31. Bytes per element: a and b once, 16 of scratch (24 for
// float64), O(n). Bound by the scattered writes of the two radix sorts.
#include "cpu/spearman.h"

#include "cpu/sort.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

template <typename Value>
struct Scratch {
  using Key = typename KeyOf<Value>::type;
  Value *a, *b;
  int128* sums;  // of a range: products, cubes
  RadixSort<Key> sort;

  Scratch(Arena& arena, const RowPairArgs& args, int threads)
      : a(arena.take<Value>(args.mask != nullptr ? args.most : 0)),
        b(arena.take<Value>(args.mask != nullptr ? args.most : 0)),
        sums(arena.take<int128>(2 * threads)),
        sort(arena, args.most, threads) {}
};

// The sum of one of the two numbers of each range.
int128 over_ranges(const int128* sums, int which, int64_t n, int threads) {
  int128 total = 0;
  for (int r = 0; r < ranges_of(n, threads); ++r) total += sums[2 * r + which];
  return total;
}

template <typename Value>
double correlate_row(const RowPairArgs& args, int64_t row, int threads, Scratch<Value> s) {
  const RowPair<Value> x = compact_row(args, row, s.a, s.b);
  const int64_t n = x.count;
  auto& sort = s.sort;
  bool spoiled = false;
  parallel_ranges(n, threads, [&](int64_t first, int64_t last) {
    bool nan = false;
    for (int64_t i = first; i < last; ++i) {
      sort.keys[i] = sort_key(x.b[i]);
      sort.payload[i] = static_cast<uint32_t>(i);
      nan |= x.a[i] != x.a[i] || x.b[i] != x.b[i];
    }
    if (nan) __atomic_store_n(&spoiled, true, __ATOMIC_RELAXED);
  });
  if (spoiled || n < 2) return __builtin_nan("");
  sort.run(n, threads);
  memset(static_cast<void*>(s.sums), 0, sizeof(int128) * 2 * static_cast<size_t>(threads));
  sort.each_run(n, threads, [&](int64_t r, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sort.other_payload[sort.payload[i]] = static_cast<uint32_t>(begin + end - 1);
    if (end - begin > 1) s.sums[2 * r] += cube_less(end - begin);
  });
  const int128 spread_b = cube_less(n) - over_ranges(s.sums, 0, n, threads);
  sort.swap_payload();  // the doubled ranks
  parallel_ranges(n, threads, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) sort.keys[i] = sort_key(x.a[i]);
  });
  sort.run(n, threads);
  memset(static_cast<void*>(s.sums), 0, sizeof(int128) * 2 * static_cast<size_t>(threads));
  sort.each_run(n, threads, [&](int64_t r, int64_t begin, int64_t end) {
    int64_t sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += static_cast<int64_t>(sort.payload[i]) - (n - 1);
    s.sums[2 * r + 1] += static_cast<int128>(begin + end - n) * sum;
    if (end - begin > 1) s.sums[2 * r] += cube_less(end - begin);
  });
  const int128 spread_a = cube_less(n) - over_ranges(s.sums, 0, n, threads);
  return rank_correlation(over_ranges(s.sums, 1, n, threads), spread_a, spread_b);
}

template <typename Value>
int64_t scratch_bytes(const RowPairArgs& args) {
  Arena arena(nullptr);
  Scratch<Value>(arena, args, team_of(args.rows, args.most, args.threads).inner);
  return arena.used();
}

template <typename Value>
void run(const RowPairArgs& args, void* workspace, double* out) {
  const Team team = team_of(args.rows, args.most, args.threads);
  const int64_t bytes = scratch_bytes<Value>(args);
  dynamic_tasks(args.rows, team.outer, [&](int64_t row) {
    Arena arena(static_cast<char*>(workspace) + (team.outer > 1 ? thread_index() : 0) * bytes);
    out[row] = correlate_row<Value>(args, row, team.inner, Scratch<Value>(arena, args, team.inner));
  });
}

}  // namespace

int64_t spearman_workspace(const RowPairArgs& args) {
  const int64_t one = args.dtype == DType::f64 ? scratch_bytes<double>(args) : scratch_bytes<float>(args);
  return team_of(args.rows, args.most, args.threads).outer * one;
}

void spearman_forward(const RowPairArgs& args, void* workspace, double* out) {
  args.dtype == DType::f64 ? run<double>(args, workspace, out) : run<float>(args, workspace, out);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
