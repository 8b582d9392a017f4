#include "bindings/gradient_uncertainty_loss.h"

#include <stdexcept>

#include "bindings/cpu/dispatch.h"
#include "cpu/gradient_uncertainty_loss.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void run_count(const PairArgs& args, int64_t* counts) { SURE_FAST_DISPATCH(gradient_uncertainty_count(args, counts)); }

int64_t run_workspace(const PairArgs& args, int64_t most) {
  SURE_FAST_DISPATCH(gradient_uncertainty_workspace(args, most));
}

void run_forward(const PairArgs& args, const int64_t* counts, int64_t most, void* scratch, double* loss, void* slope) {
  SURE_FAST_DISPATCH(gradient_uncertainty_forward(args, counts, most, scratch, loss, slope));
}

// The CUDA kernels read more dtypes than these.
const PairArgs& readable(const PairArgs& args) {
  if (args.distance_dtype == DType::u8) throw std::invalid_argument("distance: the kernel expects float32 or float64");
  if (args.label.data != nullptr && args.label.dtype != DType::i64) {
    throw std::invalid_argument("label: the kernel expects int64");
  }
  return args;
}

int64_t counted(const PairArgs& args) { return args.rows * compact_chunks(args.n); }

void count(const Held<PairArgs>& args, const TensorArgument& counts) {
  run_count(readable(args), data<int64_t>(counts, "counts", counted(args)));
}

int64_t workspace(const Held<PairArgs>& args, int64_t most) { return run_workspace(args, most); }

void forward(const Held<PairArgs>& args, const TensorArgument& counts, int64_t most, const TensorArgument& scratch,
             const TensorArgument& loss, const TensorArgument& slope) {
  run_forward(readable(args), data<int64_t>(counts, "counts", counted(args)), most,
              scratch_memory(scratch, run_workspace(args, most)), data<double>(loss, "loss", args.rows),
              memory(slope, "slope", {args.dtype}, args.rows * args.n));
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_pair_args(m);
  m.def("compact_chunks", [](int64_t n) { return compact_chunks(n); }, arg("n"));
  m.def("gradient_uncertainty_count", &count, arg("args"), arg("counts"), WithoutLock());
  m.def("gradient_uncertainty_workspace", &workspace, arg("args"), arg("most"));
  m.def("gradient_uncertainty_forward", &forward, arg("args"), arg("counts"), arg("most"), arg("scratch"), arg("loss"),
        arg("slope"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
