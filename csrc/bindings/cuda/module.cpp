// The module sure_fast._cuda: kernels on tensors of a device and on one of its streams.
#include <pybind11/stl.h>

#include "bindings/registrar.h"
#include "cuda/stream.h"
#include "cuda/versions.h"

#if defined(SURE_FAST_CUDA_EMULATION)
#include "emulation.h"
#endif

namespace sure_fast {

#if defined(SURE_FAST_CUDA_EMULATION)
const char* const kDevice = "cpu";
#define SURE_FAST_CUDA_SASS
#define SURE_FAST_CUDA_PTX 0
#else
const char* const kDevice = "cuda";
#endif

// Compute capabilities, 90 for 9.0, that setup.py compiles the kernels for, and the one whose PTX is in the library.
const std::vector<int> kSass{SURE_FAST_CUDA_SASS};
constexpr int kPtx = SURE_FAST_CUDA_PTX;

int usable_threads(int wanted) { return wanted; }  // which the kernels have no use for

}  // namespace sure_fast

PYBIND11_MODULE(_cuda, m) {
  using namespace sure_fast;
  namespace py = pybind11;
  m.doc() = "CUDA kernels of sure_fast; use the functions of sure_fast instead.";
  py::class_<Stream>(m, "Stream", py::module_local(), "A stream of the current device, by its cudaStream_t.")
      .def(py::init([](std::uintptr_t handle, int multiprocessors) {
             return Stream{reinterpret_cast<void*>(handle), multiprocessors};
           }),
           py::arg("handle"), py::arg("multiprocessors"));
#if defined(SURE_FAST_CUDA_EMULATION)
  m.def("set_order", &emulation::set_order, "In which order blocks and threads take turns.");
  m.def("count_launches", &emulation::count_launches, "Counts launches from here on; `only`: without running them.");
  m.def("launches", &emulation::launches, "How many kernels were launched since.");
#endif
  m.def(
      "versions",
      [] {
        const CudaVersions versions = cuda_versions();
        return std::make_pair(versions.driver, versions.library);
      },
      "The CUDA versions of the driver, 0 without one, and of the library, 1000 major + 10 minor.");
  m.attr("SASS") = py::tuple(py::cast(kSass));
  m.attr("PTX") = kPtx;
  Registrar::run(m);
}
