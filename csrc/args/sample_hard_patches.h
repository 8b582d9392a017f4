// Arguments of sample_hard_patches.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct HardPatchArgs {
  const void* uncertainty;  // [N, D, H, W] contiguous, f32 or f64; a 2D image has D = 1
  const void* noisy;        // the same
  DType dtype;              // of both
  LabelMap label;           // [N, D, H, W]
  const void* distance;     // [N, D, H, W] contiguous, f32 or f64, in the unit of max_distance
  DType distance_dtype;     // of the distance
  int64_t size[4];          // N, D, H, W in voxels
  int64_t patch[3];         // odd edges along D, H, W, in voxels
  int dims;                 // of the centers: 2 or 3
  int64_t num_classes;      // C, on CUDA at most kMostCudaClasses
  int64_t num_patches;      // of a class
  double max_distance;      // centers of class 0 are closer, in voxels or mm
  const int64_t* seed;      // [1], in the memory of the maps
  int threads;              // to use at most
};

constexpr int kMostCudaClasses = 254;  // that bytes tell apart, with a value for voxels of no class

}  // namespace sure_fast
