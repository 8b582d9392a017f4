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

inline NoisePatchArgs noise_patch_args(const TensorArgument& image, const TensorArgument& noise,
                                       const TensorArgument& centers, const TensorArgument& valid, int threads) {
  NoisePatchArgs args{};
  args.image = memory(image, "image", {DType::f32, DType::f64, DType::bf16, DType::f16}, image.elements());
  args.dtype = image.dtype;
  args.noise = memory(noise, "noise", {args.dtype}, noise.elements());
  read_sizes(image, "image", 2, args.size);
  int64_t patches[4];  // copies, then the patch
  read_sizes(noise, "noise", 1, patches);
  args.copies = patches[0];
  for (int i = 0; i < 3; ++i) args.patch[i] = patches[i + 1];
  args.dims = image.axes - 2;
  args.places = valid.size[1];
  args.valid = data<uint8_t>(valid, "valid", args.size[0] * args.places);
  args.centers = data<int64_t>(centers, "centers", args.size[0] * args.places * args.dims);
  args.threads = usable_threads(threads);
  return args;
}

inline void bind_patch_args(pybind11::module_& m) {
  using pybind11::arg;
  bind_args(m, "HardPatchArgs", &hard_patch_args, arg("uncertainty"), arg("noisy"), arg("label"), arg("distance"),
            arg("patch"), arg("num_classes"), arg("num_patches"), arg("max_distance"), arg("seed"), arg("threads") = 1);
  bind_args(m, "NoisePatchArgs", &noise_patch_args, arg("image"), arg("noise"), arg("centers"), arg("valid"),
            arg("threads") = 1);
}

// Elements of the noisy images.
inline int64_t image_elements(const NoisePatchArgs& args) {
  int64_t product = args.copies;
  for (int64_t size : args.size) product *= size;
  return product;
}

}  // namespace sure_fast
