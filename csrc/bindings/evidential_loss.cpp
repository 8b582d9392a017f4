#include <cstring>
#include <vector>

#include "bindings/common.h"
#include "cpu/evidential_loss.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void forward(const EvidentialArgs& args, double* partials) {
  SURE_FAST_DISPATCH(evidential_loss_forward(args, partials));
}

void backward(const EvidentialArgs& args, const double* coefficients, const View& gradient) {
  SURE_FAST_DISPATCH(evidential_loss_backward(args, coefficients, gradient));
}

View view(std::uintptr_t data, int dtype, py::tuple sizes, py::tuple strides) {
  return {pointer(data),
          static_cast<DType>(dtype),
          sizes[0].cast<int64_t>(),
          sizes[1].cast<int64_t>(),
          sizes[2].cast<int64_t>(),
          strides[0].cast<int64_t>(),
          strides[1].cast<int64_t>(),
          strides[2].cast<int64_t>()};
}

EvidentialArgs arguments(const View& logits, std::uintptr_t target, int target_dtype, py::object ignore, int evidence,
                         int kind, int threads) {
  return {logits,
          pointer(target),
          static_cast<DType>(target_dtype),
          !ignore.is_none(),
          ignore.is_none() ? 0 : ignore.cast<int64_t>(),
          evidence,
          kind,
          usable_threads(threads)};
}

}  // namespace

void bind_evidential_loss(py::module_& m) {
  m.def("evidential_loss_forward",
        [](std::uintptr_t logits, int dtype, py::tuple sizes, py::tuple strides, std::uintptr_t target,
           int target_dtype, py::object ignore, int evidence, int kind, int threads, std::uintptr_t sums) {
          const EvidentialArgs args =
              arguments(view(logits, dtype, sizes, strides), target, target_dtype, ignore, evidence, kind, threads);
          py::gil_scoped_release release;
          const int64_t width = evidential_sums_size(args.logits.channels);
          const int64_t chunks = evidential_chunks(args.logits);
          std::vector<double> partials(static_cast<size_t>(width * chunks));
          forward(args, partials.data());
          double* total = static_cast<double*>(pointer(sums));
          for (int64_t i = 0; i < width; ++i) {
            double sum = 0.0;
            for (int64_t c = 0; c < chunks; ++c) sum += partials[static_cast<size_t>(c * width + i)];
            total[i] = sum;
          }
        });
  m.def("evidential_loss_backward",
        [](std::uintptr_t logits, int dtype, py::tuple sizes, py::tuple strides, std::uintptr_t target,
           int target_dtype, py::object ignore, int evidence, int kind, int threads, std::uintptr_t coefficients,
           std::uintptr_t gradient, py::tuple gradient_strides) {
          const EvidentialArgs args =
              arguments(view(logits, dtype, sizes, strides), target, target_dtype, ignore, evidence, kind, threads);
          const View out = view(gradient, dtype, sizes, gradient_strides);
          py::gil_scoped_release release;
          backward(args, static_cast<const double*>(pointer(coefficients)), out);
        });
}

}  // namespace sure_fast
