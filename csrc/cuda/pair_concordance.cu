// Concordant, discordant and tied pairs of two rankings a, b of n elements, row by row (Knight, JASA 61, 1966).
// The masked elements are compacted; pairs that rise in both are counted while the positions in a are dealt in the
// order of b (rankings.h, partners.h); ties are runs of both orders, their ends found by bisection. As many rows
// together as make 2^22 elements. Integer sums: exact. Bytes per element: a and b once, then 8 sort passes of 20
// (float64: 14 of up to 32) and a dealing pass of 12 for six bits above ten; bound by these.
#include "cuda/masked_rows.h"
#include "cuda/partners.h"

namespace sure_fast {
namespace {

struct RowCounts {
  unsigned long long tied_a, tied_b, both, close, spoiled;
};

SURE_FAST_DEVICE RowCounts operator+(const RowCounts& x, const RowCounts& y) {
  return {x.tied_a + y.tied_a, x.tied_b + y.tied_b, x.both + y.both, x.close + y.close, x.spoiled + y.spoiled};
}

__global__ void start_counting(Sorted keys, DealDigits digits, Dealing<NoWeight> d) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, m = *d.length;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const uint32_t* list = keys.list();
  const int half = digits.start(m);
  for (int64_t i = first; i < m; i += step) pick(d.key, half)[i] = list[i];
  for (int64_t row = first; row < d.rows; row += step) d.pairs[row] = 0;
}

// order: elements by rising a, falling b; sequence: by falling row, rising b. g is b, u is a.
template <typename Value>
__global__ void __launch_bounds__(kRowThreads, 4)
    count_slices(Rankings<Value> r, const uint32_t* begins, int64_t slices, const uint32_t* order,
                 const uint32_t* sequence, double tolerance, RowCounts* counts) {
  SURE_FAST_SHARED(shared, RowCounts[kRowThreads]);
  const RowSlice slice = row_slice(begins, slices);
  const int64_t m = *r.length, begin = begins[slice.row], end = begins[slice.row + 1];
  const auto a = [&](int64_t p) { return r.u[order[p]]; };
  const auto b = [&](int64_t p) { return r.g[order[p]]; };
  const auto b_rising = [&](int64_t s) { return r.g[sequence[s]]; };
  RowCounts own = {0, 0, 0, 0, 0};
  for (int64_t p = slice.first + threadIdx.x; p < slice.last; p += kRowThreads) {
    const Value x = a(p), y = b(p);
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
    finish_counts(const RowCounts* counts, int64_t slices, const uint32_t* begins, const unsigned long long* concordant,
                  int64_t* out) {
  SURE_FAST_SHARED(shared, RowCounts[kRowThreads]);
  const int64_t row = blockIdx.x;
  const RowCounts own = threadIdx.x < slices ? counts[row * slices + threadIdx.x] : RowCounts{0, 0, 0, 0, 0};
  const RowCounts x = block_sum<kRowThreads>(own, shared);
  if (threadIdx.x != 0) return;
  const unsigned long long n = begins[row + 1] - begins[row], pairs = n > 0 ? n * (n - 1) / 2 : 0;
  const unsigned long long rising = concordant[row] / 2;
  const unsigned long long record[6] = {
      rising, pairs - rising - x.tied_a - x.tied_b + x.both, x.tied_a - x.both, x.tied_b - x.both, x.both, x.close};
  for (int i = 0; i < 6; ++i) out[row * 6 + i] = x.spoiled != 0 ? -1 : static_cast<int64_t>(record[i]);
}

// Bytes of scratch where `counts` is null.
template <typename Value>
int64_t run(const RowPairArgs& a, const Stream& stream, double tolerance, void* workspace, int64_t* counts) {
  Arena arena(workspace);
  const MaskedRows rows(a, arena);
  const RankingMemory<Value> memory(arena, rows.compaction, rows.capacity, sort_blocks(stream, rows.capacity), false);
  const Arena behind = arena;
  Dealing<NoWeight>(arena, memory.last.payload, rows.capacity, rows.rows, nullptr, rows.begins, NoWeight{});
  RowCounts* sums = arena.take<RowCounts>(rows.rows * rows.slices);
  for (int64_t first = 0; counts != nullptr && first < a.rows; first += rows.rows) {
    const Rankings<Value> masked = rows.compact<Value>(a, stream, first);
    Rankings<Value> r = masked;
    r.g = masked.u;
    r.u = masked.g;
    Arena again = behind;
    const Dealing<NoWeight> dealing(again, memory.last.payload, rows.capacity, r.rows, r.length, rows.begins,
                                    NoWeight{});
    const Sorted keys = order_rankings(stream, memory, r);
    launch(stream, "start_counting", fill(stream, ceil_div<int64_t>(r.capacity, 256)), 256, start_counting, keys,
           DealDigits(rows.capacity), dealing);
    deal(stream, dealing, rows.capacity, rows.compaction.gate);
    launch(stream, "count_slices", r.rows * rows.slices, kRowThreads, count_slices<Value>, r, rows.begins, rows.slices,
           memory.order, memory.runs.sequence, tolerance, sums);
    launch(stream, "finish_counts", r.rows, kRowThreads, finish_counts, sums, rows.slices, rows.begins, dealing.pairs,
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
