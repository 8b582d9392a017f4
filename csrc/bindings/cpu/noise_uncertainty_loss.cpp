#include "cpu/noise_uncertainty_loss.h"

#include <vector>

#include "bindings/cpu/dispatch.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void run_far_sums(const NoiseArgs& args, double* partials) {
  SURE_FAST_DISPATCH(noise_uncertainty_far_sums(args, partials));
}

void run_center_terms(const NoiseArgs& args, double* scratch, double* terms, double* slopes) {
  SURE_FAST_DISPATCH(noise_uncertainty_center_terms(args, scratch, terms, slopes));
}

void run_backward(const NoiseArgs& args, const double* coefficients, const double* slopes, const View* gradients) {
  SURE_FAST_DISPATCH(noise_uncertainty_backward(args, coefficients, slopes, gradients));
}

void forward(const Held<NoiseArgs>& args, const TensorArgument& far, const TensorArgument& terms,
             const TensorArgument& slopes) {
  const int64_t chunks = noise_chunks(args), centers = args.logits[0].batch * args.patches;
  double *sums = data<double>(far, "far", 4), *two = data<double>(terms, "terms", 2);
  double* at_centers = data<double>(slopes, "slopes", 4 * centers);
  std::vector<double> partials(static_cast<size_t>(4 * chunks));
  run_far_sums(args, partials.data());
  for (int64_t k = 0; k < 4; ++k) {
    sums[k] = 0.0;
    for (int64_t c = 0; c < chunks; ++c) sums[k] += partials[static_cast<size_t>(4 * c + k)];
  }
  std::vector<double> scratch(static_cast<size_t>(4 * centers));
  run_center_terms(args, scratch.data(), two, at_centers);
}

void backward(const Held<NoiseArgs>& args, const TensorArgument& coefficients, const TensorArgument& slopes,
              const TensorArgument& clean, const TensorArgument& noisy1, const TensorArgument& noisy2) {
  const View gradients[3] = {view_like(args.logits[0], clean, "clean"), view_like(args.logits[1], noisy1, "noisy1"),
                             view_like(args.logits[2], noisy2, "noisy2")};
  run_backward(args, data<double>(coefficients, "coefficients", 3),
               data<double>(slopes, "slopes", 2 * args.logits[0].batch * args.patches), gradients);
}

NoiseArgs arguments(const TensorArgument& logits, const TensorArgument& noisy1, const TensorArgument& noisy2,
                    Evidence evidence, bool clean_far, const OptionalTensor& distance, const OptionalTensor& squared,
                    double threshold, const TensorArgument& centers, const TensorArgument& valid, double level1,
                    double level2, int threads) {
  NoiseArgs args{};
  const View z = view(logits, "logits");
  args.logits[0] = z;
  args.logits[1] = view_like(z, noisy1, "noisy1");
  args.logits[2] = view_like(z, noisy2, "noisy2");
  args.evidence = evidence;
  args.clean_far = clean_far;
  args.distance = memory(distance, "distance", {DType::f32, DType::f64}, z.batch * z.voxels);
  args.distance_dtype = distance ? distance->dtype : DType::f32;
  args.squared = data<uint8_t>(squared, "squared", z.batch * z.voxels);
  int64_t size[5];
  read_sizes(logits, "logits", 2, size);
  for (int i = 0; i < 3; ++i) args.size[i] = size[i + 2];
  args.threshold = threshold;
  args.patches = valid.size[1];
  args.dims = logits.axes - 2;
  args.centers = data<int64_t>(centers, "centers", z.batch * args.patches * args.dims);
  args.valid = data<uint8_t>(valid, "valid", z.batch * args.patches);
  args.levels[0] = level1;
  args.levels[1] = level2;
  args.threads = usable_threads(threads);
  return args;
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_args(m, "NoiseArgs", &arguments, arg("logits"), arg("noisy1"), arg("noisy2"), arg("evidence"), arg("clean_far"),
            arg("distance"), arg("squared"), arg("threshold"), arg("centers"), arg("valid"), arg("level1"),
            arg("level2"), arg("threads"));
  m.def("noise_uncertainty_forward", &forward, arg("args"), arg("far"), arg("terms"), arg("slopes"), WithoutLock());
  m.def("noise_uncertainty_backward", &backward, arg("args"), arg("coefficients"), arg("slopes"), arg("clean"),
        arg("noisy1"), arg("noisy2"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
