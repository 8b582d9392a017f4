// What the kernel files and the bindings share; plain C++.
#pragma once

#include <cstdint>

#include "args/tensor.h"
#include "math/storage.h"

namespace sure_fast {

// Where kernels run: a CUDA stream of the current device, and how many multiprocessors it has.
struct Stream {
  void* handle;  // cudaStream_t
  int multiprocessors;
};

}  // namespace sure_fast
