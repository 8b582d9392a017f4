// Counts and histograms of a segmentation from its logits z [N, C, V] and labels [N, V], in one pass.
//   p = alpha / A, u = C / A, prediction = argmax alpha (the first of equals)
//   confusion[label][prediction]; calibration bins floor(p bins) of every class and of the top label: number, sum of p,
//   hits; number of voxels, and of errors of each class and of the top label, by the bin ceil(u levels) - 1.
// Parallel over chunks of 32768 voxels, blocks of 128 in L1; chunks are added in order. Counts are exact in float64.
// Bytes per voxel: C logits and a label, nothing written. Bound by the evidence and by comparing bins, 16 a vector.
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

// Number and sum of p of every bin, over the voxels that count.
template <typename T>
void add_bins(const int32_t* bin, const T* p, const T* counts, int count, int bins, double* number, double* sum) {
  for (int b = 0; b < bins; ++b) {
    T n = 0, s = 0;
#pragma omp simd reduction(+ : n, s)
    for (int v = 0; v < count; ++v) {
      n += bin[v] == b ? counts[v] : T(0);
      s += bin[v] == b && counts[v] > T(0) ? p[v] : T(0);
    }
    number[b] += static_cast<double>(n);
    sum[b] += static_cast<double>(s);
  }
}

// Histograms by voxel: one array an increment, so that equal neighbours do not wait for each other.
struct Tables {
  double *confusion, *number, *sum, *hits, *uncertain, *errors, *bad;

  Tables(const StatsArgs& a, double* record) {
    const int64_t classes = a.logits.channels;
    confusion = record;
    number = confusion + classes * classes;
    sum = number + (classes + 1) * a.bins;
    hits = sum + (classes + 1) * a.bins;
    uncertain = hits + (classes + 1) * a.bins;
    errors = uncertain + a.levels;
    bad = errors + (classes + 1) * a.levels;
  }
};

template <typename T>
void block(const StatsArgs& a, int count, const T* alpha, const int32_t* label, int32_t* bin, const Tables& t) {
  const int classes = static_cast<int>(a.logits.channels);
  alignas(64) T total[kBlock], best[kBlock], p[kBlock], counts[kBlock];
  alignas(64) int32_t prediction[kBlock], level[kBlock];
  for (int v = 0; v < count; ++v) {
    total[v] = T(0);
    best[v] = alpha[v];
    prediction[v] = 0;
    counts[v] = label[v] >= 0 ? T(1) : T(0);
  }
  for (int c = 0; c < classes; ++c) {
    const T* row = alpha + c * kBlock;
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      total[v] += row[v];
      prediction[v] = row[v] > best[v] ? c : prediction[v];
      best[v] = row[v] > best[v] ? row[v] : best[v];
    }
  }
  const T bins = T(a.bins);
  for (int c = 0; c <= classes; ++c) {  // the last is the top label
    const T* row = c < classes ? alpha + c * kBlock : best;
    int32_t* bin_here = bin + c * kBlock;
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      p[v] = row[v] / total[v];
      bin_here[v] = clamped(p[v] * bins, a.bins - 1);
    }
    add_bins(bin_here, p, counts, count, a.bins, t.number + c * a.bins, t.sum + c * a.bins);
  }
#pragma omp simd
  for (int v = 0; v < count; ++v) {
    const T scaled = T(classes) / total[v] * T(a.levels);
    const int32_t whole = clamped(scaled, a.levels);
    level[v] = T(whole) < scaled ? (whole < a.levels ? whole : a.levels - 1) : (whole > 0 ? whole - 1 : 0);
  }
  for (int v = 0; v < count; ++v) {
    const int32_t y = label[v], guess = prediction[v];
    if (y < 0) continue;
    t.confusion[y * classes + guess] += 1.0;
    t.hits[y * a.bins + bin[y * kBlock + v]] += 1.0;
    t.uncertain[level[v]] += 1.0;
    if (y == guess) {
      t.hits[classes * a.bins + bin[classes * kBlock + v]] += 1.0;
    } else {
      t.errors[y * a.levels + level[v]] += 1.0;
      t.errors[guess * a.levels + level[v]] += 1.0;
      t.errors[classes * a.levels + level[v]] += 1.0;
    }
  }
}

template <typename T>
void run(const StatsArgs& a, double* partials) {
  const View& z = a.logits;
  const int64_t chunks = stats_chunks(a), width = stats_size(z.channels, a.bins, a.levels);
  parallel_tasks(z.batch * chunks, a.threads, [&](int64_t task) {
    double* record = partials + task * width;
    for (int64_t i = 0; i < width; ++i) record[i] = 0.0;
    const Tables tables(a, record);
    const int64_t image = task / chunks, first = task % chunks * kStatsChunk;
    const int64_t last = first + kStatsChunk < z.voxels ? first + kStatsChunk : z.voxels;
    const size_t rows = static_cast<size_t>(z.channels) * kBlock;
    T* alpha = static_cast<T*>(aligned_alloc(64, rows * sizeof(T)));
    int32_t* bin = static_cast<int32_t*>(aligned_alloc(64, (rows + kBlock) * sizeof(int32_t)));
    alignas(64) T slope[kBlock];
    alignas(64) int32_t label[kBlock];
    for (int64_t v = first; v < last; v += kBlock) {
      const int count = static_cast<int>(last - v < kBlock ? last - v : kBlock);
      *tables.bad += load_labels(a.target, image * z.voxels + v, count, label);
      for (int64_t c = 0; c < z.channels; ++c) {
        load_row(z, a.evidence, image * z.batch_stride + c * z.channel_stride + v * z.voxel_stride, count,
                 alpha + c * kBlock, slope);
      }
      block(a, count, alpha, label, bin, tables);
    }
    free(bin);
    free(alpha);
  });
}

}  // namespace

void segmentation_stats_forward(const StatsArgs& a, double* partials) {
  a.logits.dtype == DType::f64 ? run<double>(a, partials) : run<float>(a, partials);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
