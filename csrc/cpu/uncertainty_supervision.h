// uncertainty_supervision on the CPU: its gradient-uncertainty loss straight from logits, image and boundary bytes. Its
// other passes are those of boundary_distance, evidential_loss and noise_uncertainty_loss.
#pragma once

#include "args/uncertainty_supervision.h"
#include "cpu/gradient_magnitude.h"
#include "cpu/gradient_uncertainty_loss.h"

namespace sure_fast {

// count, workspace, forward: as of gradient_uncertainty_loss.
#define SURE_FAST_DECLARE(isa)                                                                            \
  namespace isa {                                                                                         \
  void uncertainty_supervision_count(const BoundaryPairArgs& args, int64_t* counts);                      \
  int64_t uncertainty_supervision_workspace(const BoundaryPairArgs& args, int64_t most);                  \
  void uncertainty_supervision_forward(const BoundaryPairArgs& args, const int64_t* counts, int64_t most, \
                                       void* workspace, double* loss, void* slope);                       \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
