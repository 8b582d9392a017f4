// dirichlet_uncertainty on the CPU: functions shared by the kernel files and the binding.
#pragma once

#include "cpu/common.h"

namespace sure_fast {

constexpr int64_t kUncertaintyChunk = 4096;

// uncertainty, slope: [N, V] contiguous in the logits' dtype; gradient as the logits, any strides.
#define SURE_FAST_DECLARE(isa)                                                                               \
  namespace isa {                                                                                            \
  void dirichlet_uncertainty_forward(const View& logits, Evidence evidence, int threads, void* uncertainty); \
  void dirichlet_uncertainty_backward(const View& logits, Evidence evidence, int threads, const void* slope, \
                                      const View& gradient);                                                 \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
