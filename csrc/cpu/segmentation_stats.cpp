// Counts and histograms of a segmentation from its logits z [N, C, V] and labels [N, V], in one pass.
//   p = alpha / A, u = C / A, prediction = argmax alpha (the first of equals)
//   confusion[label][prediction]; calibration bins k / bins <= p < (k + 1) / bins of every class and of the top label:
//   number, sum of p, hits; number of voxels, and of errors of each class and of the top label, by the level
//   k / levels < u <= (k + 1) / levels.
// Parallel over chunks of 32768 voxels, blocks of 128 in L1; chunks are added in order. Counts are exact. Number and
// sum of p of a bin are one 64-bit integer, 12 bits above 52 of which 40 are the fraction (30 used by float p).
// Bytes per voxel: C logits and a label, nothing written. Bound by the evidence and by C + 3 additions in L1.
#include "cpu/segmentation_stats.h"

#include "cpu/dirichlet.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

template <typename T>
SURE_FAST_INLINE int32_t clamped(T x, int32_t last) {
  const int32_t i = static_cast<int32_t>(x > T(0) ? x : T(0));  // a NaN goes to the first
  return i < last ? i : last;
}

// k where k / bins <= p < (k + 1) / bins: the product may be rounded over an edge.
template <typename T>
SURE_FAST_INLINE int32_t bin_of(T p, int32_t bins) {
  const int32_t k = clamped(p * T(bins), bins - 1);
  const int32_t up = (p >= T(k + 1) / T(bins)) & (k < bins - 1), down = p < T(k) / T(bins);
  return k + up - down;
}

// k where k / levels < u <= (k + 1) / levels.
template <typename T>
SURE_FAST_INLINE int32_t level_of(T u, int32_t levels) {
  const int32_t k = clamped(u * T(levels), levels - 1);
  const int32_t up = (u > T(k + 1) / T(levels)) & (k < levels - 1), down = (u <= T(k) / T(levels)) & (k > 0);
  return k + up - down;
}

constexpr int kLanes =
    4;  // neighbours often share a bin: each lane has its own, so that no addition waits for the last
constexpr int kFlush = 16;  // blocks until the bins are emptied, before any field overflows
constexpr int kFraction = 40, kSum = 52;

// p >= 0 as a fixed-point number of kFraction bits, to 30 of them for float: 32-bit conversions are vectors everywhere.
SURE_FAST_INLINE uint64_t fixed_point(float p) {
  return static_cast<uint64_t>(static_cast<uint32_t>(static_cast<int32_t>(p * 0x1p30f + 0.5f))) << (kFraction - 30);
}
SURE_FAST_INLINE uint64_t fixed_point(double p) {
  return static_cast<uint64_t>(static_cast<int64_t>(p * static_cast<double>(uint64_t{1} << kFraction) + 0.5));
}

// A block's packed probabilities into the bins; those that do not count go to bin `bins`.
SURE_FAST_INLINE void add_bins(const int32_t* bin, const uint64_t* packed, uint64_t* table) {
  for (int v = 0; v < kBlock; v += kLanes) {
    for (int l = 0; l < kLanes; ++l) table[bin[v + l] * kLanes + l] += packed[v + l];
  }
}

void flush(uint64_t* table, int64_t rows, int64_t bins, double* number, double* sum) {
  for (int64_t c = 0; c < rows; ++c) {
    for (int64_t b = 0; b < bins; ++b) {
      uint64_t* lanes = table + (c * (bins + 1) + b) * kLanes;
      for (int l = 0; l < kLanes; ++l) {
        number[c * bins + b] += static_cast<double>(lanes[l] >> kSum);
        const uint64_t fixed = lanes[l] & ((uint64_t{1} << kSum) - 1);
        sum[c * bins + b] += static_cast<double>(fixed) / static_cast<double>(uint64_t{1} << kFraction);
        lanes[l] = 0;
      }
    }
    for (int l = 0; l < kLanes; ++l) table[(c * (bins + 1) + bins) * kLanes + l] = 0;
  }
}

// Counts of one chunk by voxel. Of a voxel predicted right, class and top label share label, bin and level.
struct Tables {
  uint32_t *right_bin, *right_level;  // of each class [C, bins], [C, levels]
  uint32_t *wrong_bin, *wrong_level;  // of each label [C, bins]; of label, prediction and all [C + 1, levels]
  uint32_t* confusion;                // of the wrong [C, C]
  int64_t size;

  Tables(const StatsArgs& a, uint32_t* counts) {
    const int64_t classes = a.logits.channels;
    right_bin = counts;
    right_level = right_bin + classes * a.bins;
    wrong_bin = right_level + classes * a.levels;
    wrong_level = wrong_bin + classes * a.bins;
    confusion = wrong_level + (classes + 1) * a.levels;
    size = confusion + classes * classes - counts;
  }
};

// Scratch of one chunk.
template <typename T>
struct Scratch {
  T* alpha;         // [C, kBlock]
  int32_t* bin;     // [C + 1, kBlock]
  uint64_t* table;  // [C + 1, bins + 1, kLanes]
  uint32_t* counts;

  Scratch(const StatsArgs& a, Arena& arena) {
    const int64_t classes = a.logits.channels;
    alpha = arena.take<T>(classes * kBlock);
    bin = arena.take<int32_t>((classes + 1) * kBlock);
    table = arena.take<uint64_t>((classes + 1) * (a.bins + 1) * kLanes);
    counts = arena.take<uint32_t>(Tables(a, nullptr).size);
  }
};

// not_numbers [C + 1]: whether a probability is NaN.
template <typename T>
void block(const StatsArgs& a, int count, const Scratch<T>& s, const int32_t* label, const Tables& t,
           int32_t* not_numbers) {
  const int classes = static_cast<int>(a.logits.channels);
  alignas(64) T total[kBlock], best[kBlock];
  alignas(64) uint64_t packed[kBlock];
  alignas(64) int32_t prediction[kBlock], level[kBlock];
  for (int v = 0; v < count; ++v) {
    total[v] = T(0);
    best[v] = s.alpha[v];
    prediction[v] = 0;
  }
  for (int c = 0; c < classes; ++c) {
    const T* row = s.alpha + c * kBlock;
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      total[v] += row[v];
      prediction[v] = row[v] > best[v] ? c : prediction[v];
      best[v] = row[v] > best[v] ? row[v] : best[v];
    }
  }
  for (int v = count; v < kBlock; ++v) packed[v] = 0;
  for (int c = 0; c <= classes; ++c) {  // the last is the top label
    const T* row = c < classes ? s.alpha + c * kBlock : best;
    int32_t* bin = s.bin + c * kBlock;
    const int32_t bins = a.bins;
    int32_t wrong = 0;
#pragma omp simd reduction(| : wrong)
    for (int v = 0; v < count; ++v) {
      const T p = row[v] / total[v];
      const int32_t own = bin_of(p, bins);
      bin[v] = label[v] >= 0 ? own : bins;
      wrong |= (label[v] >= 0) & (p != p);
      packed[v] = fixed_point(p > T(0) ? p : T(0)) + (uint64_t{1} << kSum);
    }
    for (int v = count; v < kBlock; ++v) bin[v] = a.bins;
    not_numbers[c] |= wrong;
    add_bins(bin, packed, s.table + static_cast<int64_t>(c) * (a.bins + 1) * kLanes);
  }
  const int32_t levels = a.levels;
#pragma omp simd
  for (int v = 0; v < count; ++v) level[v] = level_of(T(classes) / total[v], levels);
  for (int v = 0; v < count; ++v) {
    const int32_t y = label[v], guess = prediction[v];
    if (y < 0) continue;
    const int32_t bin = s.bin[y * kBlock + v];
    if (y == guess) {
      t.right_bin[y * a.bins + bin] += 1;
      t.right_level[y * a.levels + level[v]] += 1;
    } else {
      t.wrong_bin[y * a.bins + bin] += 1;
      t.wrong_level[y * a.levels + level[v]] += 1;
      t.wrong_level[guess * a.levels + level[v]] += 1;
      t.wrong_level[classes * a.levels + level[v]] += 1;
      t.confusion[y * classes + guess] += 1;
    }
  }
}

// confusion; hits, number by uncertainty and errors follow each other in a record.
void write_counts(const StatsArgs& a, const Tables& t, double* confusion, double* hits) {
  const int64_t classes = a.logits.channels;
  double* uncertain = hits + (classes + 1) * a.bins;
  double* errors = uncertain + a.levels;
  for (int64_t i = 0; i < classes * classes; ++i) confusion[i] = t.confusion[i];
  for (int64_t c = 0; c < classes; ++c) {
    for (int b = 0; b < a.bins; ++b) {
      hits[c * a.bins + b] = t.right_bin[c * a.bins + b] + t.wrong_bin[c * a.bins + b];
      hits[classes * a.bins + b] += t.right_bin[c * a.bins + b];
    }
    for (int l = 0; l < a.levels; ++l) {
      confusion[c * classes + c] += t.right_level[c * a.levels + l];
      uncertain[l] += t.right_level[c * a.levels + l];
    }
  }
  for (int l = 0; l < a.levels; ++l) uncertain[l] += t.wrong_level[classes * a.levels + l];
  for (int64_t i = 0; i < (classes + 1) * a.levels; ++i) errors[i] = t.wrong_level[i];
}

template <typename T>
void run(const StatsArgs& a, double* partials) {
  const View& z = a.logits;
  const int64_t chunks = stats_chunks(a), width = stats_size(z.channels, a.bins, a.levels), classes = z.channels;
  Arena size(nullptr);
  Scratch<T>(a, size);
  parallel_tasks(z.batch * chunks, a.threads, [&](int64_t task) {
    double* record = partials + task * width;
    for (int64_t i = 0; i < width; ++i) record[i] = 0.0;
    const int64_t image = task / chunks, first = task % chunks * kStatsChunk;
    const int64_t last = first + kStatsChunk < z.voxels ? first + kStatsChunk : z.voxels;
    void* memory = aligned_alloc(64, static_cast<size_t>(size.used()));
    memset(memory, 0, static_cast<size_t>(size.used()));
    Arena arena(memory);
    const Scratch<T> s(a, arena);
    const Tables tables(a, s.counts);
    const int64_t bins = (classes + 1) * a.bins;
    double* number = record + classes * classes;
    double* sum = number + bins;
    int32_t* not_numbers = static_cast<int32_t*>(calloc(static_cast<size_t>(classes + 1), sizeof(int32_t)));
    alignas(64) int32_t label[kBlock];
    int pending = 0;
    for (int64_t v = first; v < last; v += kBlock) {
      const int count = static_cast<int>(last - v < kBlock ? last - v : kBlock);
      record[width - 1] += load_labels(a.target, image * z.voxels + v, count, label);
      for (int64_t c = 0; c < classes; ++c) {
        load_row(z, a.evidence, image * z.batch_stride + c * z.channel_stride + v * z.voxel_stride, count,
                 s.alpha + c * kBlock);
      }
      block(a, count, s, label, tables, not_numbers);
      if (++pending == kFlush || v + kBlock >= last) {
        flush(s.table, classes + 1, a.bins, number, sum);
        pending = 0;
      }
    }
    for (int64_t c = 0; c <= classes; ++c) {
      if (not_numbers[c]) sum[c * a.bins] = static_cast<double>(__builtin_nanf(""));
    }
    write_counts(a, tables, record, sum + bins);
    free(not_numbers);
    free(memory);
  });
}

}  // namespace

void segmentation_stats_forward(const StatsArgs& a, double* partials) {
  a.logits.dtype == DType::f64 ? run<double>(a, partials) : run<float>(a, partials);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
