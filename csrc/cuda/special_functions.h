// The scalar functions of csrc/math over device arrays, so that tests can hold the device code against SciPy.
#pragma once

#include "cuda/stream.h"

namespace sure_fast {

// x, out: f32 or f64 device arrays of `count`.
void special_function(const Stream& stream, Special which, DType dtype, const void* x, int64_t count, void* out);

}  // namespace sure_fast
