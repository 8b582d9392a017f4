// What the bindings share: the choice of instruction set and the reading of plain Python arguments.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "cpu/common.h"

namespace sure_fast {

enum class Isa : int { baseline = 0, avx2 = 1, avx512 = 2 };

// The instruction set in use: the best one compiled in that this machine has, or what SURE_FAST_ISA asks for.
Isa active_isa();

// Threads to use when `wanted` are allowed: one in a process forked from one that had loaded this library.
int usable_threads(int wanted);

#if defined(SURE_FAST_HAVE_AVX512)
#define SURE_FAST_TRY_AVX512(call) \
  if (active_isa() == Isa::avx512) return avx512::call;
#else
#define SURE_FAST_TRY_AVX512(call)
#endif
#if defined(SURE_FAST_HAVE_AVX2)
#define SURE_FAST_TRY_AVX2(call) \
  if (active_isa() == Isa::avx2) return avx2::call;
#else
#define SURE_FAST_TRY_AVX2(call)
#endif

// return <isa>::call;
#define SURE_FAST_DISPATCH(call) \
  do {                           \
    SURE_FAST_TRY_AVX512(call)   \
    SURE_FAST_TRY_AVX2(call)     \
    return baseline::call;       \
  } while (false)

inline void* pointer(std::uintptr_t address) { return reinterpret_cast<void*>(address); }

// A [N, C, V] view from Python numbers.
View make_view(std::uintptr_t data, int dtype, pybind11::tuple sizes, pybind11::tuple strides);

void bind_boundary_distance(pybind11::module_& m);
void bind_dirichlet_uncertainty(pybind11::module_& m);
void bind_evidential_loss(pybind11::module_& m);
void bind_gradient_magnitude(pybind11::module_& m);
void bind_gradient_uncertainty_loss(pybind11::module_& m);
void bind_noise_uncertainty_loss(pybind11::module_& m);
void bind_row_pairs(pybind11::module_& m);
void bind_sample_hard_patches(pybind11::module_& m);
void bind_segmentation_stats(pybind11::module_& m);
void bind_special_functions(pybind11::module_& m);
void bind_surface_distances(pybind11::module_& m);
void bind_uncertainty_supervision(pybind11::module_& m);

}  // namespace sure_fast
