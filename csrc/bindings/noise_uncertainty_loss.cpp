#include "cpu/noise_uncertainty_loss.h"

#include <vector>

#include "bindings/common.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void far_sums(const NoiseArgs& args, double* partials) {
  SURE_FAST_DISPATCH(noise_uncertainty_far_sums(args, partials));
}

void center_terms(const NoiseArgs& args, double* scratch, double* terms, double* slopes) {
  SURE_FAST_DISPATCH(noise_uncertainty_center_terms(args, scratch, terms, slopes));
}

void backward(const NoiseArgs& args, const double* coefficients, const double* slopes, const View* gradients) {
  SURE_FAST_DISPATCH(noise_uncertainty_backward(args, coefficients, slopes, gradients));
}

NoiseArgs arguments(const View& logits, const View& noisy1, const View& noisy2, int evidence, bool clean_far,
                    std::uintptr_t distance, int distance_dtype, std::uintptr_t squared, py::tuple size,
                    double threshold, std::uintptr_t centers, std::uintptr_t valid, int64_t patches, int dims,
                    double level1, double level2, int threads) {
  NoiseArgs args{{logits, noisy1, noisy2},
                 evidence,
                 clean_far,
                 pointer(distance),
                 static_cast<DType>(distance_dtype),
                 static_cast<const uint8_t*>(pointer(squared)),
                 {},
                 threshold,
                 static_cast<const int64_t*>(pointer(centers)),
                 static_cast<const uint8_t*>(pointer(valid)),
                 patches,
                 dims,
                 {level1, level2},
                 usable_threads(threads)};
  for (size_t i = 0; i < 3; ++i) args.size[i] = size[i].cast<int64_t>();
  return args;
}

}  // namespace

void bind_noise_uncertainty_loss(py::module_& m) {
  py::class_<NoiseArgs>(m, "NoiseArgs").def(py::init(&arguments));
  m.def("noise_uncertainty_forward", [](const NoiseArgs& args, std::uintptr_t far, std::uintptr_t terms,
                                        std::uintptr_t slopes) {
    py::gil_scoped_release release;
    const int64_t chunks = noise_chunks(args);
    std::vector<double> partials(static_cast<size_t>(4 * chunks));
    far_sums(args, partials.data());
    double* sums = static_cast<double*>(pointer(far));
    for (int64_t k = 0; k < 4; ++k) {
      sums[k] = 0.0;
      for (int64_t c = 0; c < chunks; ++c) sums[k] += partials[static_cast<size_t>(4 * c + k)];
    }
    std::vector<double> scratch(static_cast<size_t>(4 * args.logits[0].batch * args.patches));
    center_terms(args, scratch.data(), static_cast<double*>(pointer(terms)), static_cast<double*>(pointer(slopes)));
  });
  m.def("noise_uncertainty_backward", [](const NoiseArgs& args, std::uintptr_t coefficients, std::uintptr_t slopes,
                                         const View& clean, const View& noisy1, const View& noisy2) {
    const View gradients[3] = {clean, noisy1, noisy2};
    py::gil_scoped_release release;
    backward(args, static_cast<const double*>(pointer(coefficients)), static_cast<const double*>(pointer(slopes)),
             gradients);
  });
}

}  // namespace sure_fast
