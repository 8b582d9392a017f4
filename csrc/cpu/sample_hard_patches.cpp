// Draws non-overlapping patch centers among the hard voxels (u_noisy <= u) of every class, class 0 near the boundary,
// from maps [N, D, H, W]. Every voxel has a random key, splitmix64 of (seed, image, voxel), 53 bits; the free candidate
// of the largest key is a uniform draw among the free ones. One pass keeps the largest keys of each class and of
// all voxels; the draws walk down these lists, past what overlaps. A full list that runs out is filled again from the
// candidates that are still free, as many as there are slots, so the result never depends on the room in a list.
// Parallel over slabs of an image; the largest keys do not depend on how it is cut. Integers only: exact.
// Bytes per voxel: the label; of u, u_noisy and distance what belongs to keys that are large enough. Bound by the keys:
// three 64-bit multiplications a voxel.
#include "cpu/sample_hard_patches.h"

#include "math/patch_table.h"
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

// The first `room` of all candidates seen; when it is full, a heap whose root is the last of them.
struct List {
  int64_t kept, room;
  Candidate* items;
};

// Smaller keys need not be offered to the list.
SURE_FAST_INLINE uint64_t floor_of(const List& list) { return list.kept < list.room ? 0 : list.items[0].key; }

void sift_down(Candidate* items, int64_t at, int64_t size) {
  const Candidate x = items[at];
  for (int64_t child = 2 * at + 1; child < size; child = 2 * at + 1) {
    if (child + 1 < size && before(items[child], items[child + 1])) ++child;
    if (!before(x, items[child])) break;
    items[at] = items[child];
    at = child;
  }
  items[at] = x;
}

void make_heap(List& list) {
  for (int64_t i = list.kept / 2 - 1; i >= 0; --i) sift_down(list.items, i, list.kept);
}

void offer(List& list, const Candidate& x) {
  if (list.kept == list.room) {
    if (!before(x, list.items[0])) return;
    list.items[0] = x;
    sift_down(list.items, 0, list.kept);
    return;
  }
  list.items[list.kept++] = x;
  if (list.kept == list.room) make_heap(list);
}

// Into the order of drawing.
void sort_list(List& list) {
  if (list.kept < list.room) make_heap(list);
  for (int64_t size = list.kept - 1; size > 0; --size) {
    const Candidate last = list.items[0];
    list.items[0] = list.items[size];
    list.items[size] = last;
    sift_down(list.items, 0, size);
  }
}

struct Scratch {
  List* lists;             // [N, slabs, C + 1], the last of them of all voxels
  Candidate* items;        // [N, slabs, C + 1, kept]
  uint64_t* floors;        // [N, slabs, C + 2]
  Candidate* refills;      // [N, refill_room]
  int64_t *cells, *drawn;  // [N, patch_table_room]
  int64_t kept, room, refill_room;

  Scratch(const HardPatchArgs& a, Arena& arena) {
    const int64_t slabs = a.size[0] * hard_patch_slabs(a), slots = a.num_classes * a.num_patches;
    room = patch_table_room(slots);
    kept = hard_patches_kept(a);
    refill_room = slots > kept ? slots : kept;
    lists = arena.take<List>(slabs * (a.num_classes + 1));
    items = arena.take<Candidate>(slabs * (a.num_classes + 1) * kept);
    floors = arena.take<uint64_t>(slabs * (a.num_classes + 2));
    refills = arena.take<Candidate>(a.size[0] * refill_room);
    cells = arena.take<int64_t>(a.size[0] * room);
    drawn = arena.take<int64_t>(a.size[0] * room);
  }
};

// The class whose list a voxel may enter by its label, -1: none.
template <typename Label>
void classes_of(const HardPatchArgs& a, int64_t at, int64_t count, int32_t* cls) {
  const Label* label = static_cast<const Label*>(a.label.data) + at;
  const uint64_t classes = static_cast<uint64_t>(a.num_classes);
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const int64_t y = static_cast<int64_t>(label[i]);
    cls[i] = static_cast<uint64_t>(y) < classes ? static_cast<int32_t>(y) : -1;
  }
}

// Whether a voxel of class c is a candidate: hard and, where it is background, near the boundary.
template <typename Value>
bool is_candidate(const HardPatchArgs& a, int64_t at, int32_t c) {
  const Value u = static_cast<const Value*>(a.uncertainty)[at], noisy = static_cast<const Value*>(a.noisy)[at];
  if (!(noisy <= u)) return false;
  if (c != 0) return true;
  return a.distance_dtype == DType::f64
             ? static_cast<const double*>(a.distance)[at] < a.max_distance
             : static_cast<const float*>(a.distance)[at] < static_cast<float>(a.max_distance);
}

// Calls visit(voxel, count, key, cls) for runs of voxels in rows [first, last) of an image where a patch fits inside.
template <typename Visit>
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
      const int64_t voxel = row * W + w, at = image * D * H * W + voxel;
#pragma omp simd
      for (int64_t i = 0; i < kBlock; ++i) key[i] = random_bits(start, voxel + i);
      switch (a.label.dtype) {
        case DType::u8: classes_of<uint8_t>(a, at, count, cls); break;
        case DType::i8: classes_of<int8_t>(a, at, count, cls); break;
        case DType::i16: classes_of<int16_t>(a, at, count, cls); break;
        case DType::i32: classes_of<int32_t>(a, at, count, cls); break;
        default: classes_of<int64_t>(a, at, count, cls);
      }
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
    for (int64_t c = 0; c <= a.num_classes; ++c) {
      floors[c] = 0;
      lists[c] = {0, s.kept, s.items + (task * (a.num_classes + 1) + c) * s.kept};
    }
    const int64_t image = task / slabs, slab = task % slabs, base = image * rows * a.size[3];
    each_run(a, image, rows * slab / slabs, rows * (slab + 1) / slabs,
             [&](int64_t voxel, int64_t count, const uint64_t* key, const int32_t* cls) {
               for (int64_t i = 0; i < count; ++i) {
                 const int32_t c = cls[i];
                 // Few keys are above a floor, so that the maps are hardly read.
                 if (key[i] >= floors[a.num_classes]) {
                   offer(lists[a.num_classes], {key[i], voxel + i});
                   floors[a.num_classes] = floor_of(lists[a.num_classes]);
                 }
                 if (key[i] >= floors[c] && is_candidate<Value>(a, base + voxel + i, c)) {
                   offer(lists[c], {key[i], voxel + i});
                   floors[c] = floor_of(lists[c]);
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

// The list's candidates that are still free, in the order of drawing; room for more than the one it had.
template <typename Value>
void refill(const HardPatchArgs& a, int64_t image, int64_t c, const PatchTable& drawn, List& list) {
  const int64_t rows = a.size[1] * a.size[2], base = image * rows * a.size[3];
  list.kept = 0;
  each_run(a, image, 0, rows, [&](int64_t voxel, int64_t count, const uint64_t* key, const int32_t* cls) {
    for (int64_t i = 0; i < count; ++i) {
      if ((c < a.num_classes && cls[i] != c) || key[i] < floor_of(list)) continue;
      if (c < a.num_classes && !is_candidate<Value>(a, base + voxel + i, cls[i])) continue;
      if (is_free(drawn, voxel + i)) offer(list, {key[i], voxel + i});
    }
  });
  sort_list(list);
}

// The draws of one class, or of all voxels: the free candidates one after the other.
template <typename Value>
struct Walk {
  const HardPatchArgs& a;
  int64_t image, c;
  List list, more;  // the list, and what it is filled again with
  int64_t next = 0;

  // The free candidate of the largest key, -1: there is none.
  int64_t draw(const PatchTable& drawn) {
    for (;;) {
      for (; next < list.kept; ++next) {
        if (is_free(drawn, list.items[next].voxel)) return list.items[next++].voxel;
      }
      if (list.kept < list.room) return -1;
      list = more;
      next = 0;
      refill<Value>(a, image, c, drawn, list);
      if (list.kept == 0) return -1;
    }
  }
};

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
  const PatchTable drawn{s.cells + image * s.room,
                         s.drawn + image * s.room,
                         s.room,
                         {a.size[1], a.size[2], a.size[3]},
                         {a.patch[0], a.patch[1], a.patch[2]}};
  memset(drawn.cells, 0, sizeof(int64_t) * static_cast<size_t>(s.room));
  for (int64_t slot = 0; slot < slots; ++slot) valid[slot] = 0;
  for (int64_t c = 0; c <= a.num_classes; ++c) {  // the last round fills the slots that are left
    sort_list(lists[c]);
    Walk<Value> walk{a, image, c, lists[c], {0, s.refill_room, s.refills + image * s.refill_room}};
    const bool filling = c == a.num_classes;
    const int64_t last = filling ? slots : (c + 1) * a.num_patches;
    for (int64_t slot = filling ? 0 : c * a.num_patches; slot < last; ++slot) {
      if (valid[slot]) continue;
      const int64_t voxel = walk.draw(drawn);
      if (voxel < 0) break;
      insert_patch(drawn, voxel);
      const Coordinates center = coordinates_of(a, voxel);
      for (int k = 0; k < a.dims; ++k) centers[slot * a.dims + k] = center.along[3 - a.dims + k];
      valid[slot] = 1;
    }
  }
  for (int64_t slot = 0; slot < slots; ++slot) {
    for (int k = 0; k < a.dims && !valid[slot]; ++k) centers[slot * a.dims + k] = 0;
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
