// segmentation_stats on the CPU: what the kernel files and the binding share.
#pragma once

#include "args/segmentation_stats.h"
#include "cpu/labels.h"

namespace sure_fast {

constexpr int64_t kStatsChunk = 1 << 15;

SURE_FAST_INLINE int64_t stats_chunks(const StatsArgs& a) { return (a.logits.voxels + kStatsChunk - 1) / kStatsChunk; }

// One record: confusion [C, C]; of C classes and the top label [C + 1, bins] each: number, sum of p, hits; number by
// uncertainty [levels]; errors of C classes and of the top label by uncertainty [C + 1, levels]; bad labels.
SURE_FAST_INLINE int64_t stats_size(int64_t classes, int64_t bins, int64_t levels) {
  return classes * classes + 3 * (classes + 1) * bins + (classes + 2) * levels + 1;
}

// forward: partials [N, stats_chunks, stats_size] float64.
#define SURE_FAST_DECLARE(isa)                                              \
  namespace isa {                                                           \
  void segmentation_stats_forward(const StatsArgs& args, double* partials); \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
