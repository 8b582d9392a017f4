#include "cpu/gradient_magnitude.h"
#include "bindings/cpu/dispatch.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void run_forward(const GradientArgs& args, void* out) { SURE_FAST_DISPATCH(gradient_magnitude_forward(args, out)); }

void forward(const Held<GradientArgs>& args, const TensorArgument& out) {
  const int64_t voxels = args.size[0] * args.size[2] * args.size[3] * args.size[4];
  run_forward(args, memory(out, "out", {args.dtype}, voxels));
}

GradientArgs arguments(const TensorArgument& image, const py::tuple& scale, const py::tuple& weight, bool max_channels,
                       bool central, int threads) {
  GradientArgs args{};
  args.image = image.data;
  args.dtype = image.dtype;
  read_sizes(image, "image", 2, args.size);
  for (int i = 0; i < 2; ++i) args.stride[i] = image.stride[i];
  for (int i = 2; i < image.axes; ++i) args.stride[i + 5 - image.axes] = image.stride[i];
  read_axes<double>(scale, 1.0, args.scale);
  for (size_t i = 0; i < 3 && i < weight.size(); ++i) args.weight[i] = weight[i].cast<double>();
  args.max_channels = max_channels;
  args.central = central;
  args.threads = usable_threads(threads);
  return args;
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_args(m, "GradientArgs", &arguments, arg("image"), arg("scale"), arg("weight"), arg("max_channels"),
            arg("central"), arg("threads"));
  m.def("gradient_magnitude_forward", &forward, arg("args"), arg("out"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
