// Uncertainty of a Dirichlet output from the logits z [N, C, V].
//   u = C / A, A = sum (e(z_c) + 1);  du/dz_c = -C / A^2 e'(z_c)
// Parallel over chunks of 4096 voxels, blocks of 128 in L1. No reduction over voxels.
// Bytes per voxel: forward reads C logits and writes u; backward reads C logits and d loss / du and writes C gradients.
// Bound by the evidence: with softplus an exponential and a logarithm a logit, close to the memory's pace.
#include "cpu/dirichlet_uncertainty.h"

#include "cpu/dirichlet.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

// task(image, first voxel, count) for blocks of voxels.
template <typename Task>
void blocks(const View& z, int threads, const Task& task) {
  const int64_t per_image = (z.voxels + kUncertaintyChunk - 1) / kUncertaintyChunk;
  parallel_tasks(z.batch * per_image, threads, [&](int64_t chunk) {
    const int64_t first = chunk % per_image * kUncertaintyChunk;
    const int64_t last = first + kUncertaintyChunk < z.voxels ? first + kUncertaintyChunk : z.voxels;
    for (int64_t v = first; v < last; v += kBlock) {
      task(chunk / per_image, v, static_cast<int>(last - v < kBlock ? last - v : kBlock));
    }
  });
}

template <typename T>
void forward(const View& z, Evidence evidence, int threads, void* uncertainty) {
  blocks(z, threads, [&](int64_t image, int64_t v, int count) {
    alignas(64) T total[kBlock], alpha[kBlock];
    for (int i = 0; i < count; ++i) total[i] = T(0);
    for (int64_t c = 0; c < z.channels; ++c) {
      load_row(z, evidence, image * z.batch_stride + c * z.channel_stride + v * z.voxel_stride, count, alpha);
      for (int i = 0; i < count; ++i) total[i] += alpha[i];
    }
    for (int i = 0; i < count; ++i) total[i] = T(z.channels) / total[i];
    store(z.dtype, uncertainty, 1, total, image * z.voxels + v, count);
  });
}

template <typename T>
void backward(const View& z, Evidence evidence, int threads, const void* slope_u, const View& gradient) {
  const View slopes{slope_u, z.dtype, z.batch, 1, z.voxels, z.voxels, 0, 1};
  blocks(z, threads, [&](int64_t image, int64_t v, int count) {
    alignas(64) T total[kBlock], alpha[kBlock], slope[kBlock], g[kBlock];
    int32_t offsets[kBlock];
    for (int i = 0; i < count; ++i) {
      total[i] = T(0);
      offsets[i] = i;
    }
    for (int64_t c = 0; c < z.channels; ++c) {
      load_row(z, evidence, image * z.batch_stride + c * z.channel_stride + v * z.voxel_stride, count, alpha, slope);
      for (int i = 0; i < count; ++i) total[i] += alpha[i];
    }
    gather_logits(slopes, image * z.voxels + v, offsets, count, g);
    for (int i = 0; i < count; ++i) g[i] *= -T(z.channels) / (total[i] * total[i]);
    for (int64_t c = 0; c < z.channels; ++c) {
      load_row(z, evidence, image * z.batch_stride + c * z.channel_stride + v * z.voxel_stride, count, alpha, slope);
      for (int i = 0; i < count; ++i) slope[i] *= g[i];
      store(gradient.dtype, const_cast<void*>(gradient.data), gradient.voxel_stride, slope,
            image * gradient.batch_stride + c * gradient.channel_stride + v * gradient.voxel_stride, count);
    }
  });
}

}  // namespace

void dirichlet_uncertainty_forward(const View& z, Evidence evidence, int threads, void* uncertainty) {
  z.dtype == DType::f64 ? forward<double>(z, evidence, threads, uncertainty)
                        : forward<float>(z, evidence, threads, uncertainty);
}

void dirichlet_uncertainty_backward(const View& z, Evidence evidence, int threads, const void* slope,
                                    const View& gradient) {
  z.dtype == DType::f64 ? backward<double>(z, evidence, threads, slope, gradient)
                        : backward<float>(z, evidence, threads, slope, gradient);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
