// Blocks of voxels of [N, C, V] logits as alpha = e(z) + 1 and e'(z), and blocks of results in the logits' dtype.
#pragma once

#include "cpu/common.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kBlock = 128;

// alpha = e(z) + 1 and, unless null, slope = e'(z).
template <typename T, typename Storage, Evidence kind>
void load(const Storage* z, int64_t stride, int count, T* alpha, T* slope) {
  if (slope == nullptr) {
    alignas(64) T raw[kBlock];
    if (stride != 1) {
      for (int v = 0; v < count; ++v) raw[v] = static_cast<T>(widen(z[v * stride]));
    }
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      T unused;
      alpha[v] = T(1) + math::evidence<kind>(stride == 1 ? static_cast<T>(widen(z[v])) : raw[v], unused);
    }
  } else if (stride == 1) {
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      T d;
      alpha[v] = T(1) + math::evidence<kind>(static_cast<T>(widen(z[v])), d);
      slope[v] = d;
    }
  } else {
    for (int v = 0; v < count; ++v) alpha[v] = static_cast<T>(widen(z[v * stride]));
#pragma omp simd
    for (int v = 0; v < count; ++v) {
      T d;
      alpha[v] = T(1) + math::evidence<kind>(alpha[v], d);
      slope[v] = d;
    }
  }
}

template <typename T, typename Storage>
void load_kind(Evidence evidence, const void* data, int64_t offset, int64_t stride, int count, T* alpha, T* slope) {
  const Storage* z = static_cast<const Storage*>(data) + offset;
  switch (evidence) {
    case Evidence::softplus: return load<T, Storage, Evidence::softplus>(z, stride, count, alpha, slope);
    case Evidence::relu: return load<T, Storage, Evidence::relu>(z, stride, count, alpha, slope);
    default: return load<T, Storage, Evidence::exp>(z, stride, count, alpha, slope);
  }
}

inline void load_row(const View& z, Evidence evidence, int64_t offset, int count, float* alpha,
                     float* slope = nullptr) {
  const int64_t stride = z.voxel_stride;
  if (z.dtype == DType::bf16) {
    load_kind<float, bfloat16_t>(evidence, z.data, offset, stride, count, alpha, slope);
  } else if (z.dtype == DType::f16) {
    load_kind<float, half_t>(evidence, z.data, offset, stride, count, alpha, slope);
  } else {
    load_kind<float, float>(evidence, z.data, offset, stride, count, alpha, slope);
  }
}

inline void load_row(const View& z, Evidence evidence, int64_t offset, int count, double* alpha,
                     double* slope = nullptr) {
  load_kind<double, double>(evidence, z.data, offset, z.voxel_stride, count, alpha, slope);
}

template <typename Storage, typename T, typename Index>
void gather_row(const View& z, int64_t offset, const Index* voxels, int count, T* out) {
  const Storage* data = static_cast<const Storage*>(z.data) + offset;
  for (int i = 0; i < count; ++i)
    out[i] = static_cast<T>(widen(data[static_cast<int64_t>(voxels[i]) * z.voxel_stride]));
}

template <typename Index>
void gather_logits(const View& z, int64_t offset, const Index* voxels, int count, float* out) {
  if (z.dtype == DType::bf16) return gather_row<bfloat16_t>(z, offset, voxels, count, out);
  if (z.dtype == DType::f16) return gather_row<half_t>(z, offset, voxels, count, out);
  gather_row<float>(z, offset, voxels, count, out);
}

template <typename Index>
void gather_logits(const View& z, int64_t offset, const Index* voxels, int count, double* out) {
  gather_row<double>(z, offset, voxels, count, out);
}

// alpha = (e(-z) + 1, e(z) + 1) of one row of z in two rows of kBlock and, unless null, both d alpha / d z.
template <typename T>
void load_both(const View& z, Evidence evidence, int64_t offset, int count, T* alpha, T* slope) {
  alignas(64) T minus[kBlock];
  alignas(64) int32_t voxels[kBlock];
  for (int v = 0; v < count; ++v) voxels[v] = v;
  gather_logits(z, offset, voxels, count, minus);
  for (int v = 0; v < count; ++v) minus[v] = -minus[v];
  load_kind<T, T>(evidence, minus, 0, 1, count, alpha, slope);
  for (int v = 0; v < count && slope != nullptr; ++v) slope[v] = -slope[v];
  load_row(z, evidence, offset, count, alpha + kBlock, slope == nullptr ? nullptr : slope + kBlock);
}

// A = sum of alpha at up to kBlock voxels of one image.
template <typename T, typename Index>
void gather_totals(const View& z, Evidence evidence, int64_t image, const Index* voxels, int count, T* total) {
  alignas(64) T raw[kBlock], alpha[kBlock];
  for (int i = 0; i < count; ++i) total[i] = T(0);
  for (int64_t c = 0; c < z.channels; ++c) {
    gather_logits(z, image * z.batch_stride + c * z.channel_stride, voxels, count, raw);
    load_kind<T, T>(evidence, raw, 0, 1, count, alpha, static_cast<T*>(nullptr));
    for (int i = 0; i < count; ++i) total[i] += alpha[i];
  }
}

template <typename Storage, typename T>
void store_row(const T* values, int64_t stride, int count, void* data, int64_t offset) {
  Storage* out = static_cast<Storage*>(data) + offset;
  if (stride == 1) {
    for (int v = 0; v < count; ++v) narrow(values[v], out[v]);
  } else {
    for (int v = 0; v < count; ++v) narrow(values[v], out[v * stride]);
  }
}

inline void store(DType dtype, void* data, int64_t stride, const float* values, int64_t offset, int count) {
  if (dtype == DType::bf16) return store_row<bfloat16_t>(values, stride, count, data, offset);
  if (dtype == DType::f16) return store_row<half_t>(values, stride, count, data, offset);
  store_row<float>(values, stride, count, data, offset);
}

inline void store(DType, void* data, int64_t stride, const double* values, int64_t offset, int count) {
  store_row<double>(values, stride, count, data, offset);
}

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
