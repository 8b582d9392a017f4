// spearman on the CPU: functions shared by the kernel files and the binding.
#pragma once

#include "cpu/row_pairs.h"

namespace sure_fast {

// out float64 [rows]; NaN where undefined.
#define SURE_FAST_DECLARE(isa)                                                  \
  namespace isa {                                                               \
  int64_t spearman_workspace(const RowPairArgs& args);                          \
  void spearman_forward(const RowPairArgs& args, void* workspace, double* out); \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
