// The module sure_fast._cuda: kernels on raw device pointers and a stream.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/special_functions.h"

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of sure_fast on raw pointers; use the functions of sure_fast instead.";
  m.def("special_function", [](int which, bool wide, std::uintptr_t x, int64_t count, std::uintptr_t out,
                               std::uintptr_t stream) {
    const char* error = sure_fast::special_function_cuda(which, wide, reinterpret_cast<const void*>(x), count,
                                                         reinterpret_cast<void*>(out), reinterpret_cast<void*>(stream));
    if (error != nullptr) throw std::runtime_error(std::string("special_function: ") + error);
  });
}
