// pair_concordance and spearman on CUDA: arguments shared by the kernel files and the binding.
#pragma once

#include "cuda/queue.h"

namespace sure_fast {

// Two rankings of the same elements, row by row; rows * n < 2^32, n < 2^31.
struct RowPairArgs {
  const void* a;  // [rows, n] contiguous, f32 or f64
  const void* b;  // the same
  DType dtype;
  const uint8_t* mask;  // [rows, n] contiguous, 0 or 1: the elements that count; null: all
  int64_t rows, n;
};

// counts int64 [rows, 6]: concordant, discordant, tied in a only, in b only, in both, and of those tied in a only the
// ones whose b differ by less than the tolerance; -1 in a row with a NaN.
int64_t pair_concordance_workspace(const RowPairArgs& args, const Queue& queue);
void pair_concordance_forward(const RowPairArgs& args, const Queue& queue, double tolerance, void* workspace,
                              int64_t* counts);

// out float64 [rows]; NaN where undefined.
int64_t spearman_workspace(const RowPairArgs& args, const Queue& queue);
void spearman_forward(const RowPairArgs& args, const Queue& queue, void* workspace, double* out);

}  // namespace sure_fast
