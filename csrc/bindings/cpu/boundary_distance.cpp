#include "cpu/boundary_distance.h"
#include "bindings/cpu/dispatch.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

int64_t workspace(const Held<BoundaryArgs>& args) { SURE_FAST_DISPATCH(boundary_distance_workspace(args)); }

bool run_forward(const BoundaryArgs& args, void* scratch, float* distance) {
  SURE_FAST_DISPATCH(boundary_distance_forward(args, scratch, distance));
}

bool run_squared(const BoundaryArgs& args, void* scratch, uint8_t* squared) {
  SURE_FAST_DISPATCH(boundary_distance_squared(args, scratch, squared));
}

int64_t voxels_of(const BoundaryArgs& args) { return args.size[0] * args.size[1] * args.size[2] * args.size[3]; }

bool forward(const Held<BoundaryArgs>& args, const TensorArgument& scratch, const TensorArgument& distance) {
  return run_forward(args, scratch_memory(scratch, workspace(args)),
                     data<float>(distance, "distance", voxels_of(args)));
}

bool squared(const Held<BoundaryArgs>& args, const TensorArgument& scratch, const TensorArgument& squared) {
  return run_squared(args, scratch_memory(scratch, workspace(args)),
                     data<uint8_t>(squared, "squared", voxels_of(args)));
}

BoundaryArgs arguments(const TensorArgument& label, const py::tuple& step, double limit, std::optional<int64_t> ignore,
                       bool wide, int threads) {
  BoundaryArgs args{};
  args.label = labels(label, "label", label.elements());
  read_sizes(label, "label", 1, args.size);
  // the added axis has one voxel, and a step equal to another's
  read_axes<double>(step, step.size() == 0 ? 1.0 : step[0].cast<double>(), args.step);
  args.limit = limit;
  args.has_ignore = ignore.has_value();
  args.ignore = ignore.value_or(0);
  args.wide = wide;
  args.threads = usable_threads(threads);
  return args;
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_args(m, "BoundaryArgs", &arguments, arg("label"), arg("step"), arg("limit"), arg("ignore"), arg("wide"),
            arg("threads"));
  m.def("boundary_distance_workspace", &workspace, arg("args"));
  m.def("boundary_distance_forward", &forward, arg("args"), arg("scratch"), arg("distance"), WithoutLock());
  m.def("boundary_distance_squared", &squared, arg("args"), arg("scratch"), arg("squared"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
