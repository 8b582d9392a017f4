// Arguments of evidential_loss.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct EvidentialArgs {
  View logits;    // [N, C, V]
  Labels target;  // [N, V], or of regions [N, C, V] of 0 and 1
  Evidence evidence;
  Kind kind;
  bool regions;           // each channel is a Beta distribution of its own, alpha = (e(-z) + 1, e(z) + 1)
  const double* weights;  // of a voxel's data and KL terms by its class [C], or null: 1
  int threads;
  const uint8_t* squared;  // squared distance to the boundary in steps [N, V], or null: no voxel is far
  int far_above;           // a voxel that counts is far where squared > far_above
};

// Values of each voxel of every map, [maps, V], or null: of the forward's terms, or the loss's derivatives by them.
// Computed in float64 for float64 logits, else in float32; the forward's u is in the logits' dtype.
struct EvidentialVoxels {
  void *uncertainty, *data, *kl;
  double uncertainty_scale;  // of the derivatives
};

}  // namespace sure_fast
