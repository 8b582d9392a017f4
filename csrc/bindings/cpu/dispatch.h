// The choice of instruction set.
#pragma once

#include "bindings/registrar.h"
#include "cpu/common.h"

namespace sure_fast {

enum class Isa : int { baseline = 0, avx2 = 1, avx512 = 2 };

// The instruction set in use: the best one compiled in that this machine has, or what SURE_FAST_ISA asks for.
Isa active_isa();

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

using WithoutLock = pybind11::call_guard<pybind11::gil_scoped_release>;

}  // namespace sure_fast
