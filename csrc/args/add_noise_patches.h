// Arguments of add_noise_patches.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct NoisePatchArgs {
  const void* image;  // [N, K, D, H, W] contiguous
  const void* noise;  // [M, patch] in the same dtype
  DType dtype;
  int64_t size[5];         // N, K, D, H, W
  int64_t patch[3];        // odd edges along D, H, W, in voxels
  int64_t copies;          // M
  const int64_t* centers;  // [N, P, dims], patches inside the image where valid
  const uint8_t* valid;    // [N, P], 0 or 1
  int64_t patches;         // P
  int dims;                // 2 or 3
  int threads;
};

}  // namespace sure_fast
