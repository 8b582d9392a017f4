#include "cpu/evidential_loss.h"

#include <vector>

#include "bindings/common.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void forward(const EvidentialArgs& args, double* partials, void* uncertainty) {
  SURE_FAST_DISPATCH(evidential_loss_forward(args, partials, uncertainty));
}

void backward(const EvidentialArgs& args, const double* coefficients, const void* slope, double scale,
              const View& gradient) {
  SURE_FAST_DISPATCH(evidential_loss_backward(args, coefficients, slope, scale, gradient));
}

EvidentialArgs arguments(const View& logits, std::uintptr_t target, int target_dtype, py::object ignore, int evidence,
                         int kind, int threads, std::uintptr_t squared, int far_above) {
  return {logits,
          {pointer(target), static_cast<DType>(target_dtype), logits.channels, !ignore.is_none(),
           ignore.is_none() ? 0 : ignore.cast<int64_t>()},
          evidence,
          kind,
          usable_threads(threads),
          static_cast<const uint8_t*>(pointer(squared)),
          far_above};
}

}  // namespace

void bind_evidential_loss(py::module_& m) {
  py::class_<View>(m, "View").def(py::init(&make_view));
  py::class_<EvidentialArgs>(m, "EvidentialArgs").def(py::init(&arguments));
  m.def("evidential_sums_size", [](int64_t classes) { return evidential_sums_size(classes); });
  m.def("evidential_loss_forward", [](const EvidentialArgs& args, std::uintptr_t sums, std::uintptr_t uncertainty) {
    py::gil_scoped_release release;
    const int64_t width = evidential_sums_size(args.logits.channels);
    const int64_t chunks = evidential_chunks(args.logits);
    std::vector<double> partials(static_cast<size_t>(width * chunks));
    forward(args, partials.data(), pointer(uncertainty));
    double* total = static_cast<double*>(pointer(sums));
    for (int64_t i = 0; i < width; ++i) {
      double sum = 0.0;
      for (int64_t c = 0; c < chunks; ++c) sum += partials[static_cast<size_t>(c * width + i)];
      total[i] = sum;
    }
  });
  m.def("evidential_loss_backward", [](const EvidentialArgs& args, std::uintptr_t coefficients, std::uintptr_t slope,
                                       double slope_scale, const View& gradient) {
    py::gil_scoped_release release;
    backward(args, static_cast<const double*>(pointer(coefficients)), pointer(slope), slope_scale, gradient);
  });
}

}  // namespace sure_fast
