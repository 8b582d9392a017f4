// sample_hard_patches on CUDA: arguments shared by the kernel file and the binding.
#pragma once

#include "cuda/queue.h"

namespace sure_fast {

struct HardPatchArgs {
  const void* uncertainty;  // [N, D, H, W] contiguous, f32 or f64
  const void* noisy;        // the same
  DType dtype;
  LabelMap label;        // [N, D, H, W]
  const void* distance;  // [N, D, H, W] contiguous, f32 or f64
  DType distance_dtype;
  int64_t size[4];
  int64_t patch[3];     // odd edges along D, H, W
  int dims;             // of the centers: 2 or 3
  int64_t num_classes;  // C, at most 254
  int64_t num_patches;  // per class
  double max_distance;  // centers of class 0 are closer
  const int64_t* seed;  // on the device
};

struct NoisePatchArgs {
  const void* image;  // [N, K, D, H, W] contiguous
  const void* noise;  // [M, patch] in the same dtype
  DType dtype;
  int64_t size[5];
  int64_t patch[3];
  int64_t copies;          // M
  const int64_t* centers;  // [N, P, dims], patches inside the image where valid
  const uint8_t* valid;    // [N, P]
  int64_t places;          // P
  int dims;
};

// workspace: bytes of scratch. forward: centers int64 [N, C num_patches, dims], valid uint8 [N, C num_patches].
// images: [M, N, K, D, H, W], copy m of every image with noise m added at every valid center.
int64_t sample_hard_patches_workspace(const HardPatchArgs& args, const Queue& queue);
void sample_hard_patches_forward(const HardPatchArgs& args, const Queue& queue, void* workspace, int64_t* centers,
                                 uint8_t* valid);
void sample_hard_patches_images(const NoisePatchArgs& args, const Queue& queue, void* images);

}  // namespace sure_fast
