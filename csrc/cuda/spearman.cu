// Spearman's rank correlation of two maps [rows, n], row by row, ties sharing their average rank.
//   r = sum c_a c_b / sqrt(sum c_a^2 sum c_b^2), c = 2 rank - (n - 1), an integer; 3 sum c^2 = n^3 - n - sum (t^3 - t)
//   over the runs of t tied elements.
// The masked elements are compacted and sorted by b, then by a; each finds the ends of its run by bisection. As many
// rows together as make 2^22 elements; sums over fixed slices of a row, in integers of 128 bits: exact.
// Bytes per element: a and b once, then 6 sort passes of 20 (float64: 12 of 32); bound by these.
#include "cuda/masked_rows.h"

namespace sure_fast {
namespace {

struct RankSums {
  int128 product, ties_a, ties_b;  // sum c_a c_b, and of t^2 - 1 over the elements
  unsigned long long spoiled;
};

SURE_FAST_DEVICE RankSums operator+(const RankSums& x, const RankSums& y) {
  return {x.product + y.product, x.ties_a + y.ties_a, x.ties_b + y.ties_b, x.spoiled + y.spoiled};
}

// Where the run of equal values around position p of the row [begin, end) of `order` begins and ends.
template <typename Value>
SURE_FAST_DEVICE void find_run(const Rankings<Value>& r, const Value* values, const uint32_t* order, int64_t begin,
                               int64_t end, int64_t p, int64_t& first, int64_t& last) {
  const auto value = [&](int64_t i) { return values[r.map_index(order[i])]; };
  const Value x = value(p);
  first = first_not(begin, p, [&](int64_t i) { return value(i) < x; });
  last = first_not(p, end, [&](int64_t i) { return !(value(i) > x); });
}

// The doubled rank in b of each element.
template <typename Value>
__global__ void __launch_bounds__(kRowThreads, 4) rank_slices(Rankings<Value> r, const uint32_t* begins, int64_t slices,
                                                              const uint32_t* order, uint32_t* rank, RankSums* sums) {
  SURE_FAST_SHARED(shared, RankSums[kRowThreads]);
  const RowSlice slice = row_slice(begins, slices);
  const int64_t begin = begins[slice.row], end = begins[slice.row + 1];
  RankSums own = {0, 0, 0, 0};
  for (int64_t p = slice.first + threadIdx.x; p < slice.last; p += kRowThreads) {
    int64_t first, last;
    find_run(r, r.u, order, begin, end, p, first, last);
    rank[order[p]] = static_cast<uint32_t>(first + last - 1 - 2 * begin);
    own.ties_b += (last - first) * (last - first) - 1;
    const Value b = r.u[r.map_index(order[p])];
    own.spoiled += b != b;
  }
  const RankSums all = block_sum<kRowThreads>(own, shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = all;
}

template <typename Value>
__global__ void __launch_bounds__(kRowThreads, 4)
    correlate_slices(Rankings<Value> r, const uint32_t* begins, int64_t slices, const uint32_t* order,
                     const uint32_t* rank, RankSums* sums) {
  SURE_FAST_SHARED(shared, RankSums[kRowThreads]);
  const RowSlice slice = row_slice(begins, slices);
  const int64_t begin = begins[slice.row], end = begins[slice.row + 1], n = end - begin;
  RankSums own = {0, 0, 0, 0};
  for (int64_t p = slice.first + threadIdx.x; p < slice.last; p += kRowThreads) {
    int64_t first, last;
    find_run(r, r.g, order, begin, end, p, first, last);
    const int64_t here = first + last - 2 * begin - n, there = static_cast<int64_t>(rank[order[p]]) - (n - 1);
    own.product += here * there;
    own.ties_a += (last - first) * (last - first) - 1;
    const Value a = r.g[r.map_index(order[p])];
    own.spoiled += a != a;
  }
  const RankSums all = block_sum<kRowThreads>(own, shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = sums[blockIdx.x] + all;
}

__global__ void __launch_bounds__(kRowThreads, 4)
    finish_correlations(const RankSums* sums, int64_t slices, const uint32_t* begins, double* out) {
  SURE_FAST_SHARED(shared, RankSums[kRowThreads]);
  const int64_t row = blockIdx.x;
  const RankSums own = threadIdx.x < slices ? sums[row * slices + threadIdx.x] : RankSums{0, 0, 0, 0};
  const RankSums x = block_sum<kRowThreads>(own, shared);
  if (threadIdx.x != 0) return;
  const int64_t n = begins[row + 1] - begins[row];
  const int128 all = cube_less(n);
  out[row] =
      x.spoiled != 0 || n < 2 ? static_cast<double>(NAN) : rank_correlation(x.product, all - x.ties_a, all - x.ties_b);
}

// Bytes of scratch where `out` is null.
template <typename Value>
int64_t run(const RowPairArgs& a, const Stream& stream, void* workspace, double* out) {
  using Key = typename KeyOf<Value>::type;
  Arena arena(workspace);
  const MaskedRows rows(a, arena);
  const SortBuffers<Key> sort(arena, rows.capacity, sort_blocks(stream, rows.capacity), rows.compaction.gate);
  const SortBuffers<uint32_t> by_row(sort);
  const LabelMemory no_labels(arena, false);
  uint32_t* rank = arena.take<uint32_t>(rows.capacity);
  RankSums* sums = arena.take<RankSums>(rows.rows * rows.slices);
  for (int64_t first = 0; out != nullptr && first < a.rows; first += rows.rows) {
    const Rankings<Value> r = rows.compact<Value>(a, stream, first);
    const auto sorted_by = [&](const Value* values) {
      const Sorted sorted = sort_by(stream, sort, Start::rising, 0, ValueKey<Value>{values, r, nullptr},
                                    8 * static_cast<int>(sizeof(Value)), nullptr, r.capacity, r.length);
      const Sorted grouped = sort_groups(stream, by_row, Start::given, sorted.half(), r, no_labels, false);
      return grouped.payload[grouped.half()];
    };
    launch(stream, "rank_slices", r.rows * rows.slices, kRowThreads, rank_slices<Value>, r, rows.begins, rows.slices,
           sorted_by(r.u), rank, sums);
    launch(stream, "correlate_slices", r.rows * rows.slices, kRowThreads, correlate_slices<Value>, r, rows.begins,
           rows.slices, sorted_by(r.g), rank, sums);
    launch(stream, "finish_correlations", r.rows, kRowThreads, finish_correlations, sums, rows.slices, rows.begins,
           out + first);
  }
  return arena.used();
}

}  // namespace

int64_t spearman_workspace(const RowPairArgs& a, const Stream& stream) {
  return a.dtype == DType::f64 ? run<double>(a, stream, nullptr, nullptr) : run<float>(a, stream, nullptr, nullptr);
}

void spearman_forward(const RowPairArgs& a, const Stream& stream, void* workspace, double* out) {
  a.dtype == DType::f64 ? run<double>(a, stream, workspace, out) : run<float>(a, stream, workspace, out);
}

}  // namespace sure_fast
