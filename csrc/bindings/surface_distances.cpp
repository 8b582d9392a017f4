#include "cpu/surface_distances.h"

#include <algorithm>

#include "bindings/common.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

int64_t label_boxes(const SurfaceArgs& args, uint16_t* labels, int32_t* boxes) {
  SURE_FAST_DISPATCH(surface_distances_boxes(args, labels, boxes));
}

int64_t workspace(const SurfaceArgs& args, int64_t largest) {
  SURE_FAST_DISPATCH(surface_distances_workspace(args, largest));
}

void forward(const SurfaceArgs& args, const uint16_t* labels, const int32_t* boxes, int64_t largest, void* scratch,
             double* records) {
  SURE_FAST_DISPATCH(surface_distances_forward(args, labels, boxes, largest, scratch, records));
}

SurfaceArgs arguments(std::uintptr_t prediction, int prediction_dtype, std::uintptr_t target, int target_dtype,
                      int64_t classes, py::object ignore, py::tuple sizes, py::tuple steps, bool planar,
                      double quantile, double tolerance, int threads) {
  SurfaceArgs args{};
  args.prediction = {pointer(prediction), static_cast<DType>(prediction_dtype), classes, false, 0};
  args.target = {pointer(target), static_cast<DType>(target_dtype), classes, !ignore.is_none(),
                 ignore.is_none() ? 0 : ignore.cast<int64_t>()};
  for (size_t i = 0; i < 4; ++i) args.size[i] = sizes[i].cast<int64_t>();
  for (size_t i = 0; i < 3; ++i) args.step[i] = steps[i].cast<double>();
  args.planar = planar;
  args.quantile = quantile;
  args.tolerance = tolerance;
  args.threads = usable_threads(threads);
  return args;
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

}  // namespace

void bind_surface_distances(py::module_& m) {
  py::class_<SurfaceArgs>(m, "SurfaceArgs").def(py::init(&arguments));
  m.def("surface_distances_boxes", [](const SurfaceArgs& args, std::uintptr_t labels, std::uintptr_t boxes) {
    py::gil_scoped_release release;
    int32_t* table = static_cast<int32_t*>(pointer(boxes));
    const int64_t bad = label_boxes(args, static_cast<uint16_t*>(pointer(labels)), table);
    return std::make_pair(bad, merged(args, table));
  });
  m.def("surface_distances_workspace", &workspace);
  m.def("surface_distances_forward", [](const SurfaceArgs& args, std::uintptr_t labels, std::uintptr_t boxes,
                                        int64_t largest, std::uintptr_t scratch, std::uintptr_t records) {
    py::gil_scoped_release release;
    forward(args, static_cast<const uint16_t*>(pointer(labels)), static_cast<const int32_t*>(pointer(boxes)), largest,
            pointer(scratch), static_cast<double*>(pointer(records)));
  });
}

}  // namespace sure_fast
