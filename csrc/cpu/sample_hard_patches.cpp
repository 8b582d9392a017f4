// Draws non-overlapping patch centers among the hard voxels (u_noisy <= u) of every class, class 0 near the boundary,
// from maps [N, D, H, W]. Every voxel has a random key, splitmix64 of (seed, image, voxel), 53 bits; the free candidate
// of the largest key is a uniform draw among the free ones. One pass keeps the kKept largest keys of each class and of
// all voxels; the draws walk down these lists, past what overlaps. A full list that runs out is followed by a search of
// the image, so the result never depends on kKept.
// Parallel over slabs of an image; the largest keys do not depend on how it is cut. Integers only: exact.
// Bytes per voxel: u, u_noisy, label and distance once. Bound by the keys: three 64-bit multiplications a voxel.
#include "cpu/sample_hard_patches.h"

#include "math/random.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int64_t kBlock = 64;

struct Candidate {
  uint64_t key;
  int64_t voxel;
};

// Whether x comes before y: a larger key or, with the same one, an earlier voxel.
SURE_FAST_INLINE bool before(const Candidate& x, const Candidate& y) {
  return x.key > y.key || (x.key == y.key && x.voxel < y.voxel);
}

// The first kKept of all candidates seen, as a heap whose root is the last of them.
struct List {
  int64_t kept;
  Candidate items[kKept];
};

// Smaller keys need not be offered to the list.
SURE_FAST_INLINE uint64_t floor_of(const List& list) { return list.kept < kKept ? 0 : list.items[0].key; }

void sift_down(Candidate* items, int64_t at) {
  const Candidate x = items[at];
  for (int64_t child = 2 * at + 1; child < kKept; child = 2 * at + 1) {
    if (child + 1 < kKept && before(items[child], items[child + 1])) ++child;
    if (!before(x, items[child])) break;
    items[at] = items[child];
    at = child;
  }
  items[at] = x;
}

void offer(List& list, const Candidate& x) {
  if (list.kept == kKept) {
    if (!before(x, list.items[0])) return;
    list.items[0] = x;
    sift_down(list.items, 0);
    return;
  }
  list.items[list.kept++] = x;
  if (list.kept == kKept) {
    for (int64_t i = kKept / 2 - 1; i >= 0; --i) sift_down(list.items, i);
  }
}

// Into the order of drawing.
void sort_list(List& list) {
  for (int64_t i = 1; i < kKept && i < list.kept; ++i) {
    const Candidate x = list.items[i];
    int64_t to = i;
    for (; to > 0 && before(x, list.items[to - 1]); --to) list.items[to] = list.items[to - 1];
    list.items[to] = x;
  }
}

struct Scratch {
  List* lists;       // [N, slabs, C + 1], the last of them of all voxels
  uint64_t* floors;  // [N, slabs, C + 2]

  Scratch(const HardPatchArgs& a, Arena& arena)
      : lists(arena.take<List>(a.size[0] * hard_patch_slabs(a) * (a.num_classes + 1))),
        floors(arena.take<uint64_t>(a.size[0] * hard_patch_slabs(a) * (a.num_classes + 2))) {}
};

template <typename Label>
void hard_labels(const HardPatchArgs& a, int64_t at, int64_t count, int32_t* cls) {
  const Label* label = static_cast<const Label*>(a.label.data) + at;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t y = static_cast<int64_t>(label[i]);
    cls[i] = cls[i] != 0 && y >= 0 && y < a.num_classes ? static_cast<int32_t>(y) : -1;
  }
}

template <typename Distance>
void near_background(const HardPatchArgs& a, int64_t at, int64_t count, int32_t* cls) {
  const Distance* d = static_cast<const Distance*>(a.distance) + at;
  const Distance limit = static_cast<Distance>(a.max_distance);
  for (int64_t i = 0; i < count; ++i) cls[i] = cls[i] == 0 && !(d[i] < limit) ? -1 : cls[i];
}

// The class each of `count` voxels stands for as a candidate, -1 where it is none.
template <typename Value>
void candidate_classes(const HardPatchArgs& a, int64_t at, int64_t count, int32_t* cls) {
  const Value* u = static_cast<const Value*>(a.uncertainty) + at;
  const Value* noisy = static_cast<const Value*>(a.noisy) + at;
  for (int64_t i = 0; i < count; ++i) cls[i] = noisy[i] <= u[i];
  switch (a.label.dtype) {
    case DType::u8: hard_labels<uint8_t>(a, at, count, cls); break;
    case DType::i8: hard_labels<int8_t>(a, at, count, cls); break;
    case DType::i16: hard_labels<int16_t>(a, at, count, cls); break;
    case DType::i32: hard_labels<int32_t>(a, at, count, cls); break;
    default: hard_labels<int64_t>(a, at, count, cls);
  }
  a.distance_dtype == DType::f64 ? near_background<double>(a, at, count, cls)
                                 : near_background<float>(a, at, count, cls);
}

// Calls visit(voxel, count, key, cls) for runs of voxels in rows [first, last) of an image where a patch fits inside.
template <typename Value, typename Visit>
void each_run(const HardPatchArgs& a, int64_t image, int64_t first, int64_t last, const Visit& visit) {
  const int64_t D = a.size[1], H = a.size[2], W = a.size[3];
  const int64_t margin_d = a.patch[0] / 2, margin_h = a.patch[1] / 2, margin_w = a.patch[2] / 2;
  const uint64_t start = random_row(static_cast<uint64_t>(*a.seed), image);
  alignas(64) uint64_t key[kBlock];
  alignas(64) int32_t cls[kBlock];
  for (int64_t row = first; row < last; ++row) {
    const int64_t d = row / H, h = row % H;
    if (d < margin_d || d >= D - margin_d || h < margin_h || h >= H - margin_h) continue;
    for (int64_t w = margin_w; w < W - margin_w; w += kBlock) {
      const int64_t count = W - margin_w - w < kBlock ? W - margin_w - w : kBlock;
      const int64_t voxel = row * W + w;
#pragma omp simd
      for (int64_t i = 0; i < kBlock; ++i) key[i] = random_bits(start, voxel + i);
      candidate_classes<Value>(a, image * D * H * W + voxel, count, cls);
      visit(voxel, count, key, cls);
    }
  }
}

template <typename Value>
void fill_lists(const HardPatchArgs& a, const Scratch& s) {
  const int64_t slabs = hard_patch_slabs(a), rows = a.size[1] * a.size[2];
  parallel_tasks(a.size[0] * slabs, a.threads, [&](int64_t task) {
    List* lists = s.lists + task * (a.num_classes + 1);
    uint64_t* floors = s.floors + task * (a.num_classes + 2) + 1;  // by class; that of class -1 lets nothing through
    floors[-1] = UINT64_MAX;
    for (int64_t c = 0; c <= a.num_classes; ++c) floors[c] = static_cast<uint64_t>(lists[c].kept = 0);
    const int64_t image = task / slabs, slab = task % slabs;
    each_run<Value>(a, image, rows * slab / slabs, rows * (slab + 1) / slabs,
                    [&](int64_t voxel, int64_t count, const uint64_t* key, const int32_t* cls) {
                      for (int64_t i = 0; i < count; ++i) {
                        if (key[i] >= floors[a.num_classes]) {
                          offer(lists[a.num_classes], {key[i], voxel + i});
                          floors[a.num_classes] = floor_of(lists[a.num_classes]);
                        }
                        if (key[i] >= floors[cls[i]]) {
                          offer(lists[cls[i]], {key[i], voxel + i});
                          floors[cls[i]] = floor_of(lists[cls[i]]);
                        }
                      }
                    });
  });
}

struct Coordinates {
  int64_t along[3];  // D, H, W
};

SURE_FAST_INLINE Coordinates coordinates_of(const HardPatchArgs& a, int64_t voxel) {
  return {{voxel / (a.size[2] * a.size[3]), voxel / a.size[3] % a.size[2], voxel % a.size[3]}};
}

// Whether a patch at `voxel` overlaps none of those drawn.
bool is_free(const HardPatchArgs& a, int64_t voxel, const int64_t* drawn, const uint8_t* valid, int64_t slots) {
  const Coordinates x = coordinates_of(a, voxel);
  for (int64_t s = 0; s < slots; ++s) {
    if (!valid[s]) continue;
    const Coordinates y = coordinates_of(a, drawn[s]);
    bool overlaps = true;
    for (int k = 0; k < 3; ++k) {
      const int64_t difference = x.along[k] - y.along[k];
      overlaps = overlaps && difference < a.patch[k] && -difference < a.patch[k];
    }
    if (overlaps) return false;
  }
  return true;
}

// The free candidate of the largest key: from the list or, past its end, by searching the image. -1: there is none.
template <typename Value>
int64_t draw(const HardPatchArgs& a, int64_t image, int64_t c, const List& list, int64_t& next, const int64_t* drawn,
             const uint8_t* valid, int64_t slots) {
  for (; next < list.kept; ++next) {
    if (is_free(a, list.items[next].voxel, drawn, valid, slots)) return list.items[next++].voxel;
  }
  if (list.kept < kKept) return -1;
  Candidate best = {0, -1};
  each_run<Value>(a, image, 0, a.size[1] * a.size[2],
                  [&](int64_t voxel, int64_t count, const uint64_t* key, const int32_t* cls) {
                    for (int64_t i = 0; i < count; ++i) {
                      const Candidate x = {key[i], voxel + i};
                      if ((c < a.num_classes && cls[i] != c) || (best.voxel >= 0 && !before(x, best))) continue;
                      if (is_free(a, x.voxel, drawn, valid, slots)) best = x;
                    }
                  });
  return best.voxel;
}

template <typename Value>
void draw_image(const HardPatchArgs& a, const Scratch& s, int64_t image, int64_t* centers, uint8_t* valid) {
  const int64_t slabs = hard_patch_slabs(a), slots = a.num_classes * a.num_patches;
  List* lists = s.lists + image * slabs * (a.num_classes + 1);
  for (int64_t slab = 1; slab < slabs; ++slab) {  // merged into those of the first slab
    for (int64_t c = 0; c <= a.num_classes; ++c) {
      const List& more = lists[slab * (a.num_classes + 1) + c];
      for (int64_t i = 0; i < more.kept; ++i) offer(lists[c], more.items[i]);
    }
  }
  int64_t* drawn = centers;  // voxels first, their indices in the end: dims >= 1 numbers a slot are there
  for (int64_t slot = 0; slot < slots; ++slot) valid[slot] = 0;
  for (int64_t c = 0; c <= a.num_classes; ++c) sort_list(lists[c]);
  for (int64_t c = 0; c < a.num_classes; ++c) {
    int64_t next = 0;
    for (int64_t k = 0; k < a.num_patches; ++k) {
      const int64_t slot = c * a.num_patches + k;
      const int64_t voxel = draw<Value>(a, image, c, lists[c], next, drawn, valid, slots);
      if (voxel < 0) break;
      drawn[slot] = voxel;
      valid[slot] = 1;
    }
  }
  int64_t next = 0;
  for (int64_t slot = 0; slot < slots; ++slot) {
    if (valid[slot]) continue;
    const int64_t voxel = draw<Value>(a, image, a.num_classes, lists[a.num_classes], next, drawn, valid, slots);
    if (voxel < 0) break;
    drawn[slot] = voxel;
    valid[slot] = 1;
  }
  for (int64_t slot = slots - 1; slot >= 0; --slot) {
    const Coordinates center = valid[slot] ? coordinates_of(a, drawn[slot]) : Coordinates{{0, 0, 0}};
    for (int k = 0; k < a.dims; ++k) centers[slot * a.dims + k] = center.along[3 - a.dims + k];
  }
}

template <typename Value>
void run(const HardPatchArgs& a, void* workspace, int64_t* centers, uint8_t* valid) {
  Arena arena(workspace);
  const Scratch s(a, arena);
  const int64_t slots = a.num_classes * a.num_patches;
  fill_lists<Value>(a, s);
  parallel_tasks(a.size[0], a.threads, [&](int64_t image) {
    draw_image<Value>(a, s, image, centers + image * slots * a.dims, valid + image * slots);
  });
}

}  // namespace

int64_t sample_hard_patches_workspace(const HardPatchArgs& a) {
  Arena arena(nullptr);
  Scratch(a, arena);
  return arena.used();
}

void sample_hard_patches_forward(const HardPatchArgs& a, void* workspace, int64_t* centers, uint8_t* valid) {
  a.dtype == DType::f64 ? run<double>(a, workspace, centers, valid) : run<float>(a, workspace, centers, valid);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
