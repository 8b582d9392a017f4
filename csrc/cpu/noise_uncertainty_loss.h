// noise_uncertainty_loss on the CPU: what the kernel files and the binding share.
#pragma once

#include "args/noise_uncertainty_loss.h"
#include "cpu/common.h"

namespace sure_fast {

constexpr int64_t kNoiseChunk = 4096;

SURE_FAST_INLINE int64_t noise_chunks(const NoiseArgs& a) {
  const View& z = a.logits[0];
  return z.batch * ((z.voxels + kNoiseChunk - 1) / kNoiseChunk);
}

// far_sums:   partials [chunks, 4] float64: sum of u, u1, u2 over the far voxels, and their number.
// center_terms: terms [2] float64 (order, distance) and slopes [2 terms, 2 noisy images, N * P] = d term / d u^k;
//             scratch float64 [4, N * P].
// backward:   coefficients [3] = d loss / d (sum of u, u1, u2 over the far voxels); slopes [2, N * P] = d loss / d u^k;
//             gradients as the logits, any strides; that of the clean ones only where clean_far.
#define SURE_FAST_DECLARE(isa)                                                                                \
  namespace isa {                                                                                             \
  void noise_uncertainty_far_sums(const NoiseArgs& args, double* partials);                                   \
  void noise_uncertainty_center_terms(const NoiseArgs& args, double* scratch, double* terms, double* slopes); \
  void noise_uncertainty_backward(const NoiseArgs& args, const double* coefficients, const double* slopes,    \
                                  const View* gradients);                                                     \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
