// The module sure_fast._cuda: kernels on raw device pointers and a stream, and one bind function an op.
#include "bindings/cuda_common.h"
#include "cuda/special_functions.h"

#if defined(SURE_FAST_CUDA_EMULATION)
#include "emulation.h"
#endif

PYBIND11_MODULE(_cuda, m) {
  using namespace sure_fast;
  namespace py = pybind11;
  m.doc() = "CUDA kernels of sure_fast on raw pointers; use the functions of sure_fast instead.";
  py::class_<Queue>(m, "Queue", py::module_local()).def(py::init([](std::uintptr_t stream, int multiprocessors) {
    return Queue{pointer(stream), multiprocessors};
  }));
  m.def("special_function",
        [](const Queue& queue, int which, bool wide, std::uintptr_t x, int64_t count, std::uintptr_t out) {
          special_function_cuda(queue, which, wide, pointer(x), count, pointer(out));
        });
#if defined(SURE_FAST_CUDA_EMULATION)
  m.def("set_order", &emulation::set_order, "In which order blocks and threads take turns.");
#endif
  bind_cuda_gradient_uncertainty_loss(m);
  bind_cuda_row_pairs(m);
  bind_cuda_sample_hard_patches(m);
  bind_cuda_surface_distances(m);
}
