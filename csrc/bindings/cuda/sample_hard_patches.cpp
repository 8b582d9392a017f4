#include "cuda/sample_hard_patches.h"

#include "bindings/sample_hard_patches.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

int64_t workspace(const Held<HardPatchArgs>& args, const Stream& stream) {
  return sample_hard_patches_workspace(args, stream);
}

void forward(const Held<HardPatchArgs>& args, const Stream& stream, const TensorArgument& scratch,
             const TensorArgument& centers, const TensorArgument& valid) {
  const int64_t slots = args.size[0] * args.num_classes * args.num_patches;
  sample_hard_patches_forward(args, stream, scratch_memory(scratch, workspace(args, stream)),
                              data<int64_t>(centers, "centers", slots * args.dims),
                              data<uint8_t>(valid, "valid", slots));
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_hard_patch_args(m);
  m.def("sample_hard_patches_workspace", &workspace, arg("args"), arg("stream"));
  m.def("sample_hard_patches_forward", &forward, arg("args"), arg("stream"), arg("scratch"), arg("centers"),
        arg("valid"));
});

}  // namespace
}  // namespace sure_fast
