#include "bindings/common.h"
#include "cpu/pair_concordance.h"
#include "cpu/spearman.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

int64_t concordance_workspace(const RowPairArgs& args) { SURE_FAST_DISPATCH(pair_concordance_workspace(args)); }

void concordance(const RowPairArgs& args, double tolerance, void* scratch, int64_t* counts) {
  SURE_FAST_DISPATCH(pair_concordance_forward(args, tolerance, scratch, counts));
}

int64_t correlation_workspace(const RowPairArgs& args) { SURE_FAST_DISPATCH(spearman_workspace(args)); }

void correlation(const RowPairArgs& args, void* scratch, double* out) {
  SURE_FAST_DISPATCH(spearman_forward(args, scratch, out));
}

RowPairArgs arguments(std::uintptr_t a, std::uintptr_t b, int dtype, std::uintptr_t mask, int64_t rows, int64_t n,
                      int64_t most, int threads) {
  return {pointer(a), pointer(b), static_cast<DType>(dtype), static_cast<const uint8_t*>(pointer(mask)), rows,
          n,          most,       usable_threads(threads)};
}

}  // namespace

void bind_row_pairs(py::module_& m) {
  py::class_<RowPairArgs>(m, "RowPairArgs").def(py::init(&arguments));
  m.def("pair_concordance_workspace", &concordance_workspace);
  m.def("pair_concordance_forward",
        [](const RowPairArgs& args, double tolerance, std::uintptr_t scratch, std::uintptr_t counts) {
          py::gil_scoped_release release;
          concordance(args, tolerance, pointer(scratch), static_cast<int64_t*>(pointer(counts)));
        });
  m.def("spearman_workspace", &correlation_workspace);
  m.def("spearman_forward", [](const RowPairArgs& args, std::uintptr_t scratch, std::uintptr_t out) {
    py::gil_scoped_release release;
    correlation(args, pointer(scratch), static_cast<double*>(pointer(out)));
  });
}

}  // namespace sure_fast
