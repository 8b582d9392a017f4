// The pair loss of compacted rows: what gradient_uncertainty_loss and uncertainty_supervision share.
//   v_ij = (g_i - g_j)(u_i - u_j), loss = sum v+ / #{v > 0}, dloss/du_i = sum of (g_i - g_j) over violating j, / #{v >
//   0}
// Every pair: the elements in the order of rising g, falling u where g is equal; every pair of rising u violates
// (pairs.h; where g has few values, few_values.h), and the sum is linear in u over those. Sampled: splitmix64 of (seed,
// row, draw) gives the draw-th pair, and kStreams parts of the draws are summed by themselves. With `normalize` the
// loss is divided by the standard deviations s_g and s_u over the row: dloss/du_i then has -loss (u_i - mean u) / (m
// s_u^2) beside it.
#pragma once

#include "cpu/few_values.h"
#include "cpu/gradient_uncertainty_loss.h"
#include "cpu/pairs.h"
#include "cpu/sort.h"
#include "math/random.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int64_t kStreams = 4;

typedef uint64_t Word __attribute__((may_alias));  // in memory that holds doubles later

template <typename Value>
struct PairScratch {
  using Key = typename KeyOf<Value>::type;
  uint32_t *voxel, *order;  // voxel of each element; elements by label
  uint8_t* which;           // where g has a few values: which of them
  Value *u, *g;
  double* slope;  // [kStreams] of them for samples
  double* chunk_totals;
  PairElements one, two;
  RadixSort<Key> sort;
  RadixSort<uint64_t> by_label;
  int64_t *run_begin, *run_pairs;  // runs of one label in `order`: first element, ordered pairs before it

  PairScratch(Arena& arena, const PairArgs& a, int64_t most, int threads)
      : voxel(arena.take<uint32_t>(most)),
        order(arena.take<uint32_t>(a.num_pairs > 0 ? most : 0)),
        which(arena.take<uint8_t>(a.num_pairs > 0 ? 0 : most)),
        u(arena.take<Value>(most)),
        g(arena.take<Value>(most)),
        slope(arena.take<double>(a.num_pairs > 0 ? kStreams * most : most)),
        chunk_totals(arena.take<double>(pair_chunks(most) * 2 * kDigits)),
        one(arena, a.num_pairs > 0 ? 0 : most),
        two(arena, a.num_pairs > 0 ? 0 : most),
        sort(arena, a.num_pairs > 0 ? 0 : most, threads),
        by_label(arena, a.label.data != nullptr ? most : 0, threads),
        run_begin(arena.take<int64_t>(a.num_pairs > 0 ? most + 1 : 0)),
        run_pairs(arena.take<int64_t>(a.num_pairs > 0 ? most + 1 : 0)) {}
};

// Lists the voxels first..last within the threshold; returns their number. Every voxel is written to where the next one
// of the list goes, as a branch could not be predicted at a boundary.
template <typename Distance, typename Threshold>
int64_t list_near(const Distance* d, int64_t first, int64_t last, Threshold threshold, uint32_t* voxels) {
  constexpr int64_t kBatch = 256;
  uint32_t batch[kBatch];
  int64_t listed = 0;
  for (; first < last; first += kBatch) {
    const int64_t end = first + kBatch < last ? first + kBatch : last;
    int64_t near = 0;
    for (int64_t i = first; i < end; ++i) {
      batch[near] = static_cast<uint32_t>(i);
      near += d[i] <= threshold;
    }
    memcpy(voxels + listed, batch, sizeof(uint32_t) * static_cast<size_t>(near));
    listed += near;
  }
  return listed;
}

template <typename Value>
double mean(const Value* values, int64_t n) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(values[i]);
  return sum / static_cast<double>(n);
}

template <typename Value>
double variance(const Value* values, double mean, int64_t n) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const double about = static_cast<double>(values[i]) - mean;
    sum += about * about;
  }
  return sum / static_cast<double>(n);
}

SURE_FAST_INLINE uint64_t label_key(int64_t label) { return static_cast<uint64_t>(label) ^ 0x8000000000000000u; }

// Sorts the elements by rising g, falling u where g is equal, label after label, into s.one. Returns the bits of the
// ranks.
template <typename Value>
int order_elements(const PairArgs& a, int64_t row, int64_t m, double mean_g, int threads, PairScratch<Value>& s) {
  using Key = typename KeyOf<Value>::type;
  auto& sort = s.sort;
  parallel_ranges(m, threads, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      sort.keys[i] = static_cast<Key>(~sort_key(s.u[i]));
      sort.payload[i] = static_cast<uint32_t>(i);
    }
  });
  sort.run(m, threads);
  // Level and element in one word: after the second sort they are looked up at random, once.
  Word* by_u = reinterpret_cast<Word*>(s.two.slope);
  const uint32_t top = sort.each_level(m, threads, [&](int64_t i, uint32_t level) {
    const uint32_t element = sort.payload[i];
    by_u[i] = uint64_t{level} << 32 | element;
    sort.other_keys[i] = sort_key(s.g[element]);
    sort.other_payload[i] = static_cast<uint32_t>(i);
  });
  sort.swap_keys();
  sort.swap_payload();
  sort.run(m, threads);
  const uint32_t* order = nullptr;
  if (a.label.data != nullptr) {
    const int64_t* label = static_cast<const int64_t*>(a.label.data) + row * a.n;
    for (int64_t i = 0; i < m; ++i) {
      s.by_label.keys[i] = label_key(label[s.voxel[static_cast<uint32_t>(by_u[sort.payload[i]])]]);
      s.by_label.payload[i] = static_cast<uint32_t>(i);
    }
    s.by_label.run(m, threads);
    order = s.by_label.payload;
  }
  parallel_ranges(m, threads, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t at = order != nullptr ? order[i] : i;
      const uint64_t level_and_element = by_u[sort.payload[at]];
      s.one.rank[i] = top - static_cast<uint32_t>(level_and_element >> 32);
      s.one.index[i] = static_cast<uint32_t>(level_and_element);
      s.one.a[i] = static_cast<double>(number_of_key(sort.keys[at])) - mean_g;
      s.one.slope[i] = 0.0;
    }
  });
  return bits_needed(static_cast<int64_t>(top) + 1);
}

PairElements shifted(const PairElements& e, int64_t by) {
  PairElements part = e;
  part.rank += by;
  part.index += by;
  part.a += by;
  part.slope += by;
  return part;
}

// every_pair where g has a few values.
template <typename Value>
int64_t every_pair_of_few(const FewValues<Value>& few, int number, int64_t m, int threads, PairScratch<Value>& s) {
  parallel_ranges(m, threads, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      s.sort.keys[i] = sort_key(s.u[i]);
      s.sort.payload[i] = static_cast<uint32_t>(i);
    }
  });
  s.sort.run(m, threads);
  const auto sum = number > kDigits ? sum_partners_of_few<kMostValues, Value, typename KeyOf<Value>::type>
                                    : sum_partners_of_few<kDigits, Value, typename KeyOf<Value>::type>;
  return sum(few, number, s.sort.keys, s.sort.payload, s.which, m, s.chunk_totals, threads, s.slope);
}

// Slopes of all m elements, not yet divided; returns the number of violating pairs.
template <typename Value>
int64_t every_pair(const PairArgs& a, int64_t row, int64_t m, double mean_g, int threads, PairScratch<Value>& s) {
  if (a.label.data == nullptr) {
    FewValues<Value> few;
    const int number = few.find(s.g, m, s.which);
    if (number > 0) return every_pair_of_few(few, number, m, threads, s);
  }
  const int bits = order_elements(a, row, m, mean_g, threads, s);
  if (a.label.data == nullptr) return sum_partners(s.one, s.two, m, bits, s.chunk_totals, threads, s.slope);
  int64_t pairs = 0;
  for (int64_t begin = 0, end = 0; begin < m; begin = end) {
    while (end < m && s.by_label.keys[end] == s.by_label.keys[begin]) ++end;
    pairs +=
        sum_partners(shifted(s.one, begin), shifted(s.two, begin), end - begin, bits, s.chunk_totals, threads, s.slope);
  }
  return pairs;
}

// Runs of elements of one label, and the ordered pairs that lie within them.
struct Runs {
  int64_t number, pairs;
};

// Elements by label in s.order, and where their runs begin.
template <typename Value>
Runs runs_of_labels(const PairArgs& a, int64_t row, int64_t m, int threads, PairScratch<Value>& s) {
  if (a.label.data != nullptr) {
    const int64_t* label = static_cast<const int64_t*>(a.label.data) + row * a.n;
    for (int64_t i = 0; i < m; ++i) {
      s.by_label.keys[i] = label_key(label[s.voxel[i]]);
      s.by_label.payload[i] = static_cast<uint32_t>(i);
    }
    s.by_label.run(m, threads);
  }
  Runs runs = {0, 0};
  for (int64_t begin = 0, end = 0; begin < m; begin = end) {
    if (a.label.data == nullptr) {
      end = m;
    } else {
      while (end < m && s.by_label.keys[end] == s.by_label.keys[begin]) ++end;
    }
    s.run_begin[runs.number] = begin;
    s.run_pairs[runs.number++] = runs.pairs;
    runs.pairs += (end - begin) * (end - begin);
  }
  s.run_begin[runs.number] = m;
  for (int64_t i = 0; i < m; ++i)
    s.order[i] = a.label.data == nullptr ? static_cast<uint32_t>(i) : s.by_label.payload[i];
  return runs;
}

// The run that holds a draw.
template <typename Value>
SURE_FAST_INLINE int64_t run_of(const PairScratch<Value>& s, int64_t runs, int64_t draw) {
  int64_t low = 0, high = runs;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (s.run_pairs[middle] <= draw) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Sampled pairs: adds up v+ and the slopes; returns the number of violating (or NaN) draws.
template <typename Value>
int64_t sampled_pairs(const PairArgs& a, int64_t row, int64_t m, int threads, PairScratch<Value>& s, double& sum) {
  const Runs runs = runs_of_labels(a, row, m, threads, s);
  memset(s.slope, 0, sizeof(double) * static_cast<size_t>(kStreams * m));
  const uint64_t start = random_row(a.seed, row);
  double sums[kStreams];
  int64_t violations[kStreams];
  parallel_tasks(kStreams, threads, [&](int64_t stream) {
    double* slope = s.slope + stream * m;
    double part = 0.0;
    int64_t violating = 0;
    const int64_t last = a.num_pairs * (stream + 1) / kStreams;
    for (int64_t k = a.num_pairs * stream / kStreams; k < last; ++k) {
      const int64_t draw = random_below(random_bits(start, k), runs.pairs), run = run_of(s, runs.number, draw);
      const int64_t size = s.run_begin[run + 1] - s.run_begin[run], rest = draw - s.run_pairs[run];
      const uint32_t i = s.order[s.run_begin[run] + rest / size], j = s.order[s.run_begin[run] + rest % size];
      const double by = static_cast<double>(s.g[i]) - static_cast<double>(s.g[j]);
      const double v = by * (static_cast<double>(s.u[i]) - static_cast<double>(s.u[j]));
      if (v <= 0.0) continue;  // a NaN counts
      part += v;
      ++violating;
      slope[i] += by;
      slope[j] -= by;
    }
    sums[stream] = part;
    violations[stream] = violating;
  });
  sum = 0.0;
  int64_t violating = 0;
  for (int64_t stream = 0; stream < kStreams; ++stream) {
    sum += sums[stream];
    violating += violations[stream];
    if (stream == 0) continue;
    for (int64_t i = 0; i < m; ++i) s.slope[i] += s.slope[stream * m + i];
  }
  return violating;
}

// Loss of one row from its m elements in s.voxel, s.u and s.g, and the map of its slopes.
template <typename Value>
void pair_loss_row(const PairArgs& a, int64_t row, int64_t m, int threads, PairScratch<Value>& s, double* loss,
                   Value* slope) {
  memset(static_cast<void*>(slope), 0, sizeof(Value) * static_cast<size_t>(a.n));
  *loss = 0.0;
  if (m == 0) return;
  const double mean_g = mean(s.g, m), mean_u = mean(s.u, m);
  double sum = 0.0;
  int64_t pairs = 0;
  if (a.num_pairs > 0) {
    pairs = sampled_pairs(a, row, m, threads, s, sum);
  } else {
    pairs = every_pair(a, row, m, mean_g, threads, s);
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < m; ++i) sum += (static_cast<double>(s.u[i]) - mean_u) * s.slope[i];
  }
  double each = 1.0 / static_cast<double>(pairs > 0 ? pairs : 1), shrink = 0.0;
  const double spoiled = (mean_g + mean_u) * 0.0;  // a NaN stays one
  if (a.normalize) {
    const double variance_u = variance(s.u, mean_u, m), scale = sqrt(variance_u) * sqrt(variance(s.g, mean_g, m));
    each = scale > 0.0 ? each / scale : 0.0;
    shrink = scale > 0.0 ? sum * each / (static_cast<double>(m) * variance_u) : 0.0;
  }
  *loss = sum * each + spoiled;
  parallel_ranges(m, threads, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const double about = static_cast<double>(s.u[i]) - mean_u;
      slope[s.voxel[i]] = static_cast<Value>(s.slope[i] * each - shrink * about + spoiled);
    }
  });
}

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
