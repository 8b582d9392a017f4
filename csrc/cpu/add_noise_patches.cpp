// Copies [M, N, K, *S] of images [N, K, *S] with one patch of noise added at every valid center [N, P]:
//   x_m(c + o) = x(c + o) + n_m(o), added in float32 (float64 for float64) and rounded once to the storage type.
// Parallel over copies, images and channels: each is copied and then patched by one thread. No reduction.
// Bytes per voxel of a copy: the image read, the copy written. Bound by memory.
#include "cpu/add_noise_patches.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

template <typename Storage>
void write_images(const NoisePatchArgs& a, Storage* images) {
  const int64_t N = a.size[0], K = a.size[1], H = a.size[3], W = a.size[4], volume = a.size[2] * H * W;
  const int64_t patch = a.patch[0] * a.patch[1] * a.patch[2];
  parallel_tasks(a.copies * N * K, a.threads, [&](int64_t i) {
    const int64_t n = i / K % N;
    Storage* out = images + i * volume;
    memcpy(out, static_cast<const Storage*>(a.image) + i % (N * K) * volume,
           sizeof(Storage) * static_cast<size_t>(volume));
    const Storage* noise = static_cast<const Storage*>(a.noise) + i / (N * K) * patch;
    for (int64_t p = n * a.patches; p < (n + 1) * a.patches; ++p) {
      if (!a.valid[p]) continue;
      int64_t first[3] = {0, 0, 0};
      for (int k = 0; k < a.dims; ++k) first[3 - a.dims + k] = a.centers[p * a.dims + k];
      for (int k = 0; k < 3; ++k) first[k] -= a.patch[k] / 2;
      const Storage* value = noise;
      for (int64_t d = 0; d < a.patch[0]; ++d) {
        for (int64_t h = 0; h < a.patch[1]; ++h) {
          Storage* row = out + ((first[0] + d) * H + first[1] + h) * W + first[2];
          for (int64_t w = 0; w < a.patch[2]; ++w, ++value) narrow(widen(row[w]) + widen(*value), row[w]);
        }
      }
    }
  });
}

}  // namespace

void add_noise_patches(const NoisePatchArgs& a, void* images) {
  if (a.dtype == DType::f64) return write_images(a, static_cast<double*>(images));
  if (a.dtype == DType::bf16) return write_images(a, static_cast<bfloat16_t*>(images));
  if (a.dtype == DType::f16) return write_images(a, static_cast<half_t*>(images));
  write_images(a, static_cast<float*>(images));
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
