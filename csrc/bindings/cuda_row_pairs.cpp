#include "bindings/cuda_common.h"
#include "cuda/row_pairs.h"

namespace py = pybind11;

namespace sure_fast {

void bind_cuda_row_pairs(py::module_& m) {
  py::class_<RowPairArgs>(m, "RowPairArgs", py::module_local())
      .def(py::init([](std::uintptr_t a, std::uintptr_t b, int dtype, std::uintptr_t mask, int64_t rows, int64_t n) {
        return RowPairArgs{
            pointer(a), pointer(b), static_cast<DType>(dtype), static_cast<const uint8_t*>(pointer(mask)), rows, n};
      }));
  m.def("pair_concordance_workspace", &pair_concordance_workspace);
  m.def("pair_concordance_forward", [](const RowPairArgs& args, const Queue& queue, double tolerance,
                                       std::uintptr_t scratch, std::uintptr_t counts) {
    pair_concordance_forward(args, queue, tolerance, pointer(scratch), static_cast<int64_t*>(pointer(counts)));
  });
  m.def("spearman_workspace", &spearman_workspace);
  m.def("spearman_forward",
        [](const RowPairArgs& args, const Queue& queue, std::uintptr_t scratch, std::uintptr_t out) {
          spearman_forward(args, queue, pointer(scratch), static_cast<double*>(pointer(out)));
        });
}

}  // namespace sure_fast
