// Arguments of gradient_uncertainty_loss.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct PairArgs {
  const void* uncertainty;  // [rows, n] contiguous, f32 or f64
  const void* gradient;     // the same
  DType dtype;              // of these two and of the slopes
  const void* distance;     // [rows, n] contiguous, f32 or f64, on CUDA u8 too: any measure that the threshold is in
  DType distance_dtype;     // of the distance
  LabelMap label;           // [rows, n], on the CPU i64: only pairs of one label count; null: all
  int64_t rows;             // images
  int64_t n;                // voxels of an image
  double threshold;         // voxels of distance <= threshold are compared, in the unit of the distance
  int64_t num_pairs;        // drawn per row; 0: every pair
  uint64_t seed;            // of the draws
  bool normalize;           // loss and slopes are divided by the standard deviations of u and g over B
  int64_t compared;         // CUDA: rows of up to so many voxels compare every pair directly instead of sorting
  int threads;              // to use at most
};

}  // namespace sure_fast
