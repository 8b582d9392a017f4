// Arguments of evidential_loss.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct EvidentialArgs {
  View logits;             // [N, C, V], of regions [N, R, V]
  Labels target;           // [N, V], of regions [N, R, V] of 0 and 1
  Evidence evidence;       // e(z)
  Kind kind;               // of the data term
  bool regions;            // each channel is a Beta distribution of its own, alpha = (e(-z) + 1, e(z) + 1)
  const double* weights;   // of a voxel's data and KL terms by its class [C], or null: 1
  int threads;             // to use at most
  const uint8_t* squared;  // squared distance to the boundary in steps [N, V], or null: no voxel is far
  int far_above;           // a voxel that counts is far where squared > far_above, in squared steps
};

// Values of each voxel of every map, [maps, V], or null: of the forward's terms, or the loss's derivatives by them.
// In float64 for float64 logits, else in float32.
struct EvidentialVoxels {
  void* uncertainty;         // u or d loss / d u
  void* data;                // the data term or d loss / d it
  void* kl;                  // the KL term or d loss / d it
  double uncertainty_scale;  // what d loss / d u is multiplied by
};

}  // namespace sure_fast
