// sample_hard_patches on CUDA: what the kernel file and the binding share.
#pragma once

#include "args/sample_hard_patches.h"
#include "cuda/stream.h"

namespace sure_fast {

// workspace: bytes of scratch. forward: centers int64 [N, C num_patches, dims], valid uint8 [N, C num_patches].
int64_t sample_hard_patches_workspace(const HardPatchArgs& args, const Stream& stream);
void sample_hard_patches_forward(const HardPatchArgs& args, const Stream& stream, void* workspace, int64_t* centers,
                                 uint8_t* valid);

}  // namespace sure_fast
