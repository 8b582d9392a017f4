// add_noise_patches on the CPU: what the kernel files and the binding share.
#pragma once

#include "args/add_noise_patches.h"
#include "cpu/common.h"

namespace sure_fast {

// images: [M, N, K, D, H, W], copy m of every image with noise m added at every valid center.
#define SURE_FAST_DECLARE(isa)                                      \
  namespace isa {                                                   \
  void add_noise_patches(const NoisePatchArgs& args, void* images); \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
