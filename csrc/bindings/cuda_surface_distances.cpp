#include "bindings/cuda_common.h"
#include "cuda/surface_distances.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

SurfaceArgs arguments(std::uintptr_t prediction, int prediction_dtype, std::uintptr_t target, int target_dtype,
                      int64_t classes, py::object ignore, py::tuple size, py::tuple step, bool planar, double quantile,
                      double tolerance) {
  SurfaceArgs args{};
  args.prediction = {pointer(prediction), static_cast<DType>(prediction_dtype)};
  args.target = {pointer(target), static_cast<DType>(target_dtype)};
  args.classes = classes;
  args.has_ignore = !ignore.is_none();
  args.ignore = ignore.is_none() ? 0 : ignore.cast<int64_t>();
  for (size_t i = 0; i < 4; ++i) args.size[i] = size[i].cast<int64_t>();
  for (size_t i = 0; i < 3; ++i) args.step[i] = step[i].cast<double>();
  args.planar = planar;
  args.quantile = quantile;
  args.tolerance = tolerance;
  return args;
}

const SurfaceTask* tasks_at(std::uintptr_t address) {
  static_assert(sizeof(SurfaceTask) == 10 * sizeof(int64_t), "Python writes tasks as ten integers");
  return static_cast<const SurfaceTask*>(pointer(address));
}

}  // namespace

void bind_cuda_surface_distances(py::module_& m) {
  py::class_<SurfaceArgs>(m, "SurfaceArgs", py::module_local()).def(py::init(&arguments));
  m.def("surface_boxes", [](const SurfaceArgs& args, const Queue& queue, std::uintptr_t labels, std::uintptr_t boxes,
                            std::uintptr_t bad) {
    surface_boxes(args, queue, static_cast<uint16_t*>(pointer(labels)), static_cast<int32_t*>(pointer(boxes)),
                  static_cast<int64_t*>(pointer(bad)));
  });
  m.def("surface_list_workspace", &surface_list_workspace);
  m.def("surface_list", [](const SurfaceArgs& args, const Queue& queue, std::uintptr_t labels, std::uintptr_t tasks,
                           int64_t number, int64_t voxels, std::uintptr_t scratch, std::uintptr_t begins) {
    surface_list(args, queue, static_cast<const uint16_t*>(pointer(labels)), tasks_at(tasks), number, voxels,
                 pointer(scratch), static_cast<uint32_t*>(pointer(begins)));
  });
  m.def("surface_measure_workspace", &surface_measure_workspace);
  m.def("surface_measure", [](const SurfaceArgs& args, const Queue& queue, std::uintptr_t tasks, int64_t number,
                              int64_t voxels, int64_t rows, int64_t listed, std::uintptr_t lists, std::uintptr_t begins,
                              std::uintptr_t scratch, std::uintptr_t records) {
    surface_measure(args, queue, tasks_at(tasks), number, voxels, rows, listed, pointer(lists),
                    static_cast<const uint32_t*>(pointer(begins)), pointer(scratch),
                    static_cast<double*>(pointer(records)));
  });
}

}  // namespace sure_fast
