// What the bindings of the CUDA library share.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "cuda/queue.h"

namespace sure_fast {

inline void* pointer(std::uintptr_t address) { return reinterpret_cast<void*>(address); }

void bind_cuda_gradient_uncertainty_loss(pybind11::module_& m);
void bind_cuda_row_pairs(pybind11::module_& m);
void bind_cuda_sample_hard_patches(pybind11::module_& m);
void bind_cuda_surface_distances(pybind11::module_& m);

}  // namespace sure_fast
