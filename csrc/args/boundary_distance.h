// Arguments of boundary_distance.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct BoundaryArgs {
  LabelMap label;   // [N, D, H, W]; a 2D image has D = 1
  int64_t size[4];  // N, D, H, W
  double step[3];   // spacing along D, H, W, in mm or voxels
  double limit;     // exact up to here, +inf beyond, in the unit of the steps; negative: exact everywhere
  bool has_ignore;
  int64_t ignore;
  bool wide;  // labels are compared as int64 instead of bytes
  int threads;
};

constexpr int kBeyond = 255;   // a squared distance in a byte: farther than the limit,
constexpr int kIgnored = 254;  // or that of an ignored voxel

}  // namespace sure_fast
