#include "cpu/dirichlet_uncertainty.h"
#include "bindings/common.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void forward(const View& logits, int evidence, int threads, void* uncertainty) {
  SURE_FAST_DISPATCH(dirichlet_uncertainty_forward(logits, evidence, threads, uncertainty));
}

void backward(const View& logits, int evidence, int threads, const void* slope, const View& gradient) {
  SURE_FAST_DISPATCH(dirichlet_uncertainty_backward(logits, evidence, threads, slope, gradient));
}

}  // namespace

void bind_dirichlet_uncertainty(py::module_& m) {
  m.def("dirichlet_uncertainty_forward", [](const View& logits, int evidence, int threads, std::uintptr_t uncertainty) {
    py::gil_scoped_release release;
    forward(logits, evidence, usable_threads(threads), pointer(uncertainty));
  });
  m.def("dirichlet_uncertainty_backward",
        [](const View& logits, int evidence, int threads, std::uintptr_t slope, const View& gradient) {
          py::gil_scoped_release release;
          backward(logits, evidence, usable_threads(threads), pointer(slope), gradient);
        });
}

}  // namespace sure_fast
