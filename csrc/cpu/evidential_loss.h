// evidential_loss on the CPU: what the kernel files and the binding share.
#pragma once

#include "args/evidential_loss.h"
#include "cpu/labels.h"

namespace sure_fast {

// A map is a Dirichlet distribution a voxel: one an image, or with regions one a channel.
SURE_FAST_INLINE int64_t evidential_classes(const EvidentialArgs& a) { return a.regions ? 2 : a.logits.channels; }
SURE_FAST_INLINE int64_t evidential_groups(const EvidentialArgs& a) { return a.regions ? a.logits.channels : 1; }
SURE_FAST_INLINE int64_t evidential_maps(const EvidentialArgs& a) { return a.logits.batch * evidential_groups(a); }

// What one pass over a map sums: [data, kl, Σ_i p_ic (C), Σ_i p_ic y_ic (C), Σ_i y_ic (C), Σ u over the far voxels,
// number of far voxels, bad labels].
SURE_FAST_INLINE int64_t evidential_sums_size(int64_t classes) { return 5 + 3 * classes; }

// Work is cut into chunks of this many voxels of one map; each is summed by itself and the parts are added in order,
// so the result does not depend on the number of threads.
constexpr int64_t kEvidentialChunk = 4096;

SURE_FAST_INLINE int64_t evidential_chunks(const EvidentialArgs& a) {
  return (a.logits.voxels + kEvidentialChunk - 1) / kEvidentialChunk;  // of a map
}

// forward:  partials [maps, chunks, sums_size] float64.
// backward: coefficients [groups, sums_size] = d loss / d sums, of which the first 2 + 2C and that of the far voxels' u
// are used; gradient as the logits, any strides.
#define SURE_FAST_DECLARE(isa)                                                                                         \
  namespace isa {                                                                                                      \
  void evidential_loss_forward(const EvidentialArgs& args, double* partials, const EvidentialVoxels& voxels);          \
  void evidential_loss_backward(const EvidentialArgs& args, const double* coefficients, const EvidentialVoxels& slope, \
                                const View& gradient);                                                                 \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
