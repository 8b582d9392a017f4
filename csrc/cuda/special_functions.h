// The scalar functions of csrc/math over device arrays, so that tests can hold the device code against SciPy.
#pragma once

#include <cstdint>

namespace sure_fast {

// x, out: float32 or float64 (`wide`) device arrays of `count`; `which` as enum Special of cpu/special_functions.h.
// Launched on `stream` of the current device; returns a CUDA error's text, or nullptr.
const char* special_function_cuda(int which, bool wide, const void* x, int64_t count, void* out, void* stream);

}  // namespace sure_fast
