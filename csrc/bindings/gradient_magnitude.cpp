#include "cpu/gradient_magnitude.h"
#include "bindings/common.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void forward(const GradientArgs& args, void* out) { SURE_FAST_DISPATCH(gradient_magnitude_forward(args, out)); }

GradientArgs arguments(std::uintptr_t image, int dtype, py::tuple sizes, py::tuple strides, py::tuple scale,
                       py::tuple weight, bool max_channels, bool central, int threads) {
  GradientArgs args{};
  args.image = pointer(image);
  args.dtype = static_cast<DType>(dtype);
  for (size_t i = 0; i < 5; ++i) {
    args.size[i] = sizes[i].cast<int64_t>();
    args.stride[i] = strides[i].cast<int64_t>();
  }
  for (size_t i = 0; i < 3; ++i) args.scale[i] = scale[i].cast<double>();
  for (size_t i = 0; i < 3 && i < weight.size(); ++i) args.weight[i] = weight[i].cast<double>();
  args.max_channels = max_channels;
  args.central = central;
  args.threads = usable_threads(threads);
  return args;
}

}  // namespace

void bind_gradient_magnitude(py::module_& m) {
  py::class_<GradientArgs>(m, "GradientArgs").def(py::init(&arguments));
  m.def("gradient_magnitude_forward", [](const GradientArgs& args, std::uintptr_t out) {
    py::gil_scoped_release release;
    forward(args, pointer(out));
  });
}

}  // namespace sure_fast
