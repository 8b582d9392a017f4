#include "cuda/surface_distances.h"

#include "bindings/surface_distances.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

// Tasks [number + 1, kSurfaceTask], the last one empty.
const SurfaceTask* tasks_of(const TensorArgument& tasks, int64_t number) {
  return reinterpret_cast<const SurfaceTask*>(data<int64_t>(tasks, "tasks", (number + 1) * kSurfaceTask));
}

void find_boxes(const Held<SurfaceArgs>& args, const Stream& stream, const TensorArgument& labels,
                const TensorArgument& boxes, const TensorArgument& bad) {
  surface_boxes(args, stream, data<uint16_t>(labels, "labels", 2 * voxels_of(args)),
                data<int32_t>(boxes, "boxes", args.size[0] * args.target.classes * kSurfaceBox),
                data<int64_t>(bad, "bad", 1));
}

int64_t list_workspace(const Held<SurfaceArgs>& args, const Stream& stream, int64_t number, int64_t voxels) {
  return surface_list_workspace(args, stream, number, voxels);
}

void list(const Held<SurfaceArgs>& args, const Stream& stream, const TensorArgument& labels,
          const TensorArgument& tasks, int64_t number, int64_t voxels, const TensorArgument& scratch,
          const TensorArgument& begins) {
  surface_list(args, stream, data<uint16_t>(labels, "labels", 2 * voxels_of(args)), tasks_of(tasks, number), number,
               voxels, scratch_memory(scratch, list_workspace(args, stream, number, voxels)),
               data<uint32_t>(begins, "begins", 2 * number + 1));
}

int64_t measure_workspace(const Held<SurfaceArgs>& args, const Stream& stream, int64_t number, int64_t voxels,
                          int64_t listed) {
  return surface_measure_workspace(args, stream, number, voxels, listed);
}

void measure(const Held<SurfaceArgs>& args, const Stream& stream, const TensorArgument& tasks, int64_t number,
             int64_t voxels, int64_t rows, int64_t listed, const TensorArgument& lists, const TensorArgument& begins,
             const TensorArgument& scratch, const TensorArgument& records) {
  surface_measure(args, stream, tasks_of(tasks, number), number, voxels, rows, listed,
                  scratch_memory(lists, list_workspace(args, stream, number, voxels)),
                  data<uint32_t>(begins, "begins", 2 * number + 1),
                  scratch_memory(scratch, measure_workspace(args, stream, number, voxels, listed)),
                  data<double>(records, "records", args.size[0] * args.target.classes * kSurfaceRecord));
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_surface_args(m);
  m.def("surface_boxes", &find_boxes, arg("args"), arg("stream"), arg("labels"), arg("boxes"), arg("bad"));
  m.def("surface_list_workspace", &list_workspace, arg("args"), arg("stream"), arg("number"), arg("voxels"));
  m.def("surface_list", &list, arg("args"), arg("stream"), arg("labels"), arg("tasks"), arg("number"), arg("voxels"),
        arg("scratch"), arg("begins"));
  m.def("surface_measure_workspace", &measure_workspace, arg("args"), arg("stream"), arg("number"), arg("voxels"),
        arg("listed"));
  m.def("surface_measure", &measure, arg("args"), arg("stream"), arg("tasks"), arg("number"), arg("voxels"),
        arg("rows"), arg("listed"), arg("lists"), arg("begins"), arg("scratch"), arg("records"));
});

}  // namespace
}  // namespace sure_fast
