// pair_concordance and spearman on CUDA: what the kernel files and the binding share.
#pragma once

#include "args/row_pairs.h"
#include "cuda/stream.h"

namespace sure_fast {

// counts int64 [rows, 6]: concordant, discordant, tied in a only, in b only, in both, and of those tied in a only the
// ones whose b differ by less than the tolerance; -1 in a row with a NaN.
int64_t pair_concordance_workspace(const RowPairArgs& args, const Stream& stream);
void pair_concordance_forward(const RowPairArgs& args, const Stream& stream, double tolerance, void* workspace,
                              int64_t* counts);

// out float64 [rows]; NaN where undefined.
int64_t spearman_workspace(const RowPairArgs& args, const Stream& stream);
void spearman_forward(const RowPairArgs& args, const Stream& stream, void* workspace, double* out);

}  // namespace sure_fast
