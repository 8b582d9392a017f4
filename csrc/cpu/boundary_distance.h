// boundary_distance on the CPU: what the kernel files and the binding share.
#pragma once

#include "args/boundary_distance.h"
#include "cpu/common.h"
#include "math/distance.h"

namespace sure_fast {

// Of the distances within the limit, the squared ones fit a byte: equal steps, and few of them.
SURE_FAST_INLINE bool boundary_in_bytes(const BoundaryArgs& a) {
  return a.limit >= 0 && squares_fit_bytes(a.limit, a.step[0]) && a.step[0] == a.step[1] && a.step[1] == a.step[2];
}

// workspace: bytes of scratch. distance: float32 [N, D, H, W]. squared: uint8 of the same shape, in steps, kBeyond
// where it is beyond the limit, kIgnored on ignored voxels; only where boundary_in_bytes. Both return false, with
// nothing to be used, when a label does not fit a byte and `wide` is not set.
#define SURE_FAST_DECLARE(isa)                                                                 \
  namespace isa {                                                                              \
  int64_t boundary_distance_workspace(const BoundaryArgs& args);                               \
  bool boundary_distance_forward(const BoundaryArgs& args, void* workspace, float* distance);  \
  bool boundary_distance_squared(const BoundaryArgs& args, void* workspace, uint8_t* squared); \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
