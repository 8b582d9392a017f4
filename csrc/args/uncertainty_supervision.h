// Arguments of uncertainty_supervision's gradient-uncertainty loss.
#pragma once

#include "args/gradient_magnitude.h"
#include "args/gradient_uncertainty_loss.h"

namespace sure_fast {

struct BoundaryPairArgs {
  PairArgs pairs;          // without its maps and its threshold; dtype is that of u, g and the slope
  View logits;             // [N, C, V]
  Evidence evidence;       // e(z)
  GradientArgs image;      // [N, K, D, H, W]
  const uint8_t* squared;  // squared distance to the boundary in steps, [N, V]
  int near;                // voxels of squared <= near are compared, in squared steps
};

}  // namespace sure_fast
