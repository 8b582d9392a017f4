#include "cpu/gradient_uncertainty_loss.h"
#include "bindings/common.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void count(const PairArgs& args, int64_t* counts) { SURE_FAST_DISPATCH(gradient_uncertainty_count(args, counts)); }

int64_t workspace(const PairArgs& args, int64_t most) {
  SURE_FAST_DISPATCH(gradient_uncertainty_workspace(args, most));
}

void forward(const PairArgs& args, const int64_t* counts, int64_t most, void* scratch, double* loss, void* slope) {
  SURE_FAST_DISPATCH(gradient_uncertainty_forward(args, counts, most, scratch, loss, slope));
}

PairArgs arguments(std::uintptr_t uncertainty, std::uintptr_t gradient, int dtype, std::uintptr_t distance,
                   int distance_dtype, std::uintptr_t label, int64_t rows, int64_t n, double threshold,
                   int64_t num_pairs, int64_t seed, int threads) {
  return {pointer(uncertainty),
          pointer(gradient),
          static_cast<DType>(dtype),
          pointer(distance),
          static_cast<DType>(distance_dtype),
          static_cast<const int64_t*>(pointer(label)),
          rows,
          n,
          threshold,
          num_pairs,
          static_cast<uint64_t>(seed),
          usable_threads(threads)};
}

}  // namespace

void bind_gradient_uncertainty_loss(py::module_& m) {
  py::class_<PairArgs>(m, "PairArgs").def(py::init(&arguments));
  m.def("compact_chunks", [](int64_t n) { return compact_chunks(n); });
  m.def("gradient_uncertainty_count", [](const PairArgs& args, std::uintptr_t counts) {
    py::gil_scoped_release release;
    count(args, static_cast<int64_t*>(pointer(counts)));
  });
  m.def("gradient_uncertainty_workspace", &workspace);
  m.def("gradient_uncertainty_forward", [](const PairArgs& args, std::uintptr_t counts, int64_t most,
                                           std::uintptr_t scratch, std::uintptr_t loss, std::uintptr_t slope) {
    py::gil_scoped_release release;
    forward(args, static_cast<const int64_t*>(pointer(counts)), most, pointer(scratch),
            static_cast<double*>(pointer(loss)), pointer(slope));
  });
}

}  // namespace sure_fast
