// Arguments of segmentation_stats.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct StatsArgs {
  View logits;        // [N, C, V]
  Labels target;      // [N, V]
  Evidence evidence;  // e(z)
  int bins;           // of the probability, equal parts of [0, 1]
  int levels;         // of the uncertainty, equal parts of [0, 1]
  int threads;        // to use at most
};

}  // namespace sure_fast
