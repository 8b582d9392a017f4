// Tensors as kernels take them: plain structs for host, device and every instruction set.
#pragma once

#include <cstdint>

#include "math/enums.h"

namespace sure_fast {

constexpr int kMostAxes = 5;

// A tensor of the caller as it crosses from Python.
struct Tensor {
  void* data;
  DType dtype;
  int axes;
  int64_t size[kMostAxes];
  int64_t stride[kMostAxes];  // in elements
};

// A [N, C, V] view of a tensor whose spatial axes step by one stride; strides in elements.
struct View {
  const void* data;
  DType dtype;
  int64_t batch, channels, voxels;
  int64_t batch_stride, channel_stride, voxel_stride;
};

struct LabelMap {
  const void* data;  // contiguous integers; null: none
  DType dtype;
};

// Labels that are checked: in [0, classes), or the ignored one.
struct Labels : LabelMap {
  int64_t classes;
  bool has_ignore;
  int64_t ignore;
};

}  // namespace sure_fast
