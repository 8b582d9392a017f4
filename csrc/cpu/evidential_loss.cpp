// Evidential (Dirichlet) segmentation loss and the uncertainty u, forward and backward from the logits z [N, C, V].
//   alpha = e(z) + 1, A = sum alpha, p = alpha / A, u = C / A, y one-hot, h(x) = (x-1) psi(x) - lnGamma(x) - x,
//   B = A - alpha_y + 1, the sum where the true class has no evidence
//   data: psi(A) - psi(alpha_y), or ln A - ln alpha_y, or sum (y-p)^2 + sum p (1-p) / (A+1)
//   KL: sum_{c != y} h(alpha_c) - h(B) + (C-1) psi(B) - lnGamma(C) - 1; Dice from sum p_c, sum p_c y_c, sum y_c
//   dKL/dalpha_c = h'(alpha_c) - h'(B) + (C-1) psi'(B) for c != y, else 0; du/dalpha_c = -C / A^2
// Parallel over chunks of 4096 voxels, blocks of 128 in L1. Sums: float over a block, float64 beyond, fixed order.
// Bytes per voxel: forward reads C logits and a label; backward reads the same and writes C gradients.
// Bound by arithmetic: C + 2 logarithms forward, C + 2 trigamma rationals backward.
#include "cpu/evidential_loss.h"

#include "cpu/dirichlet.h"
#include "math/gamma.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

template <int kind, typename T>
void forward_block(int classes, int count, const T* alpha, const int32_t* label, const T* far, T constant, double* sums,
                   T* uncertainty) {
  alignas(64) T total[kBlock], other[kBlock], own[kBlock], inverse[kBlock], kl[kBlock], data[kBlock];
  for (int v = 0; v < count; ++v) total[v] = other[v] = own[v] = kl[v] = data[v] = T(0);
  for (int c = 0; c < classes; ++c) {
    const T* a = alpha + c * kBlock;
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      const bool mine = label[v] == c;
      total[v] += a[v];
      other[v] += mine ? T(1) : a[v];
      own[v] = mine ? a[v] : own[v];
    }
  }
#pragma omp simd
  for (int v = 0; v < count; ++v) inverse[v] = T(1) / total[v];
  for (int c = 0; c < classes; ++c) {
    const T* a = alpha + c * kBlock;
    T sum_p = 0, sum_py = 0, sum_y = 0;
#pragma omp simd reduction(+ : sum_p, sum_py, sum_y)
    for (int v = 0; v < count; ++v) {
      const bool mine = label[v] == c;
      T h;
      const T psi = math::digamma_entropic(a[v], h);
      kl[v] += mine ? T(0) : h;
      const T p = a[v] * inverse[v];
      if (kind == 0) data[v] -= mine ? psi : T(0);
      if (kind == 2) data[v] += p * p;
      const T counted = label[v] >= 0 ? p : T(0);
      sum_p += counted;
      sum_py += mine ? p : T(0);
      sum_y += mine ? T(1) : T(0);
    }
    sums[2 + c] += sum_p;
    sums[2 + classes + c] += sum_py;
    sums[2 + 2 * classes + c] += sum_y;
  }
  T sum_data = 0, sum_kl = 0;
  const T extra = T(classes - 1);
#pragma omp simd reduction(+ : sum_data, sum_kl)
  for (int v = 0; v < count; ++v) {
    const bool counts = label[v] >= 0;
    T h;
    const T psi = math::digamma_entropic(other[v], h);
    const T k = kl[v] - h + extra * psi - constant;
    T d;
    if (kind == 0) {
      d = data[v] + math::digamma(total[v]);
    } else if (kind == 1) {
      d = counts ? math::logarithm(total[v]) - math::logarithm(counts ? own[v] : T(1)) : T(0);
      d += (own[v] + total[v]) * T(0);  // a NaN stays one
    } else {
      d = T(1) - T(2) * own[v] * inverse[v] + data[v] + (T(1) - data[v]) / (total[v] + T(1));
    }
    sum_kl += counts ? k : T(0);
    sum_data += counts ? d : T(0);
  }
  sums[0] += sum_data;
  sums[1] += sum_kl;
  T sum_far = 0, count_far = 0;
#pragma omp simd reduction(+ : sum_far, count_far)
  for (int v = 0; v < count; ++v) {
    uncertainty[v] = T(classes) * inverse[v];
    sum_far += far[v] > T(0) ? uncertainty[v] : T(0);
    count_far += far[v];
  }
  sums[2 + 3 * classes] += sum_far;
  sums[3 + 3 * classes] += count_far;
}

// slope [C][kBlock] holds e'(z) on entry and the gradient on return; g_u is d loss / d u of each voxel.
template <int kind, typename T>
void backward_block(int classes, int count, const T* alpha, T* slope, const int32_t* label, const T* g, const T* g_u) {
  alignas(64) T total[kBlock], other[kBlock], inverse[kBlock], common[kBlock], moment[kBlock], mean_g[kBlock];
  alignas(64) T through_u[kBlock];
  for (int v = 0; v < count; ++v) total[v] = other[v] = moment[v] = mean_g[v] = T(0);
  for (int c = 0; c < classes; ++c) {
    const T* a = alpha + c * kBlock;
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      total[v] += a[v];
      other[v] += label[v] == c ? T(1) : a[v];
    }
  }
  const T g_data = g[0], g_kl = g[1];
  const T* g_p = g + 2;
  const T* g_py = g + 2 + classes;
#pragma omp simd
  for (int v = 0; v < count; ++v) inverse[v] = T(1) / total[v];
  // dL/dp_c = g_c; through p = alpha / A: dL/dalpha_c = (g_c - sum_k g_k p_k) / A
  for (int c = 0; c < classes; ++c) {
    const T* a = alpha + c * kBlock;
    const T gp = g_p[c], gpy = g_py[c];
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      const T p = a[v] * inverse[v];
      const bool mine = label[v] == c;
      T gc = gp + (mine ? gpy : T(0));
      if (kind == 2) {
        gc += g_data * (T(2) * p * (T(1) - T(1) / (total[v] + T(1))) - (mine ? T(2) : T(0)));
        moment[v] += p * p;
      }
      mean_g[v] += gc * p;
    }
  }
#pragma omp simd
  for (int v = 0; v < count; ++v) {
    through_u[v] = -T(classes) * g_u[v] * inverse[v] * inverse[v];
    T shared = through_u[v] - mean_g[v] * inverse[v];
    if (kind == 0) shared += g_data * math::trigamma(total[v]);
    if (kind == 1) shared += g_data * inverse[v];
    if (kind == 2) shared -= g_data * (T(1) - moment[v]) / ((total[v] + T(1)) * (total[v] + T(1)));
    common[v] = shared;
    T slope_other;
    const T psi1_other = math::trigamma_entropic(other[v], slope_other);
    other[v] = T(classes - 1) * psi1_other - slope_other;
  }
  for (int c = 0; c < classes; ++c) {
    const T* a = alpha + c * kBlock;
    T* s = slope + c * kBlock;
    const T gp = g_p[c], gpy = g_py[c];
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      const bool mine = label[v] == c;
      const T p = a[v] * inverse[v];
      T slope_own;
      const T psi1 = math::trigamma_entropic(a[v], slope_own);
      T gc = gp + (mine ? gpy : T(0));
      if (kind == 2) gc += g_data * (T(2) * p * (T(1) - T(1) / (total[v] + T(1))) - (mine ? T(2) : T(0)));
      T d = common[v] + gc * inverse[v];
      if (kind == 0) d -= mine ? g_data * psi1 : T(0);
      if (kind == 1) d -= mine ? g_data / a[v] : T(0);
      d += mine ? T(0) : g_kl * (slope_own + other[v]);
      s[v] *= label[v] >= 0 ? d : through_u[v];
    }
  }
}

// 1 where a voxel that counts is far from the boundary.
template <typename T>
void load_far(const EvidentialArgs& a, int64_t offset, int count, const int32_t* label, T* far) {
  if (a.squared == nullptr) {
    for (int v = 0; v < count; ++v) far[v] = T(0);
    return;
  }
  const uint8_t* squared = a.squared + offset;
#pragma omp simd
  for (int v = 0; v < count; ++v) far[v] = label[v] >= 0 && squared[v] > a.far_above ? T(1) : T(0);
}

template <typename T>
T* scratch(int64_t classes) {
  const size_t bytes = static_cast<size_t>(2 * classes * kBlock) * sizeof(T);
  return static_cast<T*>(aligned_alloc(64, (bytes + 63) / 64 * 64));
}

struct Range {
  int64_t image, first, last;
};

Range chunk_range(const View& z, int64_t chunk) {
  const int64_t per_image = (z.voxels + kEvidentialChunk - 1) / kEvidentialChunk;
  const int64_t first = chunk % per_image * kEvidentialChunk;
  const int64_t last = first + kEvidentialChunk < z.voxels ? first + kEvidentialChunk : z.voxels;
  return {chunk / per_image, first, last};
}

template <int kind, typename T>
void forward(const EvidentialArgs& args, double* partials, void* uncertainty) {
  const View& z = args.logits;
  const int classes = static_cast<int>(z.channels);
  const int64_t width = evidential_sums_size(classes);
  const T constant = static_cast<T>(std::lgamma(static_cast<double>(classes)) + 1.0);
  parallel_tasks(evidential_chunks(z), args.threads, [&](int64_t chunk) {
    const Range range = chunk_range(z, chunk);
    double* sums = partials + chunk * width;
    for (int64_t i = 0; i < width; ++i) sums[i] = 0.0;
    T* alpha = scratch<T>(classes);
    T* slope = alpha + classes * kBlock;
    alignas(64) int32_t label[kBlock];
    alignas(64) T far[kBlock], u[kBlock];
    for (int64_t v = range.first; v < range.last; v += kBlock) {
      const int count = static_cast<int>(range.last - v < kBlock ? range.last - v : kBlock);
      const int64_t at = range.image * z.voxels + v;
      sums[width - 1] += load_labels(args.target, at, count, label);
      load_far(args, at, count, label, far);
      for (int c = 0; c < classes; ++c) {
        load_row(z, args.evidence, range.image * z.batch_stride + c * z.channel_stride + v * z.voxel_stride, count,
                 alpha + c * kBlock, slope + c * kBlock);
      }
      forward_block<kind, T>(classes, count, alpha, label, far, constant, sums, u);
      if (uncertainty != nullptr) store(z.dtype, uncertainty, 1, u, at, count);
    }
    free(alpha);
  });
}

template <int kind, typename T>
void backward(const EvidentialArgs& args, const double* coefficients, const void* slope_u, double slope_scale,
              const View& gradient) {
  const View& z = args.logits;
  const int classes = static_cast<int>(z.channels);
  parallel_tasks(evidential_chunks(z), args.threads, [&](int64_t chunk) {
    const Range range = chunk_range(z, chunk);
    T* alpha = scratch<T>(classes + 1);
    T* slope = alpha + classes * kBlock;
    T* g = slope + classes * kBlock;  // the spare 2 kBlock values hold the coefficients of up to kBlock - 1 classes
    T* wide = nullptr;
    if (2 + 2 * classes > 2 * kBlock) g = wide = static_cast<T*>(malloc(sizeof(T) * (2 + 2 * classes)));
    for (int64_t i = 0; i < 2 + 2 * classes; ++i) g[i] = static_cast<T>(coefficients[i]);
    const T g_far = static_cast<T>(coefficients[2 + 3 * classes]), scale = static_cast<T>(slope_scale);
    alignas(64) int32_t label[kBlock];
    alignas(64) T g_u[kBlock];
    for (int64_t v = range.first; v < range.last; v += kBlock) {
      const int count = static_cast<int>(range.last - v < kBlock ? range.last - v : kBlock);
      const int64_t at = range.image * z.voxels + v;
      load_labels(args.target, at, count, label);
      load_far(args, at, count, label, g_u);
      for (int i = 0; i < count; ++i) g_u[i] *= g_far;
      if (slope_u != nullptr) {
        const T* slopes = static_cast<const T*>(slope_u) + at;
        for (int i = 0; i < count; ++i) g_u[i] += scale * slopes[i];
      }
      for (int c = 0; c < classes; ++c) {
        load_row(z, args.evidence, range.image * z.batch_stride + c * z.channel_stride + v * z.voxel_stride, count,
                 alpha + c * kBlock, slope + c * kBlock);
      }
      backward_block<kind, T>(classes, count, alpha, slope, label, g, g_u);
      for (int c = 0; c < classes; ++c) {
        store(gradient.dtype, const_cast<void*>(gradient.data), gradient.voxel_stride, slope + c * kBlock,
              range.image * gradient.batch_stride + c * gradient.channel_stride + v * gradient.voxel_stride, count);
      }
    }
    free(wide);
    free(alpha);
  });
}

}  // namespace

void evidential_loss_forward(const EvidentialArgs& args, double* partials, void* uncertainty) {
  const bool wide = args.logits.dtype == DType::f64;
  if (args.kind == 0) {
    return wide ? forward<0, double>(args, partials, uncertainty) : forward<0, float>(args, partials, uncertainty);
  }
  if (args.kind == 1) {
    return wide ? forward<1, double>(args, partials, uncertainty) : forward<1, float>(args, partials, uncertainty);
  }
  return wide ? forward<2, double>(args, partials, uncertainty) : forward<2, float>(args, partials, uncertainty);
}

template <int kind>
static void backward_kind(const EvidentialArgs& args, const double* coefficients, const void* slope, double scale,
                          const View& gradient) {
  args.logits.dtype == DType::f64 ? backward<kind, double>(args, coefficients, slope, scale, gradient)
                                  : backward<kind, float>(args, coefficients, slope, scale, gradient);
}

void evidential_loss_backward(const EvidentialArgs& args, const double* coefficients, const void* slope, double scale,
                              const View& gradient) {
  if (args.kind == 0) return backward_kind<0>(args, coefficients, slope, scale, gradient);
  if (args.kind == 1) return backward_kind<1>(args, coefficients, slope, scale, gradient);
  backward_kind<2>(args, coefficients, slope, scale, gradient);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
