// surface_distances on the CPU: arguments shared by the kernel files and the binding.
#pragma once

#include "cpu/labels.h"

namespace sure_fast {

struct SurfaceArgs {
  Labels prediction, target;  // [N, D, H, W], contiguous; at most 65536 classes; the target's ignored voxels count 0
  int64_t size[4];            // a 2D image has D = 1
  double step[3];             // spacing along D, H, W
  bool planar;                // 2D: there is no neighbour along D
  double quantile;            // in [0, 1]
  double tolerance;
  int threads;
};

constexpr int64_t kSurfaceBox = 6;      // first and last index along D, H, W; empty where a last one is below its first
constexpr int64_t kSurfaceRecord = 10;  // surface voxels of prediction and target; then both ways, from prediction to
                                        // target and back: largest distance, quantile, sum, number within tolerance

// Tables of boxes that surface_distances_boxes fills apart, one a thread; the caller adds them up.
SURE_FAST_INLINE int64_t surface_boxes_size(const SurfaceArgs& a) {
  return a.size[0] * a.prediction.classes * kSurfaceBox;
}

// boxes: labels as uint16 [2, N, D, H, W], prediction first, and the box of each class over both of them,
// int32 [N, C, 6] of each thread, [threads, N, C, 6]; returns the number of labels outside [0, C).
// forward: records float64 [N, C, 10], NaN where a surface is missing; `largest` is the volume of the largest box.
#define SURE_FAST_DECLARE(isa)                                                                          \
  namespace isa {                                                                                       \
  int64_t surface_distances_boxes(const SurfaceArgs& args, uint16_t* labels, int32_t* boxes);           \
  int64_t surface_distances_workspace(const SurfaceArgs& args, int64_t largest);                        \
  void surface_distances_forward(const SurfaceArgs& args, const uint16_t* labels, const int32_t* boxes, \
                                 int64_t largest, void* workspace, double* records);                    \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
