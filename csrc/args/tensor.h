// Tensors as kernels take them: plain structs for host, device and every instruction set.
#pragma once

#include <cstdint>

#include "math/enums.h"

namespace sure_fast {

constexpr int kMostAxes = 5;

// A tensor of the caller as it crosses from Python.
struct Tensor {
  void* data;                 // of size and stride; may be null where it is empty
  DType dtype;                // of an element
  int axes;                   // at most kMostAxes
  int64_t size[kMostAxes];    // in elements
  int64_t stride[kMostAxes];  // in elements
};

// A [N, C, V] view of a tensor whose spatial axes step by one stride; strides in elements.
struct View {
  const void* data;        // [N, C, V]
  DType dtype;             // of an element
  int64_t batch;           // N
  int64_t channels;        // C
  int64_t voxels;          // V of an image
  int64_t batch_stride;    // in elements
  int64_t channel_stride;  // in elements
  int64_t voxel_stride;    // in elements
};

struct LabelMap {
  const void* data;  // contiguous integers, shaped as its owner says; null: none
  DType dtype;       // u8, i8, i16, i32 or i64
};

// Labels that are checked: in [0, classes), or the ignored one.
struct Labels : LabelMap {
  int64_t classes;  // C
  bool has_ignore;  // whether a label is ignored
  int64_t ignore;   // that label
};

}  // namespace sure_fast
