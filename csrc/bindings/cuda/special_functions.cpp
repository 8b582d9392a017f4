#include "cuda/special_functions.h"

#include "bindings/registrar.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

const Registrar registrar([](py::module_& m) {
  m.def(
      "special_function",
      [](Special name, const Stream& stream, const TensorArgument& x, const TensorArgument& out) {
        const int64_t count = x.elements();
        const void* from = memory(x, "x", {DType::f32, DType::f64}, count);
        special_function(stream, name, x.dtype, from, count, memory(out, "out", {x.dtype}, count));
      },
      py::arg("name"), py::arg("stream"), py::arg("x"), py::arg("out"));
});

}  // namespace
}  // namespace sure_fast
