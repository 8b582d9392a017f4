// surface_distances on the CPU: what the kernel files and the binding share.
#pragma once

#include "args/surface_distances.h"
#include "cpu/labels.h"

namespace sure_fast {

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
