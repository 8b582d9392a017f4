// gradient_magnitude on the CPU: arguments shared by the kernel files and the binding.
#pragma once

#include "cpu/common.h"

namespace sure_fast {

struct GradientArgs {
  const void* image;  // [N, K, D, H, W], any strides; a 2D image has D = 1
  DType dtype;        // f32, f64, bf16, f16; the output has the same
  int64_t size[5];
  int64_t stride[5];
  double scale[3];    // 1 / spacing along D, H, W
  double weight[3];   // channel weights of the combined image; used when max_channels is false
  bool max_channels;  // maximum of the channels' magnitudes
  bool central;       // central differences, one-sided at the borders; else Sobel with replicated borders
  int threads;
};

// out: [N, 1, D, H, W] contiguous.
#define SURE_FAST_DECLARE(isa)                                          \
  namespace isa {                                                       \
  void gradient_magnitude_forward(const GradientArgs& args, void* out); \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
