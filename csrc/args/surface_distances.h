// Arguments of surface_distances.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct SurfaceArgs {
  Labels prediction;  // [N, D, H, W], at most 65536 classes
  Labels target;      // the same; its ignored voxels count as 0 in both
  int64_t size[4];    // N, D, H, W in voxels; a 2D image has D = 1
  double step[3];     // spacing along D, H, W, in mm or voxels
  bool planar;        // 2D: there is no neighbour along D
  double quantile;    // in [0, 1]
  double tolerance;   // in the unit of the steps
  int threads;        // to use at most
};

// A class of an image, and the box that holds it in both maps, for CUDA. Boxes lie one after the other, as do their
// rows. Python writes them as int64 [number, kSurfaceTask].
struct SurfaceTask {
  int64_t voxels_before;  // of all boxes before this one
  int64_t rows_before;    // the same of their rows along W
  int64_t image;          // of N
  int64_t cls;            // of C
  int64_t first[3];       // of the box along D, H, W, in voxels
  int64_t size[3];        // of the box along D, H, W, in voxels
};

constexpr int64_t kSurfaceTask = 10;
static_assert(sizeof(SurfaceTask) == kSurfaceTask * sizeof(int64_t), "a task is ten integers");

constexpr int64_t kSurfaceBox = 6;      // first and last index along D, H, W; empty where a last one is below its first
constexpr int64_t kSurfaceRecord = 10;  // surface voxels of prediction and target; then both ways, from prediction to
                                        // target and back: largest distance, quantile, sum, number within tolerance

}  // namespace sure_fast
