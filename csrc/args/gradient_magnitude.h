// Arguments of gradient_magnitude.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct GradientArgs {
  const void* image;  // [N, K, D, H, W], any strides; a 2D image has D = 1
  DType dtype;        // f32, f64, bf16, f16; the output has the same
  int64_t size[5];    // N, K, D, H, W in voxels
  int64_t stride[5];  // of N, K, D, H, W in elements
  double scale[3];    // 1 / spacing along D, H, W, in 1 / mm or 1 / voxel
  double weight[3];   // of the channels in the combined image, the last of all further ones; not with max_channels
  bool max_channels;  // maximum of the channels' magnitudes
  bool central;       // central differences, one-sided at the borders; else Sobel with replicated borders
  int threads;        // to use at most
};

}  // namespace sure_fast
