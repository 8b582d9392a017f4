#include "cpu/dirichlet_uncertainty.h"
#include "bindings/cpu/dispatch.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void run_forward(const View& logits, Evidence evidence, int threads, void* uncertainty) {
  SURE_FAST_DISPATCH(dirichlet_uncertainty_forward(logits, evidence, threads, uncertainty));
}

void run_backward(const View& logits, Evidence evidence, int threads, const void* slope, const View& gradient) {
  SURE_FAST_DISPATCH(dirichlet_uncertainty_backward(logits, evidence, threads, slope, gradient));
}

void forward(const TensorArgument& logits, Evidence evidence, int threads, const TensorArgument& uncertainty) {
  const View z = view(logits, "logits");
  run_forward(z, evidence, usable_threads(threads), memory(uncertainty, "uncertainty", {z.dtype}, z.batch * z.voxels));
}

void backward(const TensorArgument& logits, Evidence evidence, int threads, const TensorArgument& slope,
              const TensorArgument& gradient) {
  const View z = view(logits, "logits");
  run_backward(z, evidence, usable_threads(threads), memory(slope, "slope", {z.dtype}, z.batch * z.voxels),
               view_like(z, gradient, "gradient"));
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  m.def("dirichlet_uncertainty_forward", &forward, arg("logits"), arg("evidence"), arg("threads"), arg("uncertainty"),
        WithoutLock());
  m.def("dirichlet_uncertainty_backward", &backward, arg("logits"), arg("evidence"), arg("threads"), arg("slope"),
        arg("gradient"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
