// Gradient-uncertainty loss of maps [rows, n], over B = {i : d_i <= threshold}, and its gradient in u.
//   v_ij = (g_i - g_j)(u_i - u_j), loss = sum v+ / #{v > 0}, dloss/du_i = sum of (g_i - g_j) over violating j, / #{v >
//   0}
// With `normalize` loss and slopes are divided by the standard deviations of g and u over B, s_u differentiated.
// B is compacted, then every pair is counted by sorting (rankings.h, partners.h), or directly where a row is short, or
// pairs are drawn (splitmix64 of seed, row, draw). As many rows together as make 2^22 voxels; no grid depends on |B|.
// Slopes are sums of g in 64-bit fixed point, of range * 2^-(62 - log2 |B|): exact, whatever the order; the loss is a
// float64 sum in fixed slices. Bytes per voxel: d and the slope once; per voxel of B 8 sort passes of 20 (float64: 14
// of up to 32), a dealing pass of 40 (52) for six bits above ten, 140 for what is gathered. Bound by these, or by
// reading d where B is thin.
#include "cuda/gradient_uncertainty_loss.h"

#include "cuda/compact.h"
#include "cuda/partners.h"
#include "cuda/row_scales.h"
#include "math/random.h"

namespace sure_fast {
namespace {

constexpr int kPairThreads = 256;
constexpr int64_t kDrawsEach = 4096;  // draws a block makes

// Marks B and clears the slopes in passing.
template <typename Value, typename Distance>
struct NearAndClear {
  const Distance* distance;
  Distance threshold;
  Value* slope;
  SURE_FAST_DEVICE_MEMBER bool operator()(int64_t i) const {
    slope[i] = Value(0);
    return distance[i] <= threshold;
  }
};

// What a row, or a slice of it, adds up to.
struct PairSum {
  unsigned long long pairs;
  double violation;
};

SURE_FAST_DEVICE PairSum operator+(const PairSum& x, const PairSum& y) {
  return {x.pairs + y.pairs, x.violation + y.violation};
}

// g in the fixed point of its row.
template <typename V>
struct FixedWeight {
  using Value = V;
  static constexpr bool kWeighted = true;
  const RowScale* scales;
  SURE_FAST_DEVICE_MEMBER Fixed operator()(V g, int row) const {
    return scales[row].spoiled ? 0 : static_cast<Fixed>(to_fixed(scales[row].g, static_cast<double>(g)));
  }
};

template <typename Value>
SURE_FAST_DEVICE Fixed fixed_g(const Rankings<Value>& r, const RowScale* scales, uint32_t element) {
  return FixedWeight<Value>{scales}(r.g[r.map_index(element)], static_cast<int>(r.row(element)));
}

// Puts the keys, with their g, into the half where their dealing begins.
template <typename Value>
__global__ void start_dealing(Rankings<Value> r, const uint32_t* order, Sorted keys, DealDigits digits,
                              Dealing<FixedWeight<Value>> d) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, m = *r.length;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const uint32_t* list = keys.list();
  const int half = digits.start(m);
  for (int64_t i = first; i < m; i += step) {
    const uint32_t key = list[i];
    pick(d.key, half)[i] = key;
    pick(d.weight, half)[i] = r.g[r.map_index(order[key])];
  }
  for (int64_t row = first; row < d.rows; row += step) d.pairs[row] = 0;
}

// All pairs of a row: a block compares kPairThreads elements with the whole row, tile by tile.
template <typename Value>
__global__ void __launch_bounds__(kPairThreads)
    compare_all(Rankings<Value> r, const RowScale* scales, const uint32_t* begins, int64_t chunks, uint32_t* number,
                Fixed* slope) {
  SURE_FAST_SHARED(tile_g, Value[kPairThreads]);
  SURE_FAST_SHARED(tile_u, Value[kPairThreads]);
  SURE_FAST_SHARED(tile_weight, Fixed[kPairThreads]);
  SURE_FAST_SHARED(tile_label, unsigned long long[kPairThreads]);
  const int64_t row = blockIdx.x / chunks, begin = begins[row], end = begins[row + 1];
  const int64_t first = begin + blockIdx.x % chunks * kPairThreads;
  if (first >= end) return;
  const int64_t own = first + threadIdx.x;
  const uint32_t at = r.map_index(static_cast<uint32_t>(own < end ? own : end - 1));
  const Value g = r.g[at], u = r.u[at];
  const unsigned long long label = r.label.data != nullptr ? label_key(r.label, at) : 0;
  uint32_t partners = 0;
  Fixed sum = 0;
  for (int64_t tile = begin; tile < end; tile += kPairThreads) {
    const int64_t other = tile + threadIdx.x;
    if (other < end) {
      const uint32_t i = r.map_index(static_cast<uint32_t>(other));
      tile_g[threadIdx.x] = r.g[i];
      tile_u[threadIdx.x] = r.u[i];
      tile_weight[threadIdx.x] = fixed_g(r, scales, static_cast<uint32_t>(other));
      tile_label[threadIdx.x] = r.label.data != nullptr ? label_key(r.label, i) : 0;
    }
    __syncthreads();
    const int size = static_cast<int>(end - tile < kPairThreads ? end - tile : kPairThreads);
    for (int j = 0; j < size; ++j) {
      const bool violates =
          ((g < tile_g[j] && u < tile_u[j]) || (g > tile_g[j] && u > tile_u[j])) && label == tile_label[j];
      partners += violates;
      sum += violates ? tile_weight[j] : 0;
    }
    __syncthreads();
  }
  if (own >= end) return;
  number[own] = partners;
  slope[own] = fixed_g(r, scales, static_cast<uint32_t>(own)) * partners - sum;
}

// The loss is linear in u over the violating pairs. number: of partners; null: the pairs are counted elsewhere.
template <typename Value>
__global__ void __launch_bounds__(kRowThreads, 3)
    sum_slices(Rankings<Value> r, const RowScale* scales, const uint32_t* begins, int64_t slices, const uint32_t* order,
               const uint32_t* number, const Fixed* slope, PairSum* sums) {
  SURE_FAST_SHARED(shared, PairSum[kRowThreads]);
  const RowSlice slice = row_slice(begins, slices);
  const double center_u = scales[slice.row].center_u;
  PairSum own = {0, 0.0};
  for (int64_t p = slice.first + threadIdx.x; p < slice.last; p += kRowThreads) {
    const uint32_t element = order != nullptr ? order[p] : static_cast<uint32_t>(p);
    const double u = static_cast<double>(r.u[r.map_index(element)]) - center_u;
    own = own + PairSum{number != nullptr ? number[p] : 0, u * static_cast<double>(static_cast<long long>(slope[p]))};
  }
  const PairSum all = block_sum<kRowThreads>(own, shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = all;
}

// Of each row: the loss, and what its slopes are multiplied by. `sums` has `parts` a row, each pair `times` over, their
// violations in units of the scale where `fixed`; row_pairs: of each row instead, null: those of the sums.
__global__ void __launch_bounds__(kRowThreads, 4)
    finish_rows(const PairSum* sums, int64_t parts, const unsigned long long* row_pairs, int times, bool fixed,
                bool normalize, RowScale* scales, double* loss) {
  SURE_FAST_SHARED(shared, PairSum[kRowThreads]);
  const int64_t row = blockIdx.x;
  PairSum own = {0, 0.0};
  for (int64_t k = threadIdx.x; k < parts; k += kRowThreads) own = own + sums[row * parts + k];
  const PairSum all = block_sum<kRowThreads>(own, shared);
  if (threadIdx.x != 0) return;
  const unsigned long long pairs = (row_pairs != nullptr ? row_pairs[row] : all.pairs) / static_cast<unsigned>(times);
  const double spoiled = scales[row].spoiled ? static_cast<double>(NAN) : 0.0;  // a NaN stays one
  double each = 1.0 / static_cast<double>(pairs > 0 ? pairs : 1);
  if (normalize) each = scales[row].deviation > 0.0 ? each / scales[row].deviation : 0.0;
  const double value = (fixed ? from_fixed(scales[row].g, all.violation) : all.violation) * each;
  loss[row] = value + spoiled;
  scales[row].each = each + spoiled;
  scales[row].shrink *= value;
}

template <typename Value>
__global__ void write_slopes(Rankings<Value> r, const RowScale* scales, const uint32_t* order, const Fixed* slope,
                             Value* out) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, m = *r.length;
  for (int64_t p = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; p < m; p += step) {
    const uint32_t element = order != nullptr ? order[p] : static_cast<uint32_t>(p);
    const RowScale& scale = scales[r.row(element)];
    const uint32_t at = r.map_index(element);
    const double value = from_fixed(scale.g, static_cast<double>(static_cast<long long>(slope[p]))) * scale.each;
    const double about = static_cast<double>(r.u[at]) - scale.mean_u;
    out[at] = static_cast<Value>(value - (scale.shrink == 0.0 ? 0.0 : scale.shrink * about));
  }
}

// Elements in the order of rows and labels: where the run of one label begins, and how long it is; totals of tiles.
template <typename Value>
__global__ void __launch_bounds__(kPairThreads)
    find_runs(Rankings<Value> r, Sorted sorted, const uint32_t* begins, uint32_t* run_begin, unsigned long long* ahead,
              unsigned long long* totals) {
  SURE_FAST_SHARED(shared, unsigned long long[kPairThreads]);
  const int64_t m = *r.length;
  const uint32_t* order = sorted.list();
  for (int64_t tile = blockIdx.x; tile * kRunTile < m; tile += gridDim.x) {
    unsigned long long own = 0;
    for (int64_t k = tile * kRunTile + threadIdx.x; k < (tile + 1) * kRunTile && k < m; k += kPairThreads) {
      const uint32_t row = r.row(order[k]);
      const unsigned long long label = label_key(r.label, r.map_index(order[k]));
      const auto label_of = [&](int64_t i) { return label_key(r.label, r.map_index(order[i])); };
      const int64_t begin = first_not(begins[row], k, [&](int64_t i) { return label_of(i) < label; });
      const int64_t end = first_not(k, begins[row + 1], [&](int64_t i) { return label_of(i) == label; });
      run_begin[k] = static_cast<uint32_t>(begin);
      ahead[k] = static_cast<unsigned long long>(end - begin);
      own += ahead[k];
    }
    const unsigned long long total = block_sum<kPairThreads>(own, shared);
    if (threadIdx.x == 0) totals[tile] = total;
  }
}

// ahead: from run lengths to the ordered pairs before each element; ahead[m] is their number.
__global__ void __launch_bounds__(kPairThreads)
    sum_runs(const uint32_t* length, const unsigned long long* totals, unsigned long long* ahead) {
  SURE_FAST_SHARED(shared, ScanShared<unsigned long long, kPairThreads>);
  constexpr int kEach = kRunTile / kPairThreads;
  const int64_t m = *length;
  for (int64_t tile = blockIdx.x; tile * kRunTile <= m; tile += gridDim.x) {
    const int64_t first = tile * kRunTile + threadIdx.x * kEach;
    unsigned long long item[kEach], own = 0;
    for (int k = 0; k < kEach; ++k) {
      item[k] = first + k < m ? ahead[first + k] : 0;
      own += item[k];
    }
    unsigned long long total;
    unsigned long long before = totals[tile] + block_exclusive<kPairThreads>(own, 0ull, shared, total);
    for (int k = 0; k < kEach; ++k) {
      if (first + k <= m) ahead[first + k] = before;
      before += item[k];
    }
    __syncthreads();
  }
}

// Draws of a row. Without labels element i stands for the ordered pairs (i, every one); with them for those of its run.
template <typename Value>
__global__ void __launch_bounds__(kPairThreads)
    draw_pairs(Rankings<Value> r, const RowScale* scales, const uint32_t* begins, int64_t first_row, int64_t parts,
               int64_t num_pairs, uint64_t seed, Sorted sorted, const uint32_t* run_begin,
               const unsigned long long* ahead, Fixed* slope, PairSum* sums) {
  SURE_FAST_SHARED(shared, PairSum[kPairThreads]);
  const uint32_t* order = ahead != nullptr ? sorted.list() : nullptr;
  const int64_t row = blockIdx.x / parts, part = blockIdx.x % parts;
  const uint32_t begin = begins[row], m = begins[row + 1] - begin;
  const unsigned long long base = ahead != nullptr ? ahead[begin] : 0;
  const int64_t total =
      static_cast<int64_t>(ahead != nullptr ? ahead[begin + m] - base : static_cast<unsigned long long>(m) * m);
  const uint64_t start = random_row(seed, first_row + row);
  PairSum own = {0, 0.0};
  const int64_t last = (part + 1) * kDrawsEach < num_pairs ? (part + 1) * kDrawsEach : num_pairs;
  for (int64_t k = part * kDrawsEach + threadIdx.x; k < last && m > 0; k += kPairThreads) {
    const unsigned long long draw = static_cast<unsigned long long>(random_below(random_bits(start, k), total));
    uint32_t i, j;
    if (ahead != nullptr) {
      uint32_t low = begin, high = begin + m;  // the element that holds the draw
      while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (ahead[middle] - base <= draw) {
          low = middle;
        } else {
          high = middle;
        }
      }
      i = order[low];
      j = order[run_begin[low] + static_cast<uint32_t>(draw - (ahead[low] - base))];
    } else {
      i = begin + static_cast<uint32_t>(draw / m);
      j = begin + static_cast<uint32_t>(draw % m);
    }
    const uint32_t at = r.map_index(i), other = r.map_index(j);
    const double by = static_cast<double>(r.g[at]) - static_cast<double>(r.g[other]);
    const double v = by * (static_cast<double>(r.u[at]) - static_cast<double>(r.u[other]));
    if (!(v > 0.0)) continue;
    own = own + PairSum{1, v};
    const Fixed difference = fixed_g(r, scales, i) - fixed_g(r, scales, j);
    atomicAdd(&slope[i], difference);  // integers: their order does not matter
    atomicAdd(&slope[j], 0 - difference);
  }
  const PairSum all = block_sum<kPairThreads>(own, shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = all;
}

__global__ void clear(Fixed* slope, const uint32_t* length) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, m = *length;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < m; i += step) slope[i] = 0;
}

int64_t draw_parts(const PairArgs& a) { return ceil_div<int64_t>(a.num_pairs, kDrawsEach); }

// Scratch of the rows that go together; the three ways to find pairs share the memory of `rest`.
template <typename Value>
struct Scratch {
  int64_t rows, capacity, slices;
  Compaction compaction;
  uint32_t* begins;
  Extremes* extremes;
  RowScale* scales;
  Moments* moments;
  PairSum* sums;

  Scratch(const PairArgs& a, Arena& arena)
      : rows(rows_at_once(a.rows, a.n)), capacity(rows * a.n), slices(row_slices(a.n)), compaction(arena, capacity) {
    begins = arena.take<uint32_t>(rows + 1);
    extremes = arena.take<Extremes>(rows * slices);
    scales = arena.take<RowScale>(rows);
    moments = arena.take<Moments>(a.normalize ? rows * slices : 0);
    sums = arena.take<PairSum>(rows * (a.num_pairs > 0 ? draw_parts(a) : slices));
  }
};

// Every pair by sorting.
template <typename Value>
int64_t by_sorting(const PairArgs& a, const Stream& stream, const Scratch<Value>& s, const Rankings<Value>& r,
                   Arena arena, double* loss, Value* slope) {
  const RankingMemory<Value> memory(arena, s.compaction, s.capacity, sort_blocks(stream, s.capacity),
                                    a.label.data != nullptr);
  Arena lent = memory.lent;
  const Dealing<FixedWeight<Value>> dealing(lent, memory.last.payload, s.capacity, r.rows, r.length, s.begins,
                                            {s.scales});
  if (slope == nullptr) return lent.used() > arena.used() ? lent.used() : arena.used();
  const Sorted keys = order_rankings(stream, memory, r);
  Rankings<Value> maps = r;  // whose elements are indices of the maps by now
  maps.list = nullptr;
  const int64_t blocks = fill(stream, ceil_div<int64_t>(r.capacity, 256));
  launch(stream, "start_dealing", blocks, 256, start_dealing<Value>, maps, memory.order, keys, DealDigits(s.capacity),
         dealing);
  deal(stream, dealing, s.capacity, s.compaction.gate);
  launch(stream, "sum_slices", r.rows * s.slices, kRowThreads, sum_slices<Value>, maps, s.scales, s.begins, s.slices,
         memory.order, nullptr, dealing.slope[1], s.sums);
  launch(stream, "finish_rows", r.rows, kRowThreads, finish_rows, s.sums, s.slices, dealing.pairs, 2, true, a.normalize,
         s.scales, loss);
  launch(stream, "write_slopes", blocks, 256, write_slopes<Value>, maps, s.scales, memory.order, dealing.slope[1],
         slope);
  return arena.used();
}

// Every pair of short rows, compared.
template <typename Value>
int64_t by_comparing(const PairArgs& a, const Stream& stream, const Scratch<Value>& s, const Rankings<Value>& r,
                     Arena arena, double* loss, Value* slope) {
  uint32_t* number = arena.take<uint32_t>(s.capacity);
  Fixed* sums = arena.take<Fixed>(s.capacity);
  if (slope == nullptr) return arena.used();
  const int64_t chunks = ceil_div<int64_t>(a.n, kPairThreads);
  launch(stream, "compare_all", r.rows * chunks, kPairThreads, compare_all<Value>, r, s.scales, s.begins, chunks,
         number, sums);
  launch(stream, "sum_slices", r.rows * s.slices, kRowThreads, sum_slices<Value>, r, s.scales, s.begins, s.slices,
         nullptr, number, sums, s.sums);
  launch(stream, "finish_rows", r.rows, kRowThreads, finish_rows, s.sums, s.slices, nullptr, 2, true, a.normalize,
         s.scales, loss);
  launch(stream, "write_slopes", fill(stream, ceil_div<int64_t>(s.capacity, 256)), 256, write_slopes<Value>, r,
         s.scales, nullptr, sums, slope);
  return arena.used();
}

template <typename Value>
int64_t by_drawing(const PairArgs& a, const Stream& stream, const Scratch<Value>& s, const Rankings<Value>& r,
                   int64_t first_row, Arena arena, double* loss, Value* slope) {
  const bool labels = a.label.data != nullptr;
  const int64_t most = labels ? s.capacity : 0, tiles = ceil_div<int64_t>(most, kRunTile) + 1;
  Fixed* sums = arena.take<Fixed>(s.capacity);
  const SortBuffers<uint32_t> sort(arena, most, labels ? sort_blocks(stream, s.capacity) : 0, s.compaction.gate);
  const LabelMemory label_memory(arena, labels);
  uint32_t* run_begin = arena.take<uint32_t>(most);
  unsigned long long* ahead = arena.take<unsigned long long>(most + 1);
  unsigned long long* totals = arena.take<unsigned long long>(tiles + 1);
  if (slope == nullptr) return arena.used();
  const int64_t blocks = fill(stream, ceil_div<int64_t>(s.capacity, 256));
  Sorted order = {{nullptr, nullptr}, 0, 0, 0, nullptr};
  if (labels) {
    order = sort_groups(stream, sort, Start::rising, 0, r, label_memory, false);
    launch(stream, "find_runs", fill(stream, tiles), kPairThreads, find_runs<Value>, r, order, s.begins, run_begin,
           ahead, totals);
    launch(stream, "scan_totals", 1, kScanThreads, scan_totals<unsigned long long>, totals, r.length, int64_t{0},
           kRunTile, 0ull);
    launch(stream, "sum_runs", fill(stream, tiles), kPairThreads, sum_runs, r.length, totals, ahead);
  }
  launch(stream, "clear", blocks, 256, clear, sums, r.length);
  launch(stream, "draw_pairs", r.rows * draw_parts(a), kPairThreads, draw_pairs<Value>, r, s.scales, s.begins,
         first_row, draw_parts(a), a.num_pairs, a.seed, order, labels ? run_begin : nullptr, labels ? ahead : nullptr,
         sums, s.sums);
  launch(stream, "finish_rows", r.rows, kRowThreads, finish_rows, s.sums, draw_parts(a), nullptr, 1, false, a.normalize,
         s.scales, loss);
  launch(stream, "write_slopes", blocks, 256, write_slopes<Value>, r, s.scales, nullptr, sums, slope);
  return arena.used();
}

// Bytes of scratch where `slope` is null; else the loss and slopes of rows first_row ...
template <typename Value>
int64_t find_pairs(const PairArgs& a, const Stream& stream, const Scratch<Value>& s, const Rankings<Value>& r,
                   int64_t first_row, const Arena& arena, double* loss, Value* slope) {
  if (a.num_pairs > 0) return by_drawing(a, stream, s, r, first_row, arena, loss, slope);
  if (a.n <= a.compared) return by_comparing(a, stream, s, r, arena, loss, slope);
  return by_sorting(a, stream, s, r, arena, loss, slope);
}

template <typename T>
const T* at(const void* map, int64_t first) {
  return static_cast<const T*>(map) + first;
}

LabelMap labels_from(const LabelMap& label, int64_t first) {
  if (label.data == nullptr) return label;
  return {static_cast<const char*>(label.data) + first * (label_bits(label.dtype) / 8), label.dtype};
}

template <typename Value>
int64_t workspace(const PairArgs& a, const Stream& stream) {
  Arena arena(nullptr);
  const Scratch<Value> s(a, arena);
  Rankings<Value> r = {};
  r.rows = s.rows;
  return find_pairs<Value>(a, stream, s, r, 0, arena, nullptr, nullptr);
}

template <typename Value, typename Distance>
void run_rows(const PairArgs& a, const Stream& stream, void* workspace, double* loss, Value* slope) {
  Arena arena(workspace);
  const Scratch<Value> s(a, arena);
  for (int64_t first = 0; first < a.rows; first += s.rows) {
    const int64_t rows = a.rows - first < s.rows ? a.rows - first : s.rows, begin = first * a.n;
    const NearAndClear<Value, Distance> near = {at<Distance>(a.distance, begin), static_cast<Distance>(a.threshold),
                                                slope + begin};
    compact(stream, near, rows * a.n, s.compaction);
    const Rankings<Value> r = {at<Value>(a.gradient, begin),
                               at<Value>(a.uncertainty, begin),
                               s.compaction.list,
                               s.compaction.length(rows * a.n),
                               rows * a.n,
                               rows,
                               a.n,
                               labels_from(a.label, begin)};
    find_rows(stream, r.list, r.length, a.n, rows, s.begins);
    launch(stream, "slice_extremes", rows * s.slices, kRowThreads, slice_extremes<Value>, r, s.begins, s.slices,
           s.extremes);
    launch(stream, "row_scales", rows, kRowThreads, row_scales, s.extremes, s.slices, s.begins, a.num_pairs, s.scales);
    if (a.normalize) {
      launch(stream, "slice_moments", rows * s.slices, kRowThreads, slice_moments<Value>, r, s.scales, s.begins,
             s.slices, s.moments);
      launch(stream, "row_moments", rows, kRowThreads, row_moments, s.moments, s.slices, s.begins, s.scales);
    }
    find_pairs(a, stream, s, r, first, arena, loss + first, slope + begin);
  }
}

template <typename Value>
void run(const PairArgs& a, const Stream& stream, void* workspace, double* loss, Value* slope) {
  switch (a.distance_dtype) {
    case DType::f64: return run_rows<Value, double>(a, stream, workspace, loss, slope);
    case DType::u8: return run_rows<Value, uint8_t>(a, stream, workspace, loss, slope);
    default: return run_rows<Value, float>(a, stream, workspace, loss, slope);
  }
}

}  // namespace

int64_t gradient_uncertainty_workspace(const PairArgs& a, const Stream& stream) {
  return a.dtype == DType::f64 ? workspace<double>(a, stream) : workspace<float>(a, stream);
}

void gradient_uncertainty_forward(const PairArgs& a, const Stream& stream, void* workspace, double* loss, void* slope) {
  a.dtype == DType::f64 ? run(a, stream, workspace, loss, static_cast<double*>(slope))
                        : run(a, stream, workspace, loss, static_cast<float*>(slope));
}

}  // namespace sure_fast
