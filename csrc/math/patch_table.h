// Which patches of one size overlap none of those drawn: a hash table of the drawn centers by cell. A cell is as large
// as a patch, so that it holds at most one center, and a patch overlaps only those of its own and the neighbouring
// cells.
#pragma once

#include "math/random.h"

namespace sure_fast {

struct PatchTable {
  int64_t* cells;              // [room] the cell's number + 1, 0 where there is none
  int64_t* centers;            // [room] voxels
  int64_t room;                // a power of two, at least twice the patches
  int64_t image[3], patch[3];  // sizes along D, H, W
};

SURE_FAST_INLINE int64_t patch_table_room(int64_t patches) {
  int64_t room = 16;
  while (room < 2 * patches) room *= 2;
  return room;
}

// Where the cell is, or the empty entry where it would be.
SURE_FAST_INLINE int64_t find_cell(const PatchTable& t, int64_t cell) {
  int64_t at = static_cast<int64_t>(splitmix(static_cast<uint64_t>(cell))) & (t.room - 1);
  while (t.cells[at] != 0 && t.cells[at] != cell + 1) at = (at + 1) & (t.room - 1);
  return at;
}

SURE_FAST_INLINE int64_t cell_of(const PatchTable& t, int64_t d, int64_t h, int64_t w) {
  const int64_t rows = (t.image[1] + t.patch[1] - 1) / t.patch[1], columns = (t.image[2] + t.patch[2] - 1) / t.patch[2];
  return (d * rows + h) * columns + w;
}

SURE_FAST_INLINE void insert_patch(const PatchTable& t, int64_t voxel) {
  const int64_t H = t.image[1], W = t.image[2];
  const int64_t cell = cell_of(t, voxel / (H * W) / t.patch[0], voxel / W % H / t.patch[1], voxel % W / t.patch[2]);
  const int64_t at = find_cell(t, cell);
  t.cells[at] = cell + 1;
  t.centers[at] = voxel;
}

SURE_FAST_INLINE int64_t distance_along(int64_t x, int64_t y) { return x < y ? y - x : x - y; }

// Whether a patch at `voxel` overlaps none in the table.
SURE_FAST_INLINE bool is_free(const PatchTable& t, int64_t voxel) {
  const int64_t H = t.image[1], W = t.image[2], d = voxel / (H * W), h = voxel / W % H, w = voxel % W;
  const int64_t last_d = (t.image[0] - 1) / t.patch[0], last_h = (H - 1) / t.patch[1], last_w = (W - 1) / t.patch[2];
  const int64_t at_d = d / t.patch[0], at_h = h / t.patch[1], at_w = w / t.patch[2];
  for (int64_t i = at_d > 0 ? at_d - 1 : 0; i <= (at_d < last_d ? at_d + 1 : last_d); ++i) {
    for (int64_t j = at_h > 0 ? at_h - 1 : 0; j <= (at_h < last_h ? at_h + 1 : last_h); ++j) {
      for (int64_t k = at_w > 0 ? at_w - 1 : 0; k <= (at_w < last_w ? at_w + 1 : last_w); ++k) {
        const int64_t at = find_cell(t, cell_of(t, i, j, k));
        if (t.cells[at] == 0) continue;
        const int64_t x = t.centers[at];
        if (distance_along(x / (H * W), d) < t.patch[0] && distance_along(x / W % H, h) < t.patch[1] &&
            distance_along(x % W, w) < t.patch[2])
          return false;
      }
    }
  }
  return true;
}

}  // namespace sure_fast
