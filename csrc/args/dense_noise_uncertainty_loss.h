// Arguments of dense_noise_uncertainty_loss.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct DenseNoiseArgs {
  const void* uncertainty[3];  // of the clean image and of the noisy ones, [voxels] contiguous, f32 or f64
  int images;                  // 3, or 2 of one noisy copy
  DType dtype;                 // of these and of their gradients
  const void* distance;        // to the boundary, [voxels] contiguous, f32 or f64
  DType distance_dtype;        // of the distance
  int64_t voxels;              // of all images
  double threshold;            // near: d <= threshold, far: d > threshold, in the unit of the distance
  double rise[3];              // of the noise from image i to image j, (i, j) = (0, 1), (0, 2), (1, 2), in any unit
  double margin;               // what u has to rise by more than, times the rise of the noise
  bool detach;                 // whether the image of less noise is a constant
  int threads;                 // to use at most
};

}  // namespace sure_fast
