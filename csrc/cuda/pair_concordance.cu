// Concordant, discordant and tied pairs of two rankings a, b of n elements, row by row (Knight, JASA 61, 1966).
// The masked elements are compacted; pairs that rise in both are counted while the positions in a are dealt bit by bit
// in the order of b (rankings.h, partners.h); ties are runs of both orders, their ends found by bisection.
// As many rows together as make 2^22 elements. Integer sums: exact. Bytes per element: a and b once, then about 12 sort
// passes of 20 (float64: 24 of 28) and log2 n - 10 dealing passes of 24; bound by these.
#include "cuda/masked_rows.h"
#include "cuda/partners.h"

namespace sure_fast {
namespace {

struct RowCounts {
  unsigned long long concordant, tied_a, tied_b, both, close, spoiled;
};

SURE_FAST_DEVICE RowCounts operator+(const RowCounts& x, const RowCounts& y) {
  return {x.concordant + y.concordant, x.tied_a + y.tied_a,  x.tied_b + y.tied_b, x.both + y.both,
          x.close + y.close,           x.spoiled + y.spoiled};
}

__global__ void start_counting(const uint32_t* length, const uint32_t* sequence, const uint32_t* positions,
                               Dealing<false> d, uint32_t* order) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, m = *length;
  const int half = top_bit(m) & 1;
  for (int64_t p = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; p < m; p += step) {
    order[p] = sequence[positions[p]];
    store(d, half, positions[p], {static_cast<uint32_t>(p), 0, 0, 0});
  }
}

// order: elements by rising a, falling b; sequence: by falling row, rising b.
template <typename Value>
__global__ void __launch_bounds__(kRowThreads, 4)
    count_slices(Rankings<Value> r, const uint32_t* begins, int64_t slices, const uint32_t* order,
                 const uint32_t* sequence, const uint32_t* number, double tolerance, RowCounts* counts) {
  __shared__ RowCounts shared[kRowThreads];
  const RowSlice slice = row_slice(begins, slices);
  const int64_t m = *r.length, begin = begins[slice.row], end = begins[slice.row + 1];
  const auto a = [&](int64_t p) { return r.g[r.map_index(order[p])]; };
  const auto b = [&](int64_t p) { return r.u[r.map_index(order[p])]; };
  const auto b_rising = [&](int64_t s) { return r.u[r.map_index(sequence[s])]; };
  RowCounts own = {0, 0, 0, 0, 0, 0};
  for (int64_t p = slice.first + threadIdx.x; p < slice.last; p += kRowThreads) {
    const Value x = a(p), y = b(p);
    own.concordant += number[p];
    own.spoiled += x != x || y != y;
    const int64_t run = first_not(begin, p, [&](int64_t i) { return a(i) < x; });
    const int64_t same = first_not(run, p, [&](int64_t i) { return b(i) > y; });
    own.tied_a += static_cast<unsigned long long>(p - run);
    own.both += static_cast<unsigned long long>(p - same);
    if (tolerance > 0) {
      const double limit = static_cast<double>(y) + tolerance;
      const int64_t near = first_not(run, same, [&](int64_t i) { return !(static_cast<double>(b(i)) < limit); });
      own.close += static_cast<unsigned long long>(same - near);
    }
    const int64_t s = m - 1 - p;  // rows lie the other way round
    const Value z = b_rising(s);
    own.tied_b +=
        static_cast<unsigned long long>(s - first_not(m - end, s, [&](int64_t i) { return b_rising(i) < z; }));
  }
  const RowCounts all = block_sum<kRowThreads>(own, shared);
  if (threadIdx.x == 0) counts[blockIdx.x] = all;
}

__global__ void __launch_bounds__(kRowThreads, 4)
    finish_counts(const RowCounts* counts, int64_t slices, const uint32_t* begins, int64_t* out) {
  __shared__ RowCounts shared[kRowThreads];
  const int64_t row = blockIdx.x;
  const RowCounts own = threadIdx.x < slices ? counts[row * slices + threadIdx.x] : RowCounts{0, 0, 0, 0, 0, 0};
  const RowCounts x = block_sum<kRowThreads>(own, shared);
  if (threadIdx.x != 0) return;
  const unsigned long long n = begins[row + 1] - begins[row], pairs = n > 0 ? n * (n - 1) / 2 : 0;
  const unsigned long long record[6] = {
      x.concordant, pairs - x.concordant - x.tied_a - x.tied_b + x.both, x.tied_a - x.both, x.tied_b - x.both, x.both,
      x.close};
  for (int i = 0; i < 6; ++i) out[row * 6 + i] = x.spoiled != 0 ? -1 : static_cast<int64_t>(record[i]);
}

// Bytes of scratch where `counts` is null.
template <typename Value>
int64_t run(const RowPairArgs& a, const Stream& stream, double tolerance, void* workspace, int64_t* counts) {
  using Key = typename KeyOf<Value>::type;
  Arena arena(workspace);
  const MaskedRows rows(a, arena);
  const SortBuffers<Key> sort(arena, rows.capacity, sort_blocks(stream, rows.capacity));
  uint32_t* sequence = arena.take<uint32_t>(rows.capacity);
  const Dealing<false> dealing(arena, rows.capacity);
  Sums* totals = arena.take<Sums>(deal_tiles(rows.capacity) + 1);
  RowCounts* sums = arena.take<RowCounts>(rows.rows * rows.slices);
  for (int64_t first = 0; counts != nullptr && first < a.rows; first += rows.rows) {
    const Rankings<Value> r = rows.compact<Value>(a, stream, first);
    const int half = order_rankings(stream, sort, r, sequence);
    uint32_t* order = sort.payload[half ^ 1];
    launch(stream, "start_counting", fill(stream, ceil_div<int64_t>(r.capacity, 256)), 256, start_counting, r.length,
           sequence, sort.payload[half], dealing, order);
    deal(stream, dealing, totals, r.capacity, r.length);
    launch(stream, "count_slices", r.rows * rows.slices, kRowThreads, count_slices<Value>, r, rows.begins, rows.slices,
           order, sequence, dealing.number[0], tolerance, sums);
    launch(stream, "finish_counts", r.rows, kRowThreads, finish_counts, sums, rows.slices, rows.begins,
           counts + first * 6);
  }
  return arena.used();
}

}  // namespace

int64_t pair_concordance_workspace(const RowPairArgs& a, const Stream& stream) {
  return a.dtype == DType::f64 ? run<double>(a, stream, 0, nullptr, nullptr)
                               : run<float>(a, stream, 0, nullptr, nullptr);
}

void pair_concordance_forward(const RowPairArgs& a, const Stream& stream, double tolerance, void* workspace,
                              int64_t* counts) {
  a.dtype == DType::f64 ? run<double>(a, stream, tolerance, workspace, counts)
                        : run<float>(a, stream, tolerance, workspace, counts);
}

}  // namespace sure_fast
