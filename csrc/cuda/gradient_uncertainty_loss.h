// gradient_uncertainty_loss on CUDA: what the kernel file and the binding share.
#pragma once

#include "args/gradient_uncertainty_loss.h"
#include "cuda/stream.h"

namespace sure_fast {

// workspace: bytes of scratch. forward: loss [rows] float64, slope [rows, n] = d loss / d uncertainty, as the
// uncertainty. rows * n < 2^32. Both throw what CUDA has against a launch.
int64_t gradient_uncertainty_workspace(const PairArgs& args, const Stream& stream);
void gradient_uncertainty_forward(const PairArgs& args, const Stream& stream, void* workspace, double* loss,
                                  void* slope);

}  // namespace sure_fast
