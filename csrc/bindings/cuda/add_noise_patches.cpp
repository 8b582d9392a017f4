#include "cuda/add_noise_patches.h"

#include "bindings/add_noise_patches.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void write(const Held<NoisePatchArgs>& args, const Stream& stream, const TensorArgument& images) {
  add_noise_patches(args, stream, memory(images, "images", {args.dtype}, image_elements(args)));
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_noise_patch_args(m);
  m.def("add_noise_patches", &write, arg("args"), arg("stream"), arg("images"));
});

}  // namespace
}  // namespace sure_fast
