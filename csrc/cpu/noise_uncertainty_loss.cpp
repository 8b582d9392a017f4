// Noise-uncertainty loss from the logits of a clean image and two noisy ones, [N, C, V]: u = C / sum alpha of each.
//   far = mean over d > threshold of u + u1 + u2: du/dz_c = -C / A^2 e'(z_c)
//   order, at all patch centers of d <= threshold: w = (u2-u1)(m2-m1), (u1-u) m1, (u2-u) m2; of each the mean of -w
//   over w < 0. distance, per image over pairs of centers: v = (d_i-d_j)(D_i-D_j), D = u^k - u where near, else 0; the
//   mean of v over v > 0, for k = 1, 2. A value that is NaN counts as a violation, so that it shows.
// Parallel over chunks of 4096 voxels; a block without far voxels is not read. float64 sums in a fixed order.
// Bytes per voxel: the distance; forward and backward read C logits of each image, backward writes C gradients.
// Bound by the softplus of the far voxels.
#include "cpu/noise_uncertainty_loss.h"

#include "cpu/dirichlet.h"
#include "math/distance.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

struct Range {
  int64_t image, first, last;
};

Range chunk_range(const NoiseArgs& a, int64_t chunk) {
  const int64_t voxels = a.logits[0].voxels, per_image = (voxels + kNoiseChunk - 1) / kNoiseChunk;
  const int64_t first = chunk % per_image * kNoiseChunk;
  return {chunk / per_image, first, first + kNoiseChunk < voxels ? first + kNoiseChunk : voxels};
}

// 1 at the far voxels of a block; returns how many there are.
template <typename T>
int load_far(const NoiseArgs& a, int64_t at, int count, T* far) {
  if (a.squared != nullptr) {
    const int most = squared_steps_within(a.threshold);
    for (int i = 0; i < count; ++i) {
      const uint8_t s = a.squared[at + i];
      far[i] = s > most && s != kIgnored ? T(1) : T(0);
    }
  } else if (a.distance_dtype == DType::f64) {
    const double* d = static_cast<const double*>(a.distance) + at;
    for (int i = 0; i < count; ++i) far[i] = d[i] > a.threshold ? T(1) : T(0);
  } else {
    const float* d = static_cast<const float*>(a.distance) + at;
    const float threshold = static_cast<float>(a.threshold);
    for (int i = 0; i < count; ++i) far[i] = d[i] > threshold ? T(1) : T(0);
  }
  T number = 0;
  for (int i = 0; i < count; ++i) number += far[i];
  return static_cast<int>(number);
}

template <typename T>
void far_sums(const NoiseArgs& a, double* partials) {
  parallel_tasks(noise_chunks(a), a.threads, [&](int64_t chunk) {
    const Range range = chunk_range(a, chunk);
    double* sums = partials + 4 * chunk;
    for (int k = 0; k < 4; ++k) sums[k] = 0.0;
    alignas(64) T far[kBlock], total[kBlock], alpha[kBlock];
    for (int64_t v = range.first; v < range.last; v += kBlock) {
      const int count = static_cast<int>(range.last - v < kBlock ? range.last - v : kBlock);
      const int far_count = load_far(a, range.image * a.logits[0].voxels + v, count, far);
      if (far_count == 0) continue;
      sums[3] += far_count;
      for (int k = a.clean_far ? 0 : 1; k < 3; ++k) {
        const View& z = a.logits[k];
        for (int i = 0; i < count; ++i) total[i] = T(0);
        for (int64_t c = 0; c < z.channels; ++c) {
          load_row(z, a.evidence, range.image * z.batch_stride + c * z.channel_stride + v * z.voxel_stride, count,
                   alpha);
          for (int i = 0; i < count; ++i) total[i] += alpha[i];
        }
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < count; ++i) sum += far[i] > T(0) ? T(z.channels) / total[i] : T(0);
        sums[k] += static_cast<double>(sum);
      }
    }
  });
}

int64_t center_voxel(const NoiseArgs& a, int64_t i) {
  int64_t flat = 0;
  for (int k = 0; k < a.dims; ++k) flat = flat * a.size[3 - a.dims + k] + a.centers[i * a.dims + k];
  return flat;
}

// Distance from a voxel to the nearest boundary voxel of its image, in steps, by looking through the bytes.
double search_boundary(const NoiseArgs& a, int64_t image, int64_t voxel) {
  const int64_t H = a.size[1], W = a.size[2];
  const int64_t d0 = voxel / (H * W), h0 = voxel / W % H, w0 = voxel % W;
  const uint8_t* bytes = a.squared + image * a.logits[0].voxels;
  int64_t best = INT64_MAX;
  for (int64_t row = 0; row < a.size[0] * H; ++row) {
    const int64_t dd = row / H - d0, dh = row % H - h0, base = dd * dd + dh * dh;
    if (base >= best) continue;
    const uint8_t* begin = bytes + row * W;
    const uint8_t* end = begin + W;
    for (const uint8_t* at = begin;
         (at = static_cast<const uint8_t*>(memchr(at, 0, static_cast<size_t>(end - at)))) != nullptr; ++at) {
      const int64_t dw = at - begin - w0, squared = base + dw * dw;
      best = squared < best ? squared : best;
    }
  }
  return best == INT64_MAX ? static_cast<double>(__builtin_inff()) : __builtin_sqrt(static_cast<double>(best));
}

double center_distance(const NoiseArgs& a, int64_t image, int64_t voxel) {
  const int64_t at = image * a.logits[0].voxels + voxel;
  if (a.squared != nullptr) {
    const uint8_t squared = a.squared[at];
    if (squared == kIgnored) return __builtin_nan("");
    return squared == kBeyond ? search_boundary(a, image, voxel) : __builtin_sqrt(static_cast<double>(squared));
  }
  return a.distance_dtype == DType::f64 ? static_cast<const double*>(a.distance)[at]
                                        : static_cast<double>(static_cast<const float*>(a.distance)[at]);
}

template <typename T>
void center_values(const NoiseArgs& a, double* scratch) {
  const int64_t count = a.logits[0].batch * a.patches;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t image = i / a.patches, voxel = a.valid[i] ? center_voxel(a, i) : 0;
    for (int k = 0; k < 3; ++k) {
      T total = T(0);
      if (a.valid[i]) gather_totals(a.logits[k], a.evidence, image, &voxel, 1, &total);
      scratch[k * count + i] = static_cast<double>(a.logits[k].channels) / static_cast<double>(total);
    }
    scratch[3 * count + i] = a.valid[i] ? center_distance(a, image, voxel) : __builtin_nan("");
  }
}

// One set of the order term: mean of -w, w = sign (x - y) level, over w < 0; adds its slopes.
double order_set(int64_t count, const double* x, const double* y, const double* d, double threshold, double level,
                 double* slope_x, double* slope_y) {
  double sum = 0.0;
  int64_t wrong = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double w = (x[i] - y[i]) * level;
    if (!(d[i] <= threshold) || w >= 0.0) continue;
    sum -= w;
    ++wrong;
  }
  const double each = 1.0 / static_cast<double>(wrong > 0 ? wrong : 1);
  for (int64_t i = 0; i < count; ++i) {
    const double w = (x[i] - y[i]) * level;
    if (!(d[i] <= threshold) || w >= 0.0) continue;
    slope_x[i] -= level * each;
    if (slope_y != nullptr) slope_y[i] += level * each;
  }
  return sum * each;
}

// The distance term of one image and noisy copy; adds its slopes, divided by the number of images.
double distance_pairs(int64_t patches, const double* u, const double* noisy, const double* d, double threshold,
                      double images, double* slope) {
  double sum = 0.0;
  int64_t wrong = 0;
  for (int pass = 0; pass < 2; ++pass) {
    const double each = 1.0 / (images * static_cast<double>(wrong > 0 ? wrong : 1));
    for (int64_t i = 0; i < patches; ++i) {
      if (!(__builtin_fabs(d[i]) < static_cast<double>(__builtin_inff()))) continue;
      const bool near_i = d[i] <= threshold;
      for (int64_t j = i + 1; j < patches; ++j) {
        if (!(__builtin_fabs(d[j]) < static_cast<double>(__builtin_inff()))) continue;
        const bool near_j = d[j] <= threshold;
        const double by = d[i] - d[j];
        const double v = by * ((near_i ? noisy[i] - u[i] : 0.0) - (near_j ? noisy[j] - u[j] : 0.0));
        if (v <= 0.0) continue;
        if (pass == 0) {
          sum += v;
          ++wrong;
        } else {
          if (near_i) slope[i] += by * each;
          if (near_j) slope[j] -= by * each;
        }
      }
    }
    if (pass == 0 && wrong == 0) return 0.0;
  }
  return sum / (images * static_cast<double>(wrong));
}

template <typename T>
void backward(const NoiseArgs& a, const double* coefficients, const double* slopes, const View* gradients) {
  const int first = a.clean_far ? 0 : 1;
  parallel_tasks(noise_chunks(a), a.threads, [&](int64_t chunk) {
    const Range range = chunk_range(a, chunk);
    const int64_t channels = a.logits[0].channels;
    alignas(64) T far[kBlock], total[kBlock];
    const size_t bytes = static_cast<size_t>(2 * channels * kBlock) * sizeof(T);
    T* alpha = static_cast<T*>(aligned_alloc(64, (bytes + 63) / 64 * 64));
    T* slope = alpha + channels * kBlock;
    for (int64_t v = range.first; v < range.last; v += kBlock) {
      const int count = static_cast<int>(range.last - v < kBlock ? range.last - v : kBlock);
      const int far_count = load_far(a, range.image * a.logits[0].voxels + v, count, far);
      for (int k = first; k < 3; ++k) {
        const View &z = a.logits[k], &g = gradients[k];
        if (far_count > 0) {
          for (int i = 0; i < count; ++i) total[i] = T(0);
          for (int64_t c = 0; c < channels; ++c) {
            load_row(z, a.evidence, range.image * z.batch_stride + c * z.channel_stride + v * z.voxel_stride, count,
                     alpha + c * kBlock, slope + c * kBlock);
            for (int i = 0; i < count; ++i) total[i] += alpha[c * kBlock + i];
          }
          const T scale = -static_cast<T>(coefficients[k]) * static_cast<T>(channels);
#pragma omp simd
          for (int i = 0; i < count; ++i) {
            const T of_far = scale / (total[i] * total[i]);  // of all, or it would be a branch
            total[i] = far[i] > T(0) ? of_far : T(0);
          }
        }
        for (int64_t c = 0; c < channels; ++c) {
          T* row = slope + c * kBlock;
          if (far_count == 0) {
            for (int i = 0; i < count; ++i) row[i] = T(0);
          } else {
#pragma omp simd
            for (int i = 0; i < count; ++i) {
              const T of_far = row[i] * total[i];
              row[i] = far[i] > T(0) ? of_far : T(0);
            }
          }
          store(g.dtype, const_cast<void*>(g.data), g.voxel_stride, row,
                range.image * g.batch_stride + c * g.channel_stride + v * g.voxel_stride, count);
        }
      }
    }
    free(alpha);
  });
  const int64_t count = a.logits[0].batch * a.patches;
  for (int64_t i = 0; i < count; ++i) {
    for (int k = 1; k < 3; ++k) {
      const double s = slopes[(k - 1) * count + i];
      if (s == 0.0) continue;  // a NaN goes on
      const View &z = a.logits[k], &g = gradients[k];
      const int64_t image = i / a.patches, voxel = center_voxel(a, i);
      T total, alpha, slope, before;
      gather_totals(z, a.evidence, image, &voxel, 1, &total);
      for (int64_t c = 0; c < z.channels; ++c) {
        T raw;
        gather_logits(z, image * z.batch_stride + c * z.channel_stride, &voxel, 1, &raw);
        load_kind<T, T>(a.evidence, &raw, 0, 1, 1, &alpha, &slope);
        gather_logits(g, image * g.batch_stride + c * g.channel_stride, &voxel, 1, &before);
        const T sum = before - static_cast<T>(s) * T(z.channels) / (total * total) * slope;
        store(g.dtype, const_cast<void*>(g.data), 1, &sum,
              image * g.batch_stride + c * g.channel_stride + voxel * g.voxel_stride, 1);
      }
    }
  }
}

}  // namespace

void noise_uncertainty_far_sums(const NoiseArgs& a, double* partials) {
  a.logits[0].dtype == DType::f64 ? far_sums<double>(a, partials) : far_sums<float>(a, partials);
}

void noise_uncertainty_center_terms(const NoiseArgs& a, double* scratch, double* terms, double* slopes) {
  const int64_t images = a.logits[0].batch, count = images * a.patches;
  a.logits[0].dtype == DType::f64 ? center_values<double>(a, scratch) : center_values<float>(a, scratch);
  const double *u = scratch, *u1 = u + count, *u2 = u1 + count, *d = u2 + count;
  for (int64_t i = 0; i < 4 * count; ++i) slopes[i] = 0.0;
  double *order1 = slopes, *order2 = slopes + count;
  terms[0] = order_set(count, u2, u1, d, a.threshold, a.levels[1] - a.levels[0], order2, order1);
  terms[0] += order_set(count, u1, u, d, a.threshold, a.levels[0], order1, nullptr);
  terms[0] += order_set(count, u2, u, d, a.threshold, a.levels[1], order2, nullptr);
  terms[1] = 0.0;
  for (int k = 0; k < 2; ++k) {
    const double* noisy = k == 0 ? u1 : u2;
    for (int64_t n = 0; n < images; ++n) {
      const int64_t at = n * a.patches;
      terms[1] += distance_pairs(a.patches, u + at, noisy + at, d + at, a.threshold, static_cast<double>(images),
                                 slopes + (2 + k) * count + at);
    }
  }
}

void noise_uncertainty_backward(const NoiseArgs& a, const double* coefficients, const double* slopes,
                                const View* gradients) {
  a.logits[0].dtype == DType::f64 ? backward<double>(a, coefficients, slopes, gradients)
                                  : backward<float>(a, coefficients, slopes, gradients);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
