#include "cpu/evidential_loss.h"

#include <algorithm>
#include <vector>

#include "bindings/cpu/dispatch.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void run_forward(const EvidentialArgs& args, double* partials, const EvidentialVoxels& voxels) {
  SURE_FAST_DISPATCH(evidential_loss_forward(args, partials, voxels));
}

void run_backward(const EvidentialArgs& args, const double* coefficients, const EvidentialVoxels& slope,
                  const View& gradient) {
  SURE_FAST_DISPATCH(evidential_loss_backward(args, coefficients, slope, gradient));
}

DType compute_dtype(const EvidentialArgs& args) { return args.logits.dtype == DType::f64 ? DType::f64 : DType::f32; }

void forward(const Held<EvidentialArgs>& args, const TensorArgument& sums, const OptionalTensor& uncertainty,
             const OptionalTensor& data_term, const OptionalTensor& kl) {
  const int64_t width = evidential_sums_size(evidential_classes(args)), groups = evidential_groups(args);
  const int64_t chunks = evidential_chunks(args), maps = evidential_maps(args), all = maps * args.logits.voxels;
  double* total = data<double>(sums, "sums", groups * width);
  const EvidentialVoxels voxels{memory(uncertainty, "uncertainty", {compute_dtype(args)}, all),
                                memory(data_term, "data", {compute_dtype(args)}, all),
                                memory(kl, "kl", {compute_dtype(args)}, all), 1.0};
  std::vector<double> partials(static_cast<size_t>(width * maps * chunks));
  run_forward(args, partials.data(), voxels);
  std::fill(total, total + groups * width, 0.0);
  for (int64_t map = 0; map < maps; ++map) {
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t c = map * chunks; c < (map + 1) * chunks; ++c) {
        total[map % groups * width + i] += partials[static_cast<size_t>(c * width + i)];
      }
    }
  }
}

void backward(const Held<EvidentialArgs>& args, const TensorArgument& coefficients, const OptionalTensor& uncertainty,
              double uncertainty_scale, const OptionalTensor& data_term, const OptionalTensor& kl,
              const TensorArgument& gradient) {
  const int64_t width = evidential_sums_size(evidential_classes(args));
  const int64_t all = evidential_maps(args) * args.logits.voxels;
  const EvidentialVoxels slopes{memory(uncertainty, "uncertainty", {compute_dtype(args)}, all),
                                memory(data_term, "data", {compute_dtype(args)}, all),
                                memory(kl, "kl", {compute_dtype(args)}, all), uncertainty_scale};
  run_backward(args, data<double>(coefficients, "coefficients", evidential_groups(args) * width), slopes,
               view_like(args.logits, gradient, "gradient"));
}

EvidentialArgs arguments(const TensorArgument& logits, const TensorArgument& target, std::optional<int64_t> ignore,
                         Evidence evidence, Kind kind, bool regions, const OptionalTensor& weights, int threads,
                         const OptionalTensor& squared, int far_above) {
  EvidentialArgs args{};
  const View z = args.logits = view(logits, "logits");
  args.target =
      labels(target, "target", z.batch * z.voxels * (regions ? z.channels : 1), regions ? 2 : z.channels, ignore);
  args.evidence = evidence;
  args.kind = kind;
  args.regions = regions;
  args.weights = data<double>(weights, "weights", z.channels);
  args.threads = usable_threads(threads);
  args.squared = data<uint8_t>(squared, "squared", z.batch * z.voxels);
  args.far_above = far_above;
  return args;
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_args(m, "EvidentialArgs", &arguments, arg("logits"), arg("target"), arg("ignore"), arg("evidence"), arg("kind"),
            arg("regions"), arg("weights"), arg("threads"), arg("squared"), arg("far_above"));
  m.def("evidential_sums_size", [](int64_t classes) { return evidential_sums_size(classes); }, arg("classes"));
  m.def("evidential_loss_forward", &forward, arg("args"), arg("sums"), arg("uncertainty"), arg("data"), arg("kl"),
        WithoutLock());
  m.def("evidential_loss_backward", &backward, arg("args"), arg("coefficients"), arg("uncertainty"),
        arg("uncertainty_scale"), arg("data"), arg("kl"), arg("gradient"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
