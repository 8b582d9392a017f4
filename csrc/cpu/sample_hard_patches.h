// sample_hard_patches on the CPU: what the kernel files and the binding share.
#pragma once

#include "args/sample_hard_patches.h"
#include "cpu/common.h"

namespace sure_fast {

// How many candidates of the largest keys a slab keeps per class: some more than are drawn, as patches may overlap.
SURE_FAST_INLINE int64_t hard_patches_kept(const HardPatchArgs& a) {
  return a.num_patches < 2 ? 8 : a.num_patches > 8 ? 32 : 4 * a.num_patches;
}

// Slabs of an image: two tasks a thread, no slab below 2^14 voxels. Each fills its own lists, so that more would cost.
SURE_FAST_INLINE int64_t hard_patch_slabs(const HardPatchArgs& a) {
  const int64_t rows = a.size[1] * a.size[2], most = rows * a.size[3] >> 14, images = a.size[0] > 0 ? a.size[0] : 1;
  const int64_t wanted = (2 * a.threads + images - 1) / images, slabs = wanted < most ? wanted : most;
  return slabs < 1 ? 1 : slabs < rows ? slabs : rows;
}

// workspace: bytes of scratch. forward: centers int64 [N, C num_patches, dims], valid uint8 [N, C num_patches].
#define SURE_FAST_DECLARE(isa)                                                                                    \
  namespace isa {                                                                                                 \
  int64_t sample_hard_patches_workspace(const HardPatchArgs& args);                                               \
  void sample_hard_patches_forward(const HardPatchArgs& args, void* workspace, int64_t* centers, uint8_t* valid); \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
