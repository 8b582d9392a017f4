#include "bindings/row_pairs.h"

#include "bindings/cpu/dispatch.h"
#include "cpu/pair_concordance.h"
#include "cpu/spearman.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

int64_t concordance_workspace(const Held<RowPairArgs>& args) { SURE_FAST_DISPATCH(pair_concordance_workspace(args)); }

void run_concordance(const RowPairArgs& args, double tolerance, void* scratch, int64_t* counts) {
  SURE_FAST_DISPATCH(pair_concordance_forward(args, tolerance, scratch, counts));
}

int64_t correlation_workspace(const Held<RowPairArgs>& args) { SURE_FAST_DISPATCH(spearman_workspace(args)); }

void run_correlation(const RowPairArgs& args, void* scratch, double* out) {
  SURE_FAST_DISPATCH(spearman_forward(args, scratch, out));
}

void concordance(const Held<RowPairArgs>& args, double tolerance, const TensorArgument& scratch,
                 const TensorArgument& counts) {
  run_concordance(args, tolerance, scratch_memory(scratch, concordance_workspace(args)),
                  data<int64_t>(counts, "counts", 6 * args.rows));
}

void correlation(const Held<RowPairArgs>& args, const TensorArgument& scratch, const TensorArgument& out) {
  run_correlation(args, scratch_memory(scratch, correlation_workspace(args)), data<double>(out, "out", args.rows));
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_row_pair_args(m);
  m.def("pair_concordance_workspace", &concordance_workspace, arg("args"));
  m.def("pair_concordance_forward", &concordance, arg("args"), arg("tolerance"), arg("scratch"), arg("counts"),
        WithoutLock());
  m.def("spearman_workspace", &correlation_workspace, arg("args"));
  m.def("spearman_forward", &correlation, arg("args"), arg("scratch"), arg("out"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
