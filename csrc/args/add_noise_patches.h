// Arguments of add_noise_patches.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct NoisePatchArgs {
  const void* image;       // [N, K, D, H, W] contiguous; a 2D image has D = 1
  const void* noise;       // [M, patch] contiguous, in the same dtype
  DType dtype;             // of image, noise and the copies: f32, f64, bf16, f16
  int64_t size[5];         // N, K, D, H, W in voxels
  int64_t patch[3];        // odd edges along D, H, W, in voxels
  int64_t copies;          // M
  const int64_t* centers;  // [N, P, dims] voxels, patches inside the image where valid
  const uint8_t* valid;    // [N, P], 0 or 1
  int64_t patches;         // P of an image
  int dims;                // of the centers: 2 or 3
  int threads;             // to use at most
};

}  // namespace sure_fast
