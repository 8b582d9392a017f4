// The arguments of sample_hard_patches as Python gives them to both modules.
#pragma once

#include "args/sample_hard_patches.h"
#include "bindings/registrar.h"

namespace sure_fast {

inline HardPatchArgs hard_patch_args(const TensorArgument& uncertainty, const TensorArgument& noisy,
                                     const TensorArgument& label, const TensorArgument& distance,
                                     const pybind11::tuple& patch, int64_t num_classes, int64_t num_patches,
                                     double max_distance, const TensorArgument& seed, int threads) {
  const int64_t all = label.elements();
  HardPatchArgs args{};
  args.uncertainty = memory(uncertainty, "uncertainty", {DType::f32, DType::f64}, all);
  args.dtype = uncertainty.dtype;
  args.noisy = memory(noisy, "noisy", {args.dtype}, all);
  args.label = labels(label, "label", all);
  args.distance = memory(distance, "distance", {DType::f32, DType::f64}, all);
  args.distance_dtype = distance.dtype;
  read_sizes(label, "label", 1, args.size);
  read_axes<int64_t>(patch, 1, args.patch);
  args.dims = label.axes - 1;
  args.num_classes = num_classes;
  args.num_patches = num_patches;
  args.max_distance = max_distance;
  args.seed = data<int64_t>(seed, "seed", 1);
  args.threads = usable_threads(threads);
  return args;
}

inline void bind_hard_patch_args(pybind11::module_& m) {
  using pybind11::arg;
  bind_args(m, "HardPatchArgs", &hard_patch_args, arg("uncertainty"), arg("noisy"), arg("label"), arg("distance"),
            arg("patch"), arg("num_classes"), arg("num_patches"), arg("max_distance"), arg("seed"), arg("threads") = 1);
}

}  // namespace sure_fast
