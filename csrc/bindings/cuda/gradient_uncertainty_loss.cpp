#include "cuda/gradient_uncertainty_loss.h"

#include "bindings/gradient_uncertainty_loss.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

int64_t workspace(const Held<PairArgs>& args, const Stream& stream) {
  return gradient_uncertainty_workspace(args, stream);
}

void forward(const Held<PairArgs>& args, const Stream& stream, const TensorArgument& scratch,
             const TensorArgument& loss, const TensorArgument& slope) {
  gradient_uncertainty_forward(args, stream, scratch_memory(scratch, workspace(args, stream)),
                               data<double>(loss, "loss", args.rows),
                               memory(slope, "slope", {args.dtype}, args.rows * args.n));
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_pair_args(m);
  m.def("gradient_uncertainty_workspace", &workspace, arg("args"), arg("stream"));
  m.def("gradient_uncertainty_forward", &forward, arg("args"), arg("stream"), arg("scratch"), arg("loss"),
        arg("slope"));
});

}  // namespace
}  // namespace sure_fast
