// pair_concordance on the CPU: functions shared by the kernel files and the binding.
#pragma once

#include "cpu/row_pairs.h"

namespace sure_fast {

// counts int64 [rows, 6]: concordant, discordant, tied in a only, in b only, in both, and of those tied in a only the
// ones whose b differ by less than the tolerance; -1 in a row with a NaN.
#define SURE_FAST_DECLARE(isa)                                                                                \
  namespace isa {                                                                                             \
  int64_t pair_concordance_workspace(const RowPairArgs& args);                                                \
  void pair_concordance_forward(const RowPairArgs& args, double tolerance, void* workspace, int64_t* counts); \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
