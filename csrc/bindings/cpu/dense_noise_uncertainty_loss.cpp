#include "cpu/dense_noise_uncertainty_loss.h"

#include <stdexcept>
#include <vector>

#include "bindings/cpu/dispatch.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void run_forward(const DenseNoiseArgs& args, double* partials) {
  SURE_FAST_DISPATCH(dense_noise_uncertainty_forward(args, partials));
}

void run_backward(const DenseNoiseArgs& args, const double* coefficients, void* const* gradients) {
  SURE_FAST_DISPATCH(dense_noise_uncertainty_backward(args, coefficients, gradients));
}

void forward(const Held<DenseNoiseArgs>& args, const TensorArgument& out) {
  const int64_t chunks = dense_noise_chunks(args);
  double* sums = data<double>(out, "sums", kDenseNoiseSums);
  std::vector<double> partials(static_cast<size_t>(kDenseNoiseSums * chunks));
  run_forward(args, partials.data());
  for (int k = 0; k < kDenseNoiseSums; ++k) {
    sums[k] = 0.0;
    for (int64_t c = 0; c < chunks; ++c) sums[k] += partials[static_cast<size_t>(kDenseNoiseSums * c + k)];
  }
}

void backward(const Held<DenseNoiseArgs>& args, const TensorArgument& coefficients, const TensorArgument& clean,
              const TensorArgument& noisy1, const OptionalTensor& noisy2) {
  void* const gradients[3] = {memory(clean, "clean", {args.dtype}, args.voxels),
                              memory(noisy1, "noisy1", {args.dtype}, args.voxels),
                              args.images == 3 ? memory(noisy2.value(), "noisy2", {args.dtype}, args.voxels) : nullptr};
  run_backward(args, data<double>(coefficients, "coefficients", kDenseNoiseSums), gradients);
}

DenseNoiseArgs arguments(const TensorArgument& uncertainty, const TensorArgument& noisy1, const OptionalTensor& noisy2,
                         const TensorArgument& distance, double level1, double level2, double threshold, double margin,
                         bool detach, int threads) {
  DenseNoiseArgs args{};
  args.voxels = uncertainty.elements();
  args.uncertainty[0] = memory(uncertainty, "uncertainty", {DType::f32, DType::f64}, args.voxels);
  args.dtype = uncertainty.dtype;
  args.uncertainty[1] = memory(noisy1, "noisy1", {args.dtype}, args.voxels);
  args.images = noisy2 ? 3 : 2;
  args.uncertainty[2] = noisy2 ? memory(*noisy2, "noisy2", {args.dtype}, args.voxels) : nullptr;
  args.distance = memory(distance, "distance", {DType::f32, DType::f64}, args.voxels);
  args.distance_dtype = distance.dtype;
  args.rise[0] = level1;
  args.rise[1] = level2;
  args.rise[2] = level2 - level1;
  args.threshold = threshold;
  args.margin = margin;
  args.detach = detach;
  args.threads = usable_threads(threads);
  return args;
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_args(m, "DenseNoiseArgs", &arguments, arg("uncertainty"), arg("noisy1"), arg("noisy2"), arg("distance"),
            arg("level1"), arg("level2"), arg("threshold"), arg("margin"), arg("detach"), arg("threads"));
  m.attr("DENSE_NOISE_SUMS") = kDenseNoiseSums;
  m.def("dense_noise_uncertainty_forward", &forward, arg("args"), arg("sums"), WithoutLock());
  m.def("dense_noise_uncertainty_backward", &backward, arg("args"), arg("coefficients"), arg("clean"), arg("noisy1"),
        arg("noisy2"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
