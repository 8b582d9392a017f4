#include <stdexcept>
#include <string>

#include "bindings/common.h"
#include "cpu/special_functions.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

const char* const kNames[] = {"exponential", "logarithm", "log_one_plus", "softplus",      "sigmoid",
                              "digamma",     "trigamma",  "entropic",     "entropic_slope"};

void forward(Special which, DType dtype, const void* x, int64_t count, void* out) {
  SURE_FAST_DISPATCH(special_function(which, dtype, x, count, out));
}

}  // namespace

void bind_special_functions(py::module_& m) {
  m.def("special_function",
        [](const std::string& name, int dtype, std::uintptr_t x, int64_t count, std::uintptr_t out) {
          for (int i = 0; i < 9; ++i) {
            if (name == kNames[i])
              return forward(static_cast<Special>(i), static_cast<DType>(dtype), pointer(x), count, pointer(out));
          }
          throw std::invalid_argument("special_function: unknown name " + name);
        });
}

}  // namespace sure_fast
