// Arguments of noise_uncertainty_loss.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct NoiseArgs {
  View logits[3];          // [N, C, V] of the clean image and of the two noisy ones
  Evidence evidence;       // e(z)
  bool clean_far;          // whether the far term counts the clean logits here
  const void* distance;    // [N, V] contiguous f32 or f64, in voxels or mm; or null:
  DType distance_dtype;    // of the distance
  const uint8_t* squared;  // squared distance in steps [N, V], of which kBeyond is farther and kIgnored nowhere
  int64_t size[3];         // D, H, W in voxels; V is their product
  double threshold;        // near: d <= threshold, far: d > threshold, in the unit of the distance or in steps
  const int64_t* centers;  // [N, P, dims] voxels
  const uint8_t* valid;    // [N, P], 0 or 1
  int64_t patches;         // P of an image
  int dims;                // of the centers: 2 or 3
  double levels[2];        // of the noise in the two noisy images, in any one unit
  int threads;             // to use at most
};

}  // namespace sure_fast
