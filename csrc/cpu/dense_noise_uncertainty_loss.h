// dense_noise_uncertainty_loss on the CPU: what the kernel files and the binding share.
#pragma once

#include "args/dense_noise_uncertainty_loss.h"
#include "cpu/common.h"

namespace sure_fast {

// What a chunk sums: the order term of three pairs of images, near voxels, u of each image over the far ones, far ones,
// u of each image over the near ones.
constexpr int kDenseNoiseSums = 11;
constexpr int64_t kDenseNoiseChunk = 1 << 14;

SURE_FAST_INLINE int64_t dense_noise_chunks(const DenseNoiseArgs& a) {
  return (a.voxels + kDenseNoiseChunk - 1) / kDenseNoiseChunk;
}

// forward: partials [chunks, kDenseNoiseSums] float64.
// backward: coefficients [kDenseNoiseSums] = d loss / d sums; gradients as the three maps of u.
#define SURE_FAST_DECLARE(isa)                                                                  \
  namespace isa {                                                                               \
  void dense_noise_uncertainty_forward(const DenseNoiseArgs& args, double* partials);           \
  void dense_noise_uncertainty_backward(const DenseNoiseArgs& args, const double* coefficients, \
                                        void* const* gradients);                                \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
