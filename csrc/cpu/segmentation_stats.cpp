// Counts and histograms of a segmentation from its logits z [N, C, V] and labels [N, V], in one pass.
//   p = alpha / A, u = C / A, prediction = argmax alpha (the first of equals)
//   confusion[label][prediction]; calibration bins floor(p bins) of every class and of the top label: number, sum of p,
//   hits; number of voxels, and of errors of each class and of the top label, by the bin ceil(u levels) - 1.
// Parallel over chunks of 32768 voxels, blocks of 128 in L1; chunks are added in order. Counts are exact; sums of p in
// 16 lanes over 2048 voxels, then float64.
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

constexpr int kLanes = 16;
constexpr int kFlush = 16;  // blocks that a lane adds up before its sum goes to float64

// Number and sum of p of a bin, lane by lane.
template <typename T>
struct Bin {
  alignas(64) T number[kLanes];
  alignas(64) T sum[kLanes];
};

// A block's voxels into the bins; bin -1 is none.
template <typename T>
void add_bins(const int32_t* bin, const T* p, int bins, Bin<T>* out) {
  for (int b = 0; b < bins; ++b) {
    Bin<T> here = out[b];
    for (int v = 0; v < kBlock; v += kLanes) {
#pragma omp simd
      for (int l = 0; l < kLanes; ++l) {
        here.number[l] += bin[v + l] == b ? T(1) : T(0);
        here.sum[l] += bin[v + l] == b ? p[v + l] : T(0);
      }
    }
    out[b] = here;
  }
}

template <typename T>
void flush(Bin<T>* bins, int64_t count, double* number, double* sum) {
  for (int64_t b = 0; b < count; ++b) {
    for (int l = 0; l < kLanes; ++l) {
      number[b] += static_cast<double>(bins[b].number[l]);
      sum[b] += static_cast<double>(bins[b].sum[l]);
      bins[b].number[l] = bins[b].sum[l] = T(0);
    }
  }
}

// The counts of one chunk, by voxel, in the order they have in a record.
struct Tables {
  uint32_t *confusion, *hits, *uncertain, *errors;
  int64_t size;

  Tables(const StatsArgs& a, uint32_t* counts) {
    const int64_t classes = a.logits.channels;
    confusion = counts;
    hits = confusion + classes * classes;
    uncertain = hits + (classes + 1) * a.bins;
    errors = uncertain + a.levels;
    size = errors + (classes + 1) * a.levels - counts;
  }
};

template <typename T>
void block(const StatsArgs& a, int count, const T* alpha, const int32_t* label, int32_t* bin, Bin<T>* sums,
           const Tables& t) {
  const int classes = static_cast<int>(a.logits.channels);
  alignas(64) T total[kBlock], best[kBlock], p[kBlock];
  alignas(64) int32_t prediction[kBlock], level[kBlock];
  for (int v = 0; v < count; ++v) {
    total[v] = T(0);
    best[v] = alpha[v];
    prediction[v] = 0;
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
      bin_here[v] = label[v] >= 0 ? clamped(p[v] * bins, a.bins - 1) : -1;
    }
    for (int v = count; v < kBlock; ++v) {
      bin_here[v] = -1;
      p[v] = T(0);
    }
    add_bins(bin_here, p, a.bins, sums + c * a.bins);
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
    t.confusion[y * classes + guess] += 1;
    t.hits[y * a.bins + bin[y * kBlock + v]] += 1;
    t.uncertain[level[v]] += 1;
    if (y == guess) {
      t.hits[classes * a.bins + bin[classes * kBlock + v]] += 1;
    } else {
      t.errors[y * a.levels + level[v]] += 1;
      t.errors[guess * a.levels + level[v]] += 1;
      t.errors[classes * a.levels + level[v]] += 1;
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
    const int64_t classes = z.channels, image = task / chunks, first = task % chunks * kStatsChunk;
    const int64_t last = first + kStatsChunk < z.voxels ? first + kStatsChunk : z.voxels;
    const int64_t bins = (classes + 1) * a.bins, rows = classes * kBlock;
    const auto allocate = [](int64_t bytes) { return aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64)); };
    T* alpha = static_cast<T*>(allocate(rows * static_cast<int64_t>(sizeof(T))));
    int32_t* bin = static_cast<int32_t*>(allocate((rows + kBlock) * 4));
    Bin<T>* sums = static_cast<Bin<T>*>(allocate(bins * static_cast<int64_t>(sizeof(Bin<T>))));
    uint32_t* counts = static_cast<uint32_t*>(allocate(width * 4));
    const Tables tables(a, counts);
    for (int64_t i = 0; i < tables.size; ++i) counts[i] = 0;
    double* number = record + classes * classes;
    double* sum = number + bins;
    for (int64_t b = 0; b < bins; ++b) {
      for (int l = 0; l < kLanes; ++l) sums[b].number[l] = sums[b].sum[l] = T(0);
    }
    alignas(64) T slope[kBlock];
    alignas(64) int32_t label[kBlock];
    int pending = 0;
    for (int64_t v = first; v < last; v += kBlock) {
      const int count = static_cast<int>(last - v < kBlock ? last - v : kBlock);
      record[width - 1] += load_labels(a.target, image * z.voxels + v, count, label);
      for (int64_t c = 0; c < classes; ++c) {
        load_row(z, a.evidence, image * z.batch_stride + c * z.channel_stride + v * z.voxel_stride, count,
                 alpha + c * kBlock, slope);
      }
      block(a, count, alpha, label, bin, sums, tables);
      if (++pending == kFlush || v + kBlock >= last) {
        flush(sums, bins, number, sum);
        pending = 0;
      }
    }
    for (int64_t i = 0; i < classes * classes; ++i) record[i] = tables.confusion[i];
    double* rest = sum + bins;  // hits, number by uncertainty, errors: as in the tables
    for (int64_t i = 0; i < bins + (classes + 2) * a.levels; ++i) rest[i] = tables.hits[i];
    free(counts);
    free(sums);
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
