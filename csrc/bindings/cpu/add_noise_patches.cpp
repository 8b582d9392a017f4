#include "bindings/add_noise_patches.h"

#include "bindings/cpu/dispatch.h"
#include "cpu/add_noise_patches.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void run(const NoisePatchArgs& args, void* images) { SURE_FAST_DISPATCH(add_noise_patches(args, images)); }

void write(const Held<NoisePatchArgs>& args, const TensorArgument& images) {
  run(args, memory(images, "images", {args.dtype}, image_elements(args)));
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_noise_patch_args(m);
  m.def("add_noise_patches", &write, arg("args"), arg("images"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
