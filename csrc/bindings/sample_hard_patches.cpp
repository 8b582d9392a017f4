#include "cpu/sample_hard_patches.h"
#include "bindings/common.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

int64_t workspace(const HardPatchArgs& args) { SURE_FAST_DISPATCH(sample_hard_patches_workspace(args)); }

void forward(const HardPatchArgs& args, void* scratch, int64_t* centers, uint8_t* valid) {
  SURE_FAST_DISPATCH(sample_hard_patches_forward(args, scratch, centers, valid));
}

HardPatchArgs arguments(std::uintptr_t uncertainty, std::uintptr_t noisy, int dtype, std::uintptr_t label,
                        int label_dtype, std::uintptr_t distance, int distance_dtype, py::tuple size, py::tuple patch,
                        int dims, int64_t num_classes, int64_t num_patches, double max_distance, int64_t seed,
                        int threads) {
  HardPatchArgs args{};
  args.uncertainty = pointer(uncertainty);
  args.noisy = pointer(noisy);
  args.dtype = static_cast<DType>(dtype);
  args.label = pointer(label);
  args.label_dtype = static_cast<DType>(label_dtype);
  args.distance = pointer(distance);
  args.distance_dtype = static_cast<DType>(distance_dtype);
  for (size_t i = 0; i < 4; ++i) args.size[i] = size[i].cast<int64_t>();
  for (size_t i = 0; i < 3; ++i) args.patch[i] = patch[i].cast<int64_t>();
  args.dims = dims;
  args.num_classes = num_classes;
  args.num_patches = num_patches;
  args.max_distance = max_distance;
  args.seed = static_cast<uint64_t>(seed);
  args.threads = usable_threads(threads);
  return args;
}

void write_images(const NoisePatchArgs& args, void* images) {
  SURE_FAST_DISPATCH(sample_hard_patches_images(args, images));
}

}  // namespace

void bind_sample_hard_patches(py::module_& m) {
  py::class_<HardPatchArgs>(m, "HardPatchArgs").def(py::init(&arguments));
  m.def("sample_hard_patches_workspace", &workspace);
  m.def("sample_hard_patches_forward", [](const HardPatchArgs& args, std::uintptr_t scratch, std::uintptr_t centers,
                                          std::uintptr_t valid) {
    py::gil_scoped_release release;
    forward(args, pointer(scratch), static_cast<int64_t*>(pointer(centers)), static_cast<uint8_t*>(pointer(valid)));
  });
  m.def("sample_hard_patches_images",
        [](std::uintptr_t image, std::uintptr_t noise, int dtype, py::tuple size, py::tuple patch, int64_t copies,
           std::uintptr_t centers, std::uintptr_t valid, int64_t places, int dims, int threads, std::uintptr_t images) {
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
          args.threads = usable_threads(threads);
          py::gil_scoped_release release;
          write_images(args, pointer(images));
        });
}

}  // namespace sure_fast
