// sample_hard_patches on the CPU: arguments shared by the kernel files and the binding.
#pragma once

#include "cpu/common.h"

namespace sure_fast {

struct HardPatchArgs {
  const void* uncertainty;  // [N, D, H, W] contiguous, f32 or f64
  const void* noisy;        // the same
  DType dtype;
  const void* label;  // [N, D, H, W] contiguous integers
  DType label_dtype;
  const void* distance;  // [N, D, H, W] contiguous, f32 or f64
  DType distance_dtype;
  int64_t size[4];
  int64_t patch[3];     // odd edges along D, H, W
  int dims;             // of the centers: 2 or 3
  int64_t num_classes;  // C
  int64_t num_patches;  // per class
  double max_distance;  // centers of class 0 are closer
  uint64_t seed;
  int threads;
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
  int threads;
};

constexpr int64_t kKept = 32;  // candidates of the largest keys that a slab keeps per class

SURE_FAST_INLINE int64_t hard_patch_slabs(const HardPatchArgs& a) {
  const int64_t rows = a.size[1] * a.size[2], wanted = a.size[1] * a.size[2] * a.size[3] >> 14;
  return wanted < 1 ? 1 : wanted > 16 ? (rows < 16 ? rows : 16) : (rows < wanted ? rows : wanted);
}

// workspace: bytes of scratch. forward: centers int64 [N, C num_patches, dims], valid uint8 [N, C num_patches].
// images: [M, N, K, D, H, W], copy m of every image with noise m added at every valid center.
#define SURE_FAST_DECLARE(isa)                                                                                    \
  namespace isa {                                                                                                 \
  int64_t sample_hard_patches_workspace(const HardPatchArgs& args);                                               \
  void sample_hard_patches_forward(const HardPatchArgs& args, void* workspace, int64_t* centers, uint8_t* valid); \
  void sample_hard_patches_images(const NoisePatchArgs& args, void* images);                                      \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
