// surface_distances on CUDA: arguments shared by the kernel file and the binding.
#pragma once

#include "cuda/queue.h"

namespace sure_fast {

struct SurfaceArgs {
  LabelMap prediction, target;  // [N, D, H, W], contiguous
  int64_t classes;              // at most 65536
  bool has_ignore;              // the target's ignored voxels count 0 in both
  int64_t ignore;
  int64_t size[4];  // a 2D image has D = 1
  double step[3];   // spacing along D, H, W
  bool planar;      // 2D: there is no neighbour along D
  double quantile;  // in [0, 1]
  double tolerance;
};

// A class of an image, and the box that holds it in both maps. Boxes lie one after the other, as do their rows.
struct SurfaceTask {
  int64_t voxels_before, rows_before, image, cls;
  int64_t first[3], size[3];
};

constexpr int64_t kSurfaceRecord = 10;  // surface voxels of prediction and target; then both ways, from prediction to
                                        // target and back: largest distance, quantile, sum, number within tolerance

// boxes: labels as uint16 [2, N, D, H, W], prediction first; the box of each class over both of them, int32 [N, C, 6],
// first and last index along D, H, W, and the number of labels outside [0, C), bad [1].
void surface_boxes(const SurfaceArgs& args, const Queue& queue, uint16_t* labels, int32_t* boxes, int64_t* bad);

// list: the surface voxels of `number` tasks whose boxes have `voxels`, in the workspace; uint32 begins [2 number + 1],
// where those of prediction and then of target begin, task after task. tasks has number + 1, the last one empty.
int64_t surface_list_workspace(const SurfaceArgs& args, const Queue& queue, int64_t number, int64_t voxels);
void surface_list(const SurfaceArgs& args, const Queue& queue, const uint16_t* labels, const SurfaceTask* tasks,
                  int64_t number, int64_t voxels, void* workspace, uint32_t* begins);

// measure: records float64 [N, C, 10] of the tasks from the `listed` surface voxels in the workspace `lists`.
int64_t surface_measure_workspace(const SurfaceArgs& args, const Queue& queue, int64_t number, int64_t voxels,
                                  int64_t listed);
void surface_measure(const SurfaceArgs& args, const Queue& queue, const SurfaceTask* tasks, int64_t number,
                     int64_t voxels, int64_t rows, int64_t listed, void* lists, const uint32_t* begins, void* workspace,
                     double* records);

}  // namespace sure_fast
