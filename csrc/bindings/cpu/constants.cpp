// The choices, numbers and coefficients of csrc/math and csrc/args that Python and the Triton kernels read: each stands
// there once.
#include "args/sample_hard_patches.h"
#include "args/surface_distances.h"
#include "bindings/registrar.h"
#include "math/distance.h"
#include "math/gamma.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

template <typename T, size_t count>
py::tuple tuple_of(const T (&values)[count]) {
  py::tuple result(count);
  for (size_t i = 0; i < count; ++i) result[i] = values[i];
  return result;
}

const Registrar registrar([](py::module_& m) {
  m.attr("EVIDENCE") = tuple_of(kEvidence);
  m.attr("KINDS") = tuple_of(kKinds);

  py::dict coefficients;
  coefficients["logarithm"] = tuple_of(math::kLogarithm);
  coefficients["log_one_plus"] = tuple_of(math::kLogOnePlus);
  coefficients["psi"] = tuple_of(math::kPsi);
  coefficients["entropic"] = tuple_of(math::kEntropic);
  coefficients["trigamma"] = tuple_of(math::kTrigamma);
  coefficients["entropic_slope"] = tuple_of(math::kEntropicSlope);
  m.attr("COEFFICIENTS") = coefficients;
  m.attr("LN2") = tuple_of(math::kLn2);
  m.attr("SQRT_HALF_BITS") = math::kSqrtHalfBits;
  m.attr("MANTISSA_BITS") = math::kMantissaBits;
  m.attr("EXP_CLAMP") = math::kExpClamp;

  m.attr("SLACK") = kSlack;
  m.attr("SQUARED_SLACK") = kSquaredSlack;
  m.attr("BYTE_REACH") = kByteReach;
  m.attr("BEYOND") = kBeyond;
  m.attr("IGNORED") = kIgnored;
  m.def("squares_fit_bytes", &squares_fit_bytes, py::arg("limit"), py::arg("step"));
  m.def("steps_within", &steps_within, py::arg("distance"), py::arg("most"));
  m.def("squared_steps_within", &squared_steps_within, py::arg("distance"));

  m.attr("MOST_CUDA_CLASSES") = kMostCudaClasses;
  m.attr("SURFACE_TASK") = kSurfaceTask;
  m.attr("SURFACE_BOX") = kSurfaceBox;
  m.attr("SURFACE_RECORD") = kSurfaceRecord;
});

}  // namespace
}  // namespace sure_fast
