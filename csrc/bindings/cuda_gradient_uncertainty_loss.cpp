#include "bindings/cuda_common.h"
#include "cuda/gradient_uncertainty_loss.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

PairLossArgs arguments(std::uintptr_t uncertainty, std::uintptr_t gradient, int dtype, std::uintptr_t distance,
                       int distance_dtype, std::uintptr_t label, int label_dtype, int64_t rows, int64_t n,
                       double threshold, int64_t num_pairs, int64_t seed, int64_t compared) {
  return {pointer(uncertainty),
          pointer(gradient),
          static_cast<DType>(dtype),
          pointer(distance),
          static_cast<DType>(distance_dtype),
          {pointer(label), static_cast<DType>(label_dtype)},
          rows,
          n,
          threshold,
          num_pairs,
          static_cast<uint64_t>(seed),
          compared};
}

}  // namespace

void bind_cuda_gradient_uncertainty_loss(py::module_& m) {
  py::class_<PairLossArgs>(m, "PairLossArgs", py::module_local()).def(py::init(&arguments));
  m.def("gradient_uncertainty_workspace", &gradient_uncertainty_workspace);
  m.def("gradient_uncertainty_forward", [](const PairLossArgs& args, const Queue& queue, std::uintptr_t scratch,
                                           std::uintptr_t loss, std::uintptr_t slope) {
    gradient_uncertainty_forward(args, queue, pointer(scratch), static_cast<double*>(pointer(loss)), pointer(slope));
  });
}

}  // namespace sure_fast
