// The arguments of gradient_uncertainty_loss as Python gives them to both modules.
#pragma once

#include "args/gradient_uncertainty_loss.h"
#include "bindings/registrar.h"

namespace sure_fast {

inline PairArgs pair_args(const TensorArgument& uncertainty, const TensorArgument& gradient,
                          const TensorArgument& distance, const OptionalTensor& label, double threshold,
                          int64_t num_pairs, int64_t seed, bool normalize, int64_t compared, int threads) {
  const int64_t rows = uncertainty.size[0], all = uncertainty.elements();
  PairArgs args{};
  args.uncertainty = memory(uncertainty, "uncertainty", {DType::f32, DType::f64}, all);
  args.dtype = uncertainty.dtype;
  args.gradient = memory(gradient, "gradient", {args.dtype}, all);
  args.distance = memory(distance, "distance", {DType::f32, DType::f64, DType::u8}, all);
  args.distance_dtype = distance.dtype;
  if (label) args.label = labels(*label, "label", all);
  args.rows = rows;
  args.n = rows == 0 ? 0 : all / rows;
  args.threshold = threshold;
  args.num_pairs = num_pairs;
  args.seed = static_cast<uint64_t>(seed);
  args.normalize = normalize;
  args.compared = compared;
  args.threads = usable_threads(threads);
  return args;
}

inline void bind_pair_args(pybind11::module_& m) {
  using pybind11::arg;
  bind_args(m, "PairArgs", &pair_args, arg("uncertainty"), arg("gradient"), arg("distance"), arg("label"),
            arg("threshold"), arg("num_pairs"), arg("seed"), arg("normalize"), arg("compared") = 0, arg("threads") = 1);
}

}  // namespace sure_fast
