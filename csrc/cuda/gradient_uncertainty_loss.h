// gradient_uncertainty_loss on CUDA: arguments shared by the kernel file and the binding.
#pragma once

#include "cuda/queue.h"

namespace sure_fast {

struct PairLossArgs {
  const void* uncertainty;  // [rows, n] contiguous, f32 or f64
  const void* gradient;     // the same
  DType dtype;
  const void* distance;  // [rows, n] contiguous, f32, f64 or u8: any measure that the threshold is in
  DType distance_dtype;
  LabelMap label;  // [rows, n] contiguous: only pairs of one label count
  int64_t rows, n;
  double threshold;   // voxels of distance <= threshold are compared
  int64_t num_pairs;  // drawn per row; 0: every pair
  uint64_t seed;
  int64_t compared;  // rows of up to so many voxels compare every pair directly instead of sorting
};

// workspace: bytes of scratch. forward: loss [rows] float64, slope [rows, n] = d loss / d uncertainty, as the
// uncertainty. rows * n < 2^32. Both throw what CUDA has against a launch.
int64_t gradient_uncertainty_workspace(const PairLossArgs& args, const Queue& queue);
void gradient_uncertainty_forward(const PairLossArgs& args, const Queue& queue, void* workspace, double* loss,
                                  void* slope);

}  // namespace sure_fast
