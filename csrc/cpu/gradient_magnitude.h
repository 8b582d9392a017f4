// gradient_magnitude on the CPU: what the kernel files and the binding share.
#pragma once

#include "args/gradient_magnitude.h"
#include "cpu/common.h"

namespace sure_fast {

// out: [N, 1, D, H, W] contiguous.
#define SURE_FAST_DECLARE(isa)                                          \
  namespace isa {                                                       \
  void gradient_magnitude_forward(const GradientArgs& args, void* out); \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
