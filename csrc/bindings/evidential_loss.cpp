#include "cpu/evidential_loss.h"

#include <algorithm>
#include <vector>

#include "bindings/common.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void forward(const EvidentialArgs& args, double* partials, const EvidentialVoxels& voxels) {
  SURE_FAST_DISPATCH(evidential_loss_forward(args, partials, voxels));
}

void backward(const EvidentialArgs& args, const double* coefficients, const EvidentialVoxels& slope,
              const View& gradient) {
  SURE_FAST_DISPATCH(evidential_loss_backward(args, coefficients, slope, gradient));
}

EvidentialArgs arguments(const View& logits, std::uintptr_t target, int target_dtype, py::object ignore, int evidence,
                         int kind, bool regions, std::uintptr_t weights, int threads, std::uintptr_t squared,
                         int far_above) {
  return {logits,
          {pointer(target), static_cast<DType>(target_dtype), regions ? 2 : logits.channels, !ignore.is_none(),
           ignore.is_none() ? 0 : ignore.cast<int64_t>()},
          evidence,
          kind,
          regions,
          static_cast<const double*>(pointer(weights)),
          usable_threads(threads),
          static_cast<const uint8_t*>(pointer(squared)),
          far_above};
}

}  // namespace

void bind_evidential_loss(py::module_& m) {
  py::class_<View>(m, "View").def(py::init(&make_view));
  py::class_<EvidentialArgs>(m, "EvidentialArgs").def(py::init(&arguments));
  m.def("evidential_sums_size", [](int64_t classes) { return evidential_sums_size(classes); });
  m.def("evidential_loss_forward", [](const EvidentialArgs& args, std::uintptr_t sums, std::uintptr_t uncertainty,
                                      std::uintptr_t data, std::uintptr_t kl) {
    py::gil_scoped_release release;
    const int64_t width = evidential_sums_size(evidential_classes(args)), groups = evidential_groups(args);
    const int64_t chunks = evidential_chunks(args), maps = evidential_maps(args);
    std::vector<double> partials(static_cast<size_t>(width * maps * chunks));
    forward(args, partials.data(), {pointer(uncertainty), pointer(data), pointer(kl), 1.0});
    double* total = static_cast<double*>(pointer(sums));
    std::fill(total, total + groups * width, 0.0);
    for (int64_t map = 0; map < maps; ++map) {
      for (int64_t i = 0; i < width; ++i) {
        for (int64_t c = map * chunks; c < (map + 1) * chunks; ++c) {
          total[map % groups * width + i] += partials[static_cast<size_t>(c * width + i)];
        }
      }
    }
  });
  m.def("evidential_loss_backward",
        [](const EvidentialArgs& args, std::uintptr_t coefficients, std::uintptr_t uncertainty,
           double uncertainty_scale, std::uintptr_t data, std::uintptr_t kl, const View& gradient) {
          py::gil_scoped_release release;
          const EvidentialVoxels slopes{pointer(uncertainty), pointer(data), pointer(kl), uncertainty_scale};
          backward(args, static_cast<const double*>(pointer(coefficients)), slopes, gradient);
        });
}

}  // namespace sure_fast
