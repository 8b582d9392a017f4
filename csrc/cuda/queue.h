// What the kernel files and the bindings share; plain C++.
#pragma once

#include <cstdint>

#include "math/storage.h"

namespace sure_fast {

// Where kernels run: a stream of the current device, and how many multiprocessors it has.
struct Queue {
  void* stream;
  int multiprocessors;
};

struct LabelMap {
  const void* data;  // contiguous integers; null: none
  DType dtype;
};

}  // namespace sure_fast
