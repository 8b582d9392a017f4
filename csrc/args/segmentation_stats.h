// Arguments of segmentation_stats.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct StatsArgs {
  View logits;    // [N, C, V]
  Labels target;  // [N, V]
  Evidence evidence;
  int bins;    // of the probability
  int levels;  // of the uncertainty
  int threads;
};

}  // namespace sure_fast
