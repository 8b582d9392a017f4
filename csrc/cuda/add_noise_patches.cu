// Copies [M, N, K, *S] of images [N, K, *S] with one patch of noise added at every valid center [N, P]:
//   x_m(c + o) = x(c + o) + n_m(o), added in float32 (float64 for float64) and rounded once to the storage type.
// One pass writes the copies, a thread an element of the image; a second one has a warp for each copy, channel and
// center. No reduction. Bytes per voxel: the image read once, each copy written once. Bound by memory.
#include "cuda/add_noise_patches.h"

#include "cuda/launch.h"
#include "math/half.h"

namespace sure_fast {
namespace {

constexpr int kThreads = 256;

template <typename Storage>
__global__ void copy_images(const Storage* image, int64_t elements, int64_t copies, Storage* out) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < elements; i += step) {
    const Storage value = image[i];
    for (int64_t m = 0; m < copies; ++m) out[m * elements + i] = value;
  }
}

// Where a patch begins along one axis; of one that reaches over an edge the nearest place where it does not.
SURE_FAST_DEVICE int64_t first_inside(const NoisePatchArgs& a, int axis, int64_t center, bool& outside) {
  const int64_t margin = a.patch[axis] / 2, last = a.size[axis + 2] - a.patch[axis];
  const int64_t first = center < margin ? 0 : center - margin > last ? last : center - margin;
  outside = outside || center < margin || first != center - margin;
  return first;
}

// A block for each copy, channel and center. Nobody waits for the device to look at centers: a patch that reaches over
// an edge is NaN at the edge.
template <typename Storage>
__global__ void add_patches(NoisePatchArgs a, Storage* images) {
  const int64_t patch = blockIdx.x % a.patches, i = blockIdx.x / a.patches;  // i: of [M, N, K]
  const int64_t N = a.size[0], K = a.size[1], n = i / K % N, at = n * a.patches + patch;
  if (!a.valid[at]) return;
  const int64_t* center = a.centers + (at + 1) * a.dims - 3;  // along D, H, W; the first one is there in 3D only
  bool outside = false;
  const int64_t d0 = first_inside(a, 0, a.dims == 3 ? center[0] : 0, outside);
  const int64_t h0 = first_inside(a, 1, center[1], outside), w0 = first_inside(a, 2, center[2], outside);
  const int64_t voxels = a.patch[0] * a.patch[1] * a.patch[2];
  const Storage* noise = static_cast<const Storage*>(a.noise) + i / (N * K) * voxels;
  for (int64_t p = threadIdx.x; p < voxels; p += blockDim.x) {
    const int64_t d = p / (a.patch[1] * a.patch[2]), h = p / a.patch[2] % a.patch[1], w = p % a.patch[2];
    const int64_t voxel = ((d0 + d) * a.size[3] + h0 + h) * a.size[4] + w0 + w;
    Storage& out = images[i * a.size[2] * a.size[3] * a.size[4] + voxel];
    narrow(outside ? widen(out) * NAN : widen(out) + widen(noise[p]), out);
  }
}

template <typename Storage>
void write_images(const NoisePatchArgs& a, const Stream& stream, void* images) {
  const int64_t maps = a.size[0] * a.size[1], elements = maps * a.size[2] * a.size[3] * a.size[4];
  launch(stream, "copy_images", fill(stream, ceil_div<int64_t>(elements, kThreads), 16), kThreads, copy_images<Storage>,
         static_cast<const Storage*>(a.image), elements, a.copies, static_cast<Storage*>(images));
  launch(stream, "add_patches", a.copies * maps * a.patches, kWarp, add_patches<Storage>, a,
         static_cast<Storage*>(images));
}

}  // namespace

void add_noise_patches(const NoisePatchArgs& a, const Stream& stream, void* images) {
  if (a.dtype == DType::f64) return write_images<double>(a, stream, images);
  if (a.dtype == DType::bf16) return write_images<bfloat16_t>(a, stream, images);
  if (a.dtype == DType::f16) return write_images<half_t>(a, stream, images);
  write_images<float>(a, stream, images);
}

}  // namespace sure_fast
