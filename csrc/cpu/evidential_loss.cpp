// Evidential (Dirichlet) segmentation loss and the uncertainty u, forward and backward from the logits z [N, C, V].
//   alpha = e(z) + 1, A = sum alpha, p = alpha / A, u = C / A, y one-hot, h(x) = (x-1) psi(x) - lnGamma(x) - x,
//   B = A - alpha_y + 1, the sum where the true class has no evidence
//   data: psi(A) - psi(alpha_y), or ln A - ln alpha_y, or sum (y-p)^2 + sum p (1-p) / (A+1)
//   KL: sum_{c != y} h(alpha_c) - h(B) + (C-1) psi(B) - lnGamma(C) - 1; Dice from sum p_c, sum p_c y_c, sum y_c
//   dKL/dalpha_c = h'(alpha_c) - h'(B) + (C-1) psi'(B) for c != y, else 0; du/dalpha_c = -C / A^2
// Regions: each channel on its own with alpha = (e(-z) + 1, e(z) + 1), two classes.
// Parallel over chunks of 4096 voxels, blocks of 128 in L1. Sums: float over a block, float64 beyond, fixed order.
// Bytes per voxel: forward reads C logits and a label; backward reads the same and writes C gradients.
// Bound by arithmetic: C + 2 logarithms forward, C + 2 trigamma rationals backward.
#include "cpu/evidential_loss.h"

#include "cpu/dirichlet.h"
#include "math/gamma.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

// What belongs to each voxel of a block, besides alpha.
template <typename T>
struct Block {
  alignas(64) int32_t label[kBlock];                  // -1: counts nowhere
  alignas(64) T far[kBlock];                          // 1 where it is far from the boundary
  alignas(64) T weight[kBlock];                       // of its data and KL terms
  alignas(64) T u[kBlock], data[kBlock], kl[kBlock];  // forward: its terms; backward: the loss's derivatives by them
};

// A, B, alpha of the voxel's class, 1 / A.
template <typename T>
struct Totals {
  alignas(64) T total[kBlock], other[kBlock], own[kBlock], inverse[kBlock];
};

template <bool kOwn, typename T>
SURE_FAST_INLINE void sum_alpha(int classes, int count, const T* alpha, const int32_t* label, Totals<T>& t) {
  for (int v = 0; v < count; ++v) t.total[v] = t.other[v] = t.own[v] = T(0);
  for (int c = 0; c < classes; ++c) {
    const T* a = alpha + c * kBlock;
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      const bool mine = label[v] == c;
      t.total[v] += a[v];
      t.other[v] += mine ? T(1) : a[v];
      if (kOwn) t.own[v] = mine ? a[v] : t.own[v];
    }
  }
#pragma omp simd
  for (int v = 0; v < count; ++v) {
    t.total[v] += t.total[v] * T(0);  // a sum beyond what T holds is no number
    t.other[v] += t.other[v] * T(0);
    t.inverse[v] = T(1) / t.total[v];
  }
}

// Adds to the sums by class, and to each voxel's terms what its classes contribute.
template <Kind kind, typename T>
SURE_FAST_INLINE void add_classes(int classes, int count, const T* alpha, const Totals<T>& t, double* sums,
                                  Block<T>& block) {
  const int32_t* label = block.label;
  T *kl = block.kl, *data = block.data;
  for (int v = 0; v < count; ++v) kl[v] = data[v] = T(0);
  for (int c = 0; c < classes; ++c) {
    const T* a = alpha + c * kBlock;
    T sum_p = 0, sum_py = 0, sum_y = 0;
#pragma omp simd reduction(+ : sum_p, sum_py, sum_y)
    for (int v = 0; v < count; ++v) {
      const bool mine = label[v] == c;
      T h;
      const T psi = math::digamma_entropic(a[v], h);
      kl[v] += mine ? T(0) : h;
      const T p = a[v] * t.inverse[v];
      if (kind == Kind::digamma) data[v] -= mine ? psi : T(0);
      if (kind == Kind::mse) data[v] += p * p;
      const T counted = label[v] >= 0 ? p : T(0);
      sum_p += counted;
      sum_py += mine ? p : T(0);
      sum_y += mine ? T(1) : T(0);
    }
    sums[2 + c] += sum_p;
    sums[2 + classes + c] += sum_py;
    sums[2 + 2 * classes + c] += sum_y;
  }
}

template <Kind kind, typename T>
void forward_block(int classes, int count, const T* alpha, T constant, double* sums, Block<T>& block) {
  const int32_t* label = block.label;
  T *kl = block.kl, *data = block.data;
  Totals<T> t;
  sum_alpha<true>(classes, count, alpha, label, t);
  add_classes<kind>(classes, count, alpha, t, sums, block);
  T sum_data = 0, sum_kl = 0;
  const T extra = T(classes - 1);
#pragma omp simd reduction(+ : sum_data, sum_kl)
  for (int v = 0; v < count; ++v) {
    const bool counts = label[v] >= 0;
    T h;
    const T psi = math::digamma_entropic(t.other[v], h);
    const T k = kl[v] - h + extra * psi - constant;
    T d;
    if (kind == Kind::digamma) {
      d = data[v] + math::digamma(t.total[v]);
    } else if (kind == Kind::log) {
      d = counts ? math::logarithm(t.total[v]) - math::logarithm(counts ? t.own[v] : T(1)) : T(0);
      d += t.own[v] * T(0) + t.total[v] * T(0);  // a NaN stays one
    } else {
      d = T(1) - T(2) * (t.own[v] * t.inverse[v]) + data[v] + (T(1) - data[v]) / (t.total[v] + T(1));
    }
    kl[v] = counts ? block.weight[v] * k : T(0);
    data[v] = counts ? block.weight[v] * d : T(0);
    sum_kl += kl[v];
    sum_data += data[v];
  }
  sums[0] += sum_data;
  sums[1] += sum_kl;
  T sum_far = 0, count_far = 0;
#pragma omp simd reduction(+ : sum_far, count_far)
  for (int v = 0; v < count; ++v) {
    block.u[v] = T(classes) * t.inverse[v];
    sum_far += block.far[v] > T(0) ? block.u[v] : T(0);
    count_far += block.far[v];
  }
  sums[2 + 3 * classes] += sum_far;
  sums[3 + 3 * classes] += count_far;
}

// g_c = dL/dp_c of a voxel; g_p and g_py: the loss's derivatives by the class's sums of p and p y.
template <Kind kind, typename T>
SURE_FAST_INLINE T slope_of_p(T p, T total, bool mine, T g_p, T g_py, T g_data) {
  T g = g_p + (mine ? g_py : T(0));
  if (kind == Kind::mse) g += g_data * (T(2) * p * (T(1) - T(1) / (total + T(1))) - (mine ? T(2) : T(0)));
  return g;
}

// What dL/dalpha_c has of every class. Through A and, p being alpha / A, through p: (g_c - sum_k g_k p_k) / A.
template <Kind kind, typename T>
SURE_FAST_INLINE void common_slopes(int classes, int count, const T* alpha, const T* g, const Totals<T>& t,
                                    const Block<T>& block, T* through_u, T* common) {
  alignas(64) T moment[kBlock], mean_g[kBlock];
  for (int v = 0; v < count; ++v) moment[v] = mean_g[v] = T(0);
  for (int c = 0; c < classes; ++c) {
    const T* a = alpha + c * kBlock;
    const T g_p = g[c], g_py = g[classes + c];
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      const T p = a[v] * t.inverse[v];
      if (kind == Kind::mse) moment[v] += p * p;
      mean_g[v] += slope_of_p<kind>(p, t.total[v], block.label[v] == c, g_p, g_py, block.data[v]) * p;
    }
  }
#pragma omp simd
  for (int v = 0; v < count; ++v) {
    const T total = t.total[v], inverse = t.inverse[v], g_data = block.data[v];
    through_u[v] = -T(classes) * block.u[v] * inverse * inverse;
    T shared = through_u[v] - mean_g[v] * inverse;
    if (kind == Kind::digamma) shared += g_data * math::trigamma(total);
    if (kind == Kind::log) shared += g_data * inverse;
    if (kind == Kind::mse) shared -= g_data * (T(1) - moment[v]) / ((total + T(1)) * (total + T(1)));
    common[v] = shared;
  }
}

// slope [C][kBlock] holds e'(z) on entry and the gradient on return; g are the derivatives by the sums of p and p y.
template <Kind kind, typename T>
void backward_block(int classes, int count, const T* alpha, T* slope, const T* g, const Block<T>& block) {
  Totals<T> t;
  alignas(64) T through_u[kBlock], common[kBlock], slope_other[kBlock];
  sum_alpha<false>(classes, count, alpha, block.label, t);
  common_slopes<kind>(classes, count, alpha, g, t, block, through_u, common);
#pragma omp simd
  for (int v = 0; v < count; ++v) {
    T entropic_slope;
    const T trigamma = math::trigamma_entropic(t.other[v], entropic_slope);
    slope_other[v] = T(classes - 1) * trigamma - entropic_slope;
  }
  for (int c = 0; c < classes; ++c) {
    const T* a = alpha + c * kBlock;
    T* s = slope + c * kBlock;
    const T g_p = g[c], g_py = g[classes + c];
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      const bool mine = block.label[v] == c;
      const T g_data = block.data[v];
      T slope_own;
      const T trigamma = math::trigamma_entropic(a[v], slope_own);
      const T g_c = slope_of_p<kind>(a[v] * t.inverse[v], t.total[v], mine, g_p, g_py, g_data);
      T d = common[v] + g_c * t.inverse[v];
      if (kind == Kind::digamma) d -= mine ? g_data * trigamma : T(0);
      if (kind == Kind::log) d -= mine ? g_data / a[v] : T(0);
      d += mine ? T(0) : block.kl[v] * (slope_own + slope_other[v]);
      s[v] *= block.label[v] >= 0 ? d : through_u[v];
    }
  }
}

// Labels of a block, which of its voxels are far, and their weights. Returns the number of bad labels.
template <typename T>
int load_block(const EvidentialArgs& a, int64_t at, int count, Block<T>& block) {
  const int bad = load_labels(a.target, at, count, block.label);
  if (a.squared == nullptr) {
    for (int v = 0; v < count; ++v) block.far[v] = T(0);
  } else {
    const uint8_t* squared = a.squared + at;
    const int32_t far_above = a.far_above;
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      const int32_t steps = block.label[v] >= 0 ? static_cast<int32_t>(squared[v]) : -1;
      block.far[v] = steps > far_above ? T(1) : T(0);
    }
  }
  for (int v = 0; v < count; ++v) block.weight[v] = T(1);
  for (int v = 0; v < count && a.weights != nullptr; ++v) {
    if (block.label[v] >= 0) block.weight[v] = static_cast<T>(a.weights[block.label[v]]);
  }
  return bad;
}

// alpha and, unless null, d alpha / d z of every class.
template <typename T>
void load_alpha(const EvidentialArgs& a, int64_t map, int64_t v, int count, T* alpha, T* slope) {
  const View& z = a.logits;
  if (a.regions) {
    const int64_t groups = z.channels;
    const int64_t at = map / groups * z.batch_stride + map % groups * z.channel_stride + v * z.voxel_stride;
    return load_both(z, a.evidence, at, count, alpha, slope);
  }
  for (int64_t c = 0; c < z.channels; ++c) {
    const int64_t at = map * z.batch_stride + c * z.channel_stride + v * z.voxel_stride;
    load_row(z, a.evidence, at, count, alpha + c * kBlock, slope == nullptr ? nullptr : slope + c * kBlock);
  }
}

template <typename T>
void write_voxels(void* to, int64_t at, const T* values, int count) {
  if (to != nullptr) memcpy(static_cast<T*>(to) + at, values, sizeof(T) * static_cast<size_t>(count));
}

// base + scale * values
template <typename T>
void read_voxels(const void* from, int64_t at, T base, T scale, int count, T* out) {
  if (from == nullptr) {
    for (int v = 0; v < count; ++v) out[v] = base;
    return;
  }
  const T* values = static_cast<const T*>(from) + at;
  for (int v = 0; v < count; ++v) out[v] = base + scale * values[v];
}

template <typename T>
T* scratch(int64_t classes) {
  const size_t bytes = static_cast<size_t>(2 * classes * kBlock) * sizeof(T);
  return static_cast<T*>(aligned_alloc(64, (bytes + 63) / 64 * 64));
}

struct Range {
  int64_t map, first, last;
};

Range chunk_range(const EvidentialArgs& a, int64_t chunk) {
  const int64_t chunks = evidential_chunks(a), voxels = a.logits.voxels;
  const int64_t first = chunk % chunks * kEvidentialChunk;
  return {chunk / chunks, first, first + kEvidentialChunk < voxels ? first + kEvidentialChunk : voxels};
}

template <Kind kind, typename T>
void forward(const EvidentialArgs& args, double* partials, const EvidentialVoxels& voxels) {
  const int classes = static_cast<int>(evidential_classes(args));
  const int64_t width = evidential_sums_size(classes);
  const T constant = static_cast<T>(std::lgamma(static_cast<double>(classes)) + 1.0);
  parallel_tasks(evidential_maps(args) * evidential_chunks(args), args.threads, [&](int64_t chunk) {
    const Range range = chunk_range(args, chunk);
    double* sums = partials + chunk * width;
    for (int64_t i = 0; i < width; ++i) sums[i] = 0.0;
    T* alpha = scratch<T>(classes);
    Block<T> block;
    for (int64_t v = range.first; v < range.last; v += kBlock) {
      const int count = static_cast<int>(range.last - v < kBlock ? range.last - v : kBlock);
      const int64_t at = range.map * args.logits.voxels + v;
      sums[width - 1] += load_block(args, at, count, block);
      load_alpha(args, range.map, v, count, alpha, static_cast<T*>(nullptr));
      forward_block<kind, T>(classes, count, alpha, constant, sums, block);
      write_voxels(voxels.uncertainty, at, block.u, count);
      write_voxels(voxels.data, at, block.data, count);
      write_voxels(voxels.kl, at, block.kl, count);
    }
    free(alpha);
  });
}

template <Kind kind, typename T>
void backward(const EvidentialArgs& args, const double* coefficients, const EvidentialVoxels& slopes,
              const View& gradient) {
  const int classes = static_cast<int>(evidential_classes(args));
  const int64_t width = evidential_sums_size(classes), groups = evidential_groups(args);
  parallel_tasks(evidential_maps(args) * evidential_chunks(args), args.threads, [&](int64_t chunk) {
    const Range range = chunk_range(args, chunk);
    const double* coefficient = coefficients + range.map % groups * width;
    T* alpha = scratch<T>(classes + 1);
    T* slope = alpha + classes * kBlock;
    T* g = slope + classes * kBlock;  // the spare 2 kBlock values hold the coefficients of up to kBlock classes
    T* wide = nullptr;
    if (classes > kBlock) g = wide = static_cast<T*>(malloc(sizeof(T) * static_cast<size_t>(2 * classes)));
    for (int i = 0; i < 2 * classes; ++i) g[i] = static_cast<T>(coefficient[2 + i]);
    const T g_data = static_cast<T>(coefficient[0]), g_kl = static_cast<T>(coefficient[1]);
    const T g_far = static_cast<T>(coefficient[2 + 3 * classes]);
    const T scale = static_cast<T>(slopes.uncertainty_scale);
    Block<T> block;
    for (int64_t v = range.first; v < range.last; v += kBlock) {
      const int count = static_cast<int>(range.last - v < kBlock ? range.last - v : kBlock);
      const int64_t at = range.map * args.logits.voxels + v;
      load_block(args, at, count, block);
      load_alpha(args, range.map, v, count, alpha, slope);
      read_voxels(slopes.uncertainty, at, T(0), scale, count, block.u);
      read_voxels(slopes.data, at, g_data, T(1), count, block.data);
      read_voxels(slopes.kl, at, g_kl, T(1), count, block.kl);
      for (int i = 0; i < count; ++i) {
        block.u[i] += g_far * block.far[i];
        block.data[i] *= block.weight[i];
        block.kl[i] *= block.weight[i];
      }
      backward_block<kind, T>(classes, count, alpha, slope, g, block);
      if (args.regions) {
        for (int i = 0; i < count; ++i) slope[i] += slope[kBlock + i];
      }
      const int64_t image = range.map / groups, channel = range.map % groups;
      for (int c = 0; c < (args.regions ? 1 : classes); ++c) {
        store(gradient.dtype, const_cast<void*>(gradient.data), gradient.voxel_stride, slope + c * kBlock,
              image * gradient.batch_stride + (channel + c) * gradient.channel_stride + v * gradient.voxel_stride,
              count);
      }
    }
    free(wide);
    free(alpha);
  });
}

}  // namespace

void evidential_loss_forward(const EvidentialArgs& args, double* partials, const EvidentialVoxels& voxels) {
  const bool wide = args.logits.dtype == DType::f64;
  if (args.kind == Kind::digamma)
    return wide ? forward<Kind::digamma, double>(args, partials, voxels)
                : forward<Kind::digamma, float>(args, partials, voxels);
  if (args.kind == Kind::log)
    return wide ? forward<Kind::log, double>(args, partials, voxels)
                : forward<Kind::log, float>(args, partials, voxels);
  return wide ? forward<Kind::mse, double>(args, partials, voxels) : forward<Kind::mse, float>(args, partials, voxels);
}

template <Kind kind>
static void backward_kind(const EvidentialArgs& args, const double* coefficients, const EvidentialVoxels& slope,
                          const View& gradient) {
  args.logits.dtype == DType::f64 ? backward<kind, double>(args, coefficients, slope, gradient)
                                  : backward<kind, float>(args, coefficients, slope, gradient);
}

void evidential_loss_backward(const EvidentialArgs& args, const double* coefficients, const EvidentialVoxels& slope,
                              const View& gradient) {
  if (args.kind == Kind::digamma) return backward_kind<Kind::digamma>(args, coefficients, slope, gradient);
  if (args.kind == Kind::log) return backward_kind<Kind::log>(args, coefficients, slope, gradient);
  backward_kind<Kind::mse>(args, coefficients, slope, gradient);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
