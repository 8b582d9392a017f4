#include "bindings/cuda_common.h"
#include "cuda/sample_hard_patches.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

HardPatchArgs arguments(std::uintptr_t uncertainty, std::uintptr_t noisy, int dtype, std::uintptr_t label,
                        int label_dtype, std::uintptr_t distance, int distance_dtype, py::tuple size, py::tuple patch,
                        int dims, int64_t num_classes, int64_t num_patches, double max_distance, std::uintptr_t seed) {
  HardPatchArgs args{};
  args.uncertainty = pointer(uncertainty);
  args.noisy = pointer(noisy);
  args.dtype = static_cast<DType>(dtype);
  args.label = {pointer(label), static_cast<DType>(label_dtype)};
  args.distance = pointer(distance);
  args.distance_dtype = static_cast<DType>(distance_dtype);
  for (size_t i = 0; i < 4; ++i) args.size[i] = size[i].cast<int64_t>();
  for (size_t i = 0; i < 3; ++i) args.patch[i] = patch[i].cast<int64_t>();
  args.dims = dims;
  args.num_classes = num_classes;
  args.num_patches = num_patches;
  args.max_distance = max_distance;
  args.seed = static_cast<const int64_t*>(pointer(seed));
  return args;
}

}  // namespace

void bind_cuda_sample_hard_patches(py::module_& m) {
  py::class_<HardPatchArgs>(m, "HardPatchArgs", py::module_local()).def(py::init(&arguments));
  m.def("sample_hard_patches_workspace", &sample_hard_patches_workspace);
  m.def("sample_hard_patches_forward", [](const HardPatchArgs& args, const Queue& queue, std::uintptr_t scratch,
                                          std::uintptr_t centers, std::uintptr_t valid) {
    sample_hard_patches_forward(args, queue, pointer(scratch), static_cast<int64_t*>(pointer(centers)),
                                static_cast<uint8_t*>(pointer(valid)));
  });
  m.def("sample_hard_patches_images", [](const Queue& queue, std::uintptr_t image, std::uintptr_t noise, int dtype,
                                         py::tuple size, py::tuple patch, int64_t copies, std::uintptr_t centers,
                                         std::uintptr_t valid, int64_t places, int dims, std::uintptr_t images) {
    NoisePatchArgs args{};
    args.image = pointer(image);
    args.noise = pointer(noise);
    args.dtype = static_cast<DType>(dtype);
    for (size_t i = 0; i < 5; ++i) args.size[i] = size[i].cast<int64_t>();
    for (size_t i = 0; i < 3; ++i) args.patch[i] = patch[i].cast<int64_t>();
    args.copies = copies;
    args.centers = static_cast<const int64_t*>(pointer(centers));
    args.valid = static_cast<const uint8_t*>(pointer(valid));
    args.places = places;
    args.dims = dims;
    sample_hard_patches_images(args, queue, pointer(images));
  });
}

}  // namespace sure_fast
