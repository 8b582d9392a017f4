// surface_distances on CUDA: what the kernel file and the binding share.
#pragma once

#include "args/surface_distances.h"
#include "cuda/stream.h"

namespace sure_fast {

// boxes: labels as uint16 [2, N, D, H, W], prediction first; the box of each class over both of them, int32 [N, C, 6],
// first and last index along D, H, W, and the number of labels outside [0, C), bad [1].
void surface_boxes(const SurfaceArgs& args, const Stream& stream, uint16_t* labels, int32_t* boxes, int64_t* bad);

// list: the surface voxels of `number` tasks whose boxes have `voxels`, in the workspace; uint32 begins [2 number + 1],
// where those of prediction and then of target begin, task after task. tasks has number + 1, the last one empty.
int64_t surface_list_workspace(const SurfaceArgs& args, const Stream& stream, int64_t number, int64_t voxels);
void surface_list(const SurfaceArgs& args, const Stream& stream, const uint16_t* labels, const SurfaceTask* tasks,
                  int64_t number, int64_t voxels, void* workspace, uint32_t* begins);

// measure: records float64 [N, C, 10] of the tasks from the `listed` surface voxels in the workspace `lists`.
int64_t surface_measure_workspace(const SurfaceArgs& args, const Stream& stream, int64_t number, int64_t voxels,
                                  int64_t listed);
void surface_measure(const SurfaceArgs& args, const Stream& stream, const SurfaceTask* tasks, int64_t number,
                     int64_t voxels, int64_t rows, int64_t listed, void* lists, const uint32_t* begins, void* workspace,
                     double* records);

}  // namespace sure_fast
