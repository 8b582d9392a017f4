// Arguments of noise_uncertainty_loss.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct NoiseArgs {
  View logits[3];  // [N, C, V] of the clean image and of the two noisy ones
  Evidence evidence;
  bool clean_far;        // whether the far term counts the clean logits here
  const void* distance;  // [N, V] contiguous f32 or f64, or null:
  DType distance_dtype;
  const uint8_t* squared;  // squared distance in steps [N, V], of which kBeyond is farther and kIgnored nowhere
  int64_t size[3];         // D, H, W; V is their product
  double threshold;        // near: d <= threshold, far: d > threshold
  const int64_t* centers;  // [N, P, dims]
  const uint8_t* valid;    // [N, P], 0 or 1
  int64_t patches;         // P
  int dims;                // 2 or 3
  double levels[2];        // standard deviation of the noise
  int threads;
};

}  // namespace sure_fast
