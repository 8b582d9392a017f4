// add_noise_patches on CUDA: what the kernel file and the binding share.
#pragma once

#include "args/add_noise_patches.h"
#include "cuda/stream.h"

namespace sure_fast {

// images: [M, N, K, D, H, W], copy m of every image with noise m added at every valid center.
void add_noise_patches(const NoisePatchArgs& args, const Stream& stream, void* images);

}  // namespace sure_fast
