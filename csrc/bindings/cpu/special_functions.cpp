#include "cpu/special_functions.h"
#include "bindings/cpu/dispatch.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void run(Special which, DType dtype, const void* x, int64_t count, void* out) {
  SURE_FAST_DISPATCH(special_function(which, dtype, x, count, out));
}

const Registrar registrar([](py::module_& m) {
  m.def(
      "special_function",
      [](Special name, const TensorArgument& x, const TensorArgument& out) {
        const int64_t count = x.elements();
        const void* from = memory(x, "x", {DType::f32, DType::f64}, count);
        run(name, x.dtype, from, count, memory(out, "out", {x.dtype}, count));
      },
      py::arg("name"), py::arg("x"), py::arg("out"));
});

}  // namespace
}  // namespace sure_fast
