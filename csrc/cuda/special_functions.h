// The scalar functions of csrc/math over device arrays, so that tests can hold the device code against SciPy.
#pragma once

#include "cuda/queue.h"

namespace sure_fast {

// x, out: float32 or float64 (`wide`) device arrays of `count`; `which` as enum Special of cpu/special_functions.h.
void special_function_cuda(const Queue& queue, int which, bool wide, const void* x, int64_t count, void* out);

}  // namespace sure_fast
