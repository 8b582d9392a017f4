// The scalar functions of csrc/math over arrays, so that tests can hold them against SciPy.
#pragma once

#include "cpu/common.h"

namespace sure_fast {

#define SURE_FAST_DECLARE(isa)                                                                \
  namespace isa {                                                                             \
  void special_function(Special which, DType dtype, const void* x, int64_t count, void* out); \
  }
SURE_FAST_FOR_EACH_ISA(SURE_FAST_DECLARE)
#undef SURE_FAST_DECLARE

}  // namespace sure_fast
