#include "bindings/surface_distances.h"

#include <algorithm>

#include "bindings/cpu/dispatch.h"
#include "cpu/surface_distances.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

int64_t run_boxes(const SurfaceArgs& args, uint16_t* labels, int32_t* boxes) {
  SURE_FAST_DISPATCH(surface_distances_boxes(args, labels, boxes));
}

int64_t workspace(const Held<SurfaceArgs>& args, int64_t largest) {
  SURE_FAST_DISPATCH(surface_distances_workspace(args, largest));
}

void run_forward(const SurfaceArgs& args, const uint16_t* labels, const int32_t* boxes, int64_t largest, void* scratch,
                 double* records) {
  SURE_FAST_DISPATCH(surface_distances_forward(args, labels, boxes, largest, scratch, records));
}

// Adds the threads' tables up in the first; returns the volume of the largest box.
int64_t merged(const SurfaceArgs& args, int32_t* boxes) {
  const int64_t table = surface_boxes_size(args);
  int64_t largest = 0;
  for (int64_t i = 0; i < table; i += kSurfaceBox) {
    int64_t volume = 1;
    for (int64_t k = i; k < i + kSurfaceBox; k += 2) {
      for (int t = 1; t < args.threads; ++t) {
        boxes[k] = std::min(boxes[k], boxes[t * table + k]);
        boxes[k + 1] = std::max(boxes[k + 1], boxes[t * table + k + 1]);
      }
      volume *= std::max<int64_t>(0, static_cast<int64_t>(boxes[k + 1]) - boxes[k] + 1);
    }
    const bool background = i % (args.prediction.classes * kSurfaceBox) == 0;
    largest = background ? largest : std::max(largest, volume);
  }
  return largest;
}

// One table of boxes a thread that Python asked for, of which a forked process uses the first.
int32_t* tables(const SurfaceArgs& args, const TensorArgument& boxes) {
  return data<int32_t>(boxes, "boxes", std::max<int64_t>(boxes.size[0], args.threads) * surface_boxes_size(args));
}

std::pair<int64_t, int64_t> find_boxes(const Held<SurfaceArgs>& args, const TensorArgument& labels,
                                       const TensorArgument& boxes) {
  int32_t* table = tables(args, boxes);
  const int64_t bad = run_boxes(args, data<uint16_t>(labels, "labels", 2 * voxels_of(args)), table);
  return {bad, merged(args, table)};
}

void forward(const Held<SurfaceArgs>& args, const TensorArgument& labels, const TensorArgument& boxes, int64_t largest,
             const TensorArgument& scratch, const TensorArgument& records) {
  run_forward(args, data<uint16_t>(labels, "labels", 2 * voxels_of(args)), tables(args, boxes), largest,
              scratch_memory(scratch, workspace(args, largest)),
              data<double>(records, "records", args.size[0] * args.target.classes * kSurfaceRecord));
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_surface_args(m);
  m.def("surface_distances_boxes", &find_boxes, arg("args"), arg("labels"), arg("boxes"), WithoutLock());
  m.def("surface_distances_workspace", &workspace, arg("args"), arg("largest"));
  m.def("surface_distances_forward", &forward, arg("args"), arg("labels"), arg("boxes"), arg("largest"), arg("scratch"),
        arg("records"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
