// gradient_uncertainty_loss on the CPU: what the kernel files and the binding share.
#pragma once

#include "args/gradient_uncertainty_loss.h"
#include "cpu/common.h"

namespace sure_fast {

constexpr int64_t kCompactChunk = 1 << 16;

SURE_FAST_INLINE int64_t compact_chunks(int64_t n) { return (n + kCompactChunk - 1) / kCompactChunk; }

// count: voxels within the threshold, [rows, compact_chunks(n)]. workspace: bytes for rows of at most `most` of them.
// forward: loss [rows] float64, slope [rows, n] = d loss / d uncertainty, as the uncertainty.
#define SURE_FAST_DECLARE(isa)                                                                                  \
  namespace isa {                                                                                               \
  void gradient_uncertainty_count(const PairArgs& args, int64_t* counts);                                       \
  int64_t gradient_uncertainty_workspace(const PairArgs& args, int64_t most);                                   \
  void gradient_uncertainty_forward(const PairArgs& args, const int64_t* counts, int64_t most, void* workspace, \
                                    double* loss, void* slope);                                                 \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
