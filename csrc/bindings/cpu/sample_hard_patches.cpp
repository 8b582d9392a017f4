#include "bindings/sample_hard_patches.h"

#include "bindings/cpu/dispatch.h"
#include "cpu/sample_hard_patches.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

int64_t workspace(const Held<HardPatchArgs>& args) { SURE_FAST_DISPATCH(sample_hard_patches_workspace(args)); }

void run_forward(const HardPatchArgs& args, void* scratch, int64_t* centers, uint8_t* valid) {
  SURE_FAST_DISPATCH(sample_hard_patches_forward(args, scratch, centers, valid));
}

void forward(const Held<HardPatchArgs>& args, const TensorArgument& scratch, const TensorArgument& centers,
             const TensorArgument& valid) {
  const int64_t slots = args.size[0] * args.num_classes * args.num_patches;
  run_forward(args, scratch_memory(scratch, workspace(args)), data<int64_t>(centers, "centers", slots * args.dims),
              data<uint8_t>(valid, "valid", slots));
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_hard_patch_args(m);
  m.def("sample_hard_patches_workspace", &workspace, arg("args"));
  m.def("sample_hard_patches_forward", &forward, arg("args"), arg("scratch"), arg("centers"), arg("valid"),
        WithoutLock());
});

}  // namespace
}  // namespace sure_fast
