// evidential_loss on the CPU: arguments shared by the kernel files and the binding.
#pragma once

#include "cpu/labels.h"

namespace sure_fast {

struct EvidentialArgs {
  View logits;
  Labels target;  // [N, V]
  int evidence;   // math::Evidence
  int kind;       // 0 digamma, 1 log, 2 mse
  int threads;
  const uint8_t* squared;  // squared distance to the boundary in steps [N, V], or null: no voxel is far
  int far_above;           // a voxel that counts is far where squared > far_above
};

// What one pass over the logits sums: [data, kl, Σ_i p_ic (C), Σ_i p_ic y_ic (C), Σ_i y_ic (C), Σ u over the far
// voxels, number of far voxels, bad labels].
SURE_FAST_INLINE int64_t evidential_sums_size(int64_t classes) { return 5 + 3 * classes; }

// Work is cut into chunks of this many voxels of one image; each is summed apart and the parts are added in order,
// so the result does not depend on the number of threads.
constexpr int64_t kEvidentialChunk = 4096;

SURE_FAST_INLINE int64_t evidential_chunks(const View& logits) {
  return logits.batch * ((logits.voxels + kEvidentialChunk - 1) / kEvidentialChunk);
}

// forward:  partials [chunks, sums_size] float64; uncertainty [N, V] in the logits' dtype, or null.
// backward: coefficients = d loss / d sums, of which the first 2 + 2C and that of the far voxels' u are used;
// slope [N, V] or null: d loss / d u of each voxel, float64 for float64 logits, else float32, times slope_scale;
// gradient as the logits, any strides.
#define SURE_FAST_DECLARE(isa)                                                                             \
  namespace isa {                                                                                          \
  void evidential_loss_forward(const EvidentialArgs& args, double* partials, void* uncertainty);           \
  void evidential_loss_backward(const EvidentialArgs& args, const double* coefficients, const void* slope, \
                                double slope_scale, const View& gradient);                                 \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
