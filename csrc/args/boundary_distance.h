// Arguments of boundary_distance.
#pragma once

#include "args/tensor.h"

namespace sure_fast {

struct BoundaryArgs {
  LabelMap label;   // [N, D, H, W]; a 2D image has D = 1
  int64_t size[4];  // N, D, H, W in voxels
  double step[3];   // spacing along D, H, W, in mm or voxels
  double limit;     // exact up to here, +inf beyond, in the unit of the steps; negative: exact everywhere
  bool has_ignore;  // whether a label is ignored
  int64_t ignore;   // that label
  bool wide;        // labels are compared as int64 instead of bytes
  int threads;      // to use at most
};

}  // namespace sure_fast
