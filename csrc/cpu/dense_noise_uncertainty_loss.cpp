// Order and far terms of dense_noise_uncertainty_loss from maps u_0, u_1, u_2 and d [voxels]; of one noisy copy those
// of u_0 and u_1 alone, the sums of the others being 0.
//   order_ij = sum over d <= threshold of [s (u_i - u_j) + margin |l_j - l_i|]+, s = sign(l_j - l_i)
//   far_k, near_k = sum over d > threshold, d <= threshold of u_k
// Backward: +s and -s at the voxels where order_ij is above 0 (at u_j alone with `detach`), 1 at far and near ones,
// each times its coefficient; nothing is kept, the four maps are read again.
// Parallel over chunks of 2^14 voxels; sums over 512 voxels in the dtype of u, beyond in float64, in order.
// Bytes per voxel: four values read; the backward writes three more; of one copy three and two. Bound by memory.
#include "cpu/dense_noise_uncertainty_loss.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int64_t kBlock = 512;  // voxels whose sums are in the dtype of u

struct Range {
  int64_t first, last;
};

Range chunk_range(const DenseNoiseArgs& a, int64_t chunk) {
  const int64_t first = chunk * kDenseNoiseChunk, last = first + kDenseNoiseChunk;
  return {first, last < a.voxels ? last : a.voxels};
}

double sign(double x) { return x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : 0.0; }

// The sums of at most kBlock voxels: order_01, order_02, order_12, near, then far of each image and their number, then
// near of each image, as in the partials.
template <bool two, typename Value, typename Distance>
SURE_FAST_INLINE void sum_block(const Value* const* u, const Distance* d, int64_t first, int64_t last,
                                Distance threshold, const Value* s, const Value* m, double* sums) {
  constexpr Value zero = Value(0), one = Value(1);
  const Value *clean = u[0], *first_copy = u[1], *second_copy = u[2];
  const Value s01 = s[0], s02 = s[1], s12 = s[2], m01 = m[0], m02 = m[1], m12 = m[2];
  Value order01 = 0, order02 = 0, order12 = 0, near = 0, far = 0, far0 = 0, far1 = 0, far2 = 0, near0 = 0, near1 = 0,
        near2 = 0;
#pragma omp simd reduction(+ : order01, order02, order12, near, far, far0, far1, far2, near0, near1, near2)
  for (int64_t v = first; v < last; ++v) {
    const bool is_near = d[v] <= threshold, is_far = d[v] > threshold;
    const Value u0 = clean[v], u1 = first_copy[v], x01 = s01 * (u0 - u1) + m01;
    order01 += is_near & !(x01 <= zero) ? x01 : zero;  // a NaN is kept
    near += is_near ? one : zero;
    far += is_far ? one : zero;
    far0 += is_far ? u0 : zero;
    far1 += is_far ? u1 : zero;
    near0 += is_near ? u0 : zero;
    near1 += is_near ? u1 : zero;
    if constexpr (two) {
      const Value u2 = second_copy[v], x02 = s02 * (u0 - u2) + m02, x12 = s12 * (u1 - u2) + m12;
      order02 += is_near & !(x02 <= zero) ? x02 : zero;
      order12 += is_near & !(x12 <= zero) ? x12 : zero;
      far2 += is_far ? u2 : zero;
      near2 += is_near ? u2 : zero;
    }
  }
  const Value parts[kDenseNoiseSums] = {order01, order02, order12, near, far0, far1, far2, far, near0, near1, near2};
  for (int k = 0; k < kDenseNoiseSums; ++k) sums[k] += static_cast<double>(parts[k]);
}

template <bool two, typename Value, typename Distance>
void forward_of(const DenseNoiseArgs& a, double* partials) {
  const Value* u[3];
  Value s[3], m[3];
  for (int k = 0; k < 3; ++k) {
    u[k] = static_cast<const Value*>(a.uncertainty[two || k < 2 ? k : 1]);
    s[k] = static_cast<Value>(sign(a.rise[k]));
    m[k] = static_cast<Value>(a.margin * fabs(a.rise[k]));
  }
  const Distance* d = static_cast<const Distance*>(a.distance);
  const Distance threshold = static_cast<Distance>(a.threshold);
  parallel_tasks(dense_noise_chunks(a), a.threads, [&](int64_t chunk) {
    const Range range = chunk_range(a, chunk);
    double* sums = partials + chunk * kDenseNoiseSums;
    for (int k = 0; k < kDenseNoiseSums; ++k) sums[k] = 0.0;
    for (int64_t first = range.first; first < range.last; first += kBlock) {
      sum_block<two>(u, d, first, first + kBlock < range.last ? first + kBlock : range.last, threshold, s, m, sums);
    }
  });
}

template <typename Value, typename Distance>
void forward(const DenseNoiseArgs& a, double* partials) {
  return a.images == 3 ? forward_of<true, Value, Distance>(a, partials)
                       : forward_of<false, Value, Distance>(a, partials);
}

// What one voxel's u is told, in the dtype of u.
template <typename Value>
struct Slopes {
  Value s[3], m[3];       // of the pairs (0, 1), (0, 2), (1, 2)
  Value high[3], low[3];  // what a missing rise adds at the image of more noise, and of less
  Value far[3], near[3];  // of the images

  Slopes(const DenseNoiseArgs& a, const double* coefficients) {
    for (int k = 0; k < 3; ++k) {
      s[k] = static_cast<Value>(sign(a.rise[k]));
      m[k] = static_cast<Value>(a.margin * fabs(a.rise[k]));
      low[k] = static_cast<Value>(coefficients[k]) * s[k];
      high[k] = -low[k];
      if (a.detach) low[k] = Value(0);
      far[k] = static_cast<Value>(coefficients[4 + k]);
      near[k] = static_cast<Value>(coefficients[8 + k]);
    }
  }
};

template <bool two, typename Value, typename Distance>
SURE_FAST_INLINE void write_slopes(const Slopes<Value>& by, const Value* const* u, const Distance* d, int64_t first,
                                   int64_t last, Distance threshold, Value* const* gradient) {
  constexpr Value zero = Value(0);
  const Value *clean = u[0], *first_copy = u[1], *second_copy = u[2];
  Value *at_clean = gradient[0], *at_first = gradient[1], *at_second = gradient[2];
  const Slopes<Value> c = by;
#pragma omp simd
  for (int64_t v = first; v < last; ++v) {
    const bool near = d[v] <= threshold, far = d[v] > threshold;
    const Value u0 = clean[v], u1 = first_copy[v];
    const bool missing01 = near & !(c.s[0] * (u0 - u1) + c.m[0] <= zero);
    Value g0 = near ? c.near[0] : zero, g1 = near ? c.near[1] : zero;
    g0 += far ? c.far[0] : zero;
    g1 += far ? c.far[1] : zero;
    g0 += missing01 ? c.low[0] : zero;
    g1 += missing01 ? c.high[0] : zero;
    if constexpr (two) {
      const Value u2 = second_copy[v];
      const bool missing02 = near & !(c.s[1] * (u0 - u2) + c.m[1] <= zero);
      const bool missing12 = near & !(c.s[2] * (u1 - u2) + c.m[2] <= zero);
      Value g2 = near ? c.near[2] : zero;
      g2 += far ? c.far[2] : zero;
      g0 += missing02 ? c.low[1] : zero;
      g1 += missing12 ? c.low[2] : zero;
      g2 += missing02 ? c.high[1] : zero;
      g2 += missing12 ? c.high[2] : zero;
      at_second[v] = g2;
    }
    at_clean[v] = g0;
    at_first[v] = g1;
  }
}

template <bool two, typename Value, typename Distance>
void backward_of(const DenseNoiseArgs& a, const double* coefficients, void* const* gradients) {
  const Value* u[3];
  Value* gradient[3];
  for (int k = 0; k < 3; ++k) {
    const int image = two || k < 2 ? k : 1;  // of one copy the third pointer is not used
    u[k] = static_cast<const Value*>(a.uncertainty[image]);
    gradient[k] = static_cast<Value*>(gradients[image]);
  }
  const Slopes<Value> by(a, coefficients);
  parallel_tasks(dense_noise_chunks(a), a.threads, [&](int64_t chunk) {
    const Range range = chunk_range(a, chunk);
    write_slopes<two>(by, u, static_cast<const Distance*>(a.distance), range.first, range.last,
                      static_cast<Distance>(a.threshold), gradient);
  });
}

template <typename Value, typename Distance>
void backward(const DenseNoiseArgs& a, const double* coefficients, void* const* gradients) {
  return a.images == 3 ? backward_of<true, Value, Distance>(a, coefficients, gradients)
                       : backward_of<false, Value, Distance>(a, coefficients, gradients);
}

}  // namespace

void dense_noise_uncertainty_forward(const DenseNoiseArgs& a, double* partials) {
  const bool wide = a.distance_dtype == DType::f64;
  if (a.dtype == DType::f64) return wide ? forward<double, double>(a, partials) : forward<double, float>(a, partials);
  return wide ? forward<float, double>(a, partials) : forward<float, float>(a, partials);
}

void dense_noise_uncertainty_backward(const DenseNoiseArgs& a, const double* coefficients, void* const* gradients) {
  const bool wide = a.distance_dtype == DType::f64;
  if (a.dtype == DType::f64) {
    return wide ? backward<double, double>(a, coefficients, gradients)
                : backward<double, float>(a, coefficients, gradients);
  }
  return wide ? backward<float, double>(a, coefficients, gradients)
              : backward<float, float>(a, coefficients, gradients);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
