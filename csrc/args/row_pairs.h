// Arguments of pair_concordance and spearman.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

// Two rankings of the same elements, row by row; n < 2^31, on CUDA rows * n < 2^32.
struct RowPairArgs {
  const void* a;        // [rows, n] contiguous, f32 or f64
  const void* b;        // the same
  DType dtype;          // of both
  const uint8_t* mask;  // [rows, n] contiguous, 0 or 1: the elements that count; null: all
  int64_t rows;         // samples
  int64_t n;            // elements of a row
  int64_t most;         // CPU: elements that count in the fullest row
  int threads;          // to use at most
};

}  // namespace sure_fast
