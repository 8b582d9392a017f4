// The arguments of add_noise_patches as Python gives them to both modules.
#pragma once

#include "args/add_noise_patches.h"
#include "bindings/registrar.h"

namespace sure_fast {

inline NoisePatchArgs noise_patch_args(const TensorArgument& image, const TensorArgument& noise,
                                       const TensorArgument& centers, const TensorArgument& valid, int threads) {
  NoisePatchArgs args{};
  args.image = memory(image, "image", {DType::f32, DType::f64, DType::bf16, DType::f16}, image.elements());
  args.dtype = image.dtype;
  args.noise = memory(noise, "noise", {args.dtype}, noise.elements());
  read_sizes(image, "image", 2, args.size);
  int64_t sizes[4];  // copies, then the patch
  read_sizes(noise, "noise", 1, sizes);
  args.copies = sizes[0];
  for (int i = 0; i < 3; ++i) args.patch[i] = sizes[i + 1];
  args.dims = image.axes - 2;
  args.patches = valid.size[1];
  args.valid = data<uint8_t>(valid, "valid", args.size[0] * args.patches);
  args.centers = data<int64_t>(centers, "centers", args.size[0] * args.patches * args.dims);
  args.threads = usable_threads(threads);
  return args;
}

inline void bind_noise_patch_args(pybind11::module_& m) {
  using pybind11::arg;
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
