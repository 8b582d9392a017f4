#include "cpu/boundary_distance.h"
#include "bindings/common.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

int64_t workspace(const BoundaryArgs& args) { SURE_FAST_DISPATCH(boundary_distance_workspace(args)); }

bool forward(const BoundaryArgs& args, void* scratch, float* distance) {
  SURE_FAST_DISPATCH(boundary_distance_forward(args, scratch, distance));
}

bool squared_steps(const BoundaryArgs& args, void* scratch, uint8_t* squared) {
  SURE_FAST_DISPATCH(boundary_distance_squared(args, scratch, squared));
}

BoundaryArgs arguments(std::uintptr_t label, int dtype, py::tuple sizes, py::tuple steps, double limit,
                       py::object ignore, bool wide, int threads) {
  BoundaryArgs args{};
  args.label = pointer(label);
  args.dtype = static_cast<DType>(dtype);
  for (size_t i = 0; i < 4; ++i) args.size[i] = sizes[i].cast<int64_t>();
  for (size_t i = 0; i < 3; ++i) args.step[i] = steps[i].cast<double>();
  args.limit = limit;
  args.has_ignore = !ignore.is_none();
  args.ignore = args.has_ignore ? ignore.cast<int64_t>() : 0;
  args.wide = wide;
  args.threads = usable_threads(threads);
  return args;
}

}  // namespace

void bind_boundary_distance(py::module_& m) {
  py::class_<BoundaryArgs>(m, "BoundaryArgs").def(py::init(&arguments));
  m.def("boundary_distance_workspace", &workspace);
  m.def("boundary_distance_forward", [](const BoundaryArgs& args, std::uintptr_t scratch, std::uintptr_t distance) {
    py::gil_scoped_release release;
    return forward(args, pointer(scratch), static_cast<float*>(pointer(distance)));
  });
  m.def("boundary_distance_squared", [](const BoundaryArgs& args, std::uintptr_t scratch, std::uintptr_t squared) {
    py::gil_scoped_release release;
    return squared_steps(args, pointer(scratch), static_cast<uint8_t*>(pointer(squared)));
  });
}

}  // namespace sure_fast
