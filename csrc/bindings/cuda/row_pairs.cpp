#include "cuda/row_pairs.h"

#include "bindings/row_pairs.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

int64_t concordance_workspace(const Held<RowPairArgs>& args, const Stream& stream) {
  return pair_concordance_workspace(args, stream);
}

void concordance(const Held<RowPairArgs>& args, const Stream& stream, double tolerance, const TensorArgument& scratch,
                 const TensorArgument& counts) {
  pair_concordance_forward(args, stream, tolerance, scratch_memory(scratch, concordance_workspace(args, stream)),
                           data<int64_t>(counts, "counts", 6 * args.rows));
}

int64_t correlation_workspace(const Held<RowPairArgs>& args, const Stream& stream) {
  return spearman_workspace(args, stream);
}

void correlation(const Held<RowPairArgs>& args, const Stream& stream, const TensorArgument& scratch,
                 const TensorArgument& out) {
  spearman_forward(args, stream, scratch_memory(scratch, correlation_workspace(args, stream)),
                   data<double>(out, "out", args.rows));
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_row_pair_args(m);
  m.def("pair_concordance_workspace", &concordance_workspace, arg("args"), arg("stream"));
  m.def("pair_concordance_forward", &concordance, arg("args"), arg("stream"), arg("tolerance"), arg("scratch"),
        arg("counts"));
  m.def("spearman_workspace", &correlation_workspace, arg("args"), arg("stream"));
  m.def("spearman_forward", &correlation, arg("args"), arg("stream"), arg("scratch"), arg("out"));
});

}  // namespace
}  // namespace sure_fast
