#include "cpu/uncertainty_supervision.h"
#include "bindings/common.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void count(const BoundaryPairArgs& args, int64_t* counts) {
  SURE_FAST_DISPATCH(uncertainty_supervision_count(args, counts));
}

int64_t workspace(const BoundaryPairArgs& args, int64_t most) {
  SURE_FAST_DISPATCH(uncertainty_supervision_workspace(args, most));
}

void forward(const BoundaryPairArgs& args, const int64_t* counts, int64_t most, void* scratch, double* loss,
             void* slope) {
  SURE_FAST_DISPATCH(uncertainty_supervision_forward(args, counts, most, scratch, loss, slope));
}

BoundaryPairArgs arguments(const PairArgs& pairs, const View& logits, int evidence, const GradientArgs& image,
                           std::uintptr_t squared, int near) {
  return {pairs, logits, evidence, image, static_cast<const uint8_t*>(pointer(squared)), near};
}

}  // namespace

void bind_uncertainty_supervision(py::module_& m) {
  py::class_<BoundaryPairArgs>(m, "BoundaryPairArgs").def(py::init(&arguments));
  m.def("uncertainty_supervision_count", [](const BoundaryPairArgs& args, std::uintptr_t counts) {
    py::gil_scoped_release release;
    count(args, static_cast<int64_t*>(pointer(counts)));
  });
  m.def("uncertainty_supervision_workspace", &workspace);
  m.def("uncertainty_supervision_forward", [](const BoundaryPairArgs& args, std::uintptr_t counts, int64_t most,
                                              std::uintptr_t scratch, std::uintptr_t loss, std::uintptr_t slope) {
    py::gil_scoped_release release;
    forward(args, static_cast<const int64_t*>(pointer(counts)), most, pointer(scratch),
            static_cast<double*>(pointer(loss)), pointer(slope));
  });
}

}  // namespace sure_fast
