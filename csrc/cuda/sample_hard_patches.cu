// Draws non-overlapping patch centers among the hard voxels (u_noisy <= u) of every class, class 0 near the boundary,
// from maps [N, D, H, W]. Every voxel has a random key, splitmix64 of (seed, image, voxel), 53 bits; the free candidate
// of the largest key is a uniform draw among the free ones. One pass writes the class of each candidate as a byte and
// counts them; where there are many, a second one lists those whose key is so large that about kWanted remain: a thread
// a voxel. One block an image sorts the lists and walks down, past what overlaps. A list that runs out is followed by a
// search of the image, so the result never depends on kWanted, and is the CPU's. Integers only: exact.
// Bytes per voxel: u, u_noisy, label and distance once, a byte twice. Bound by memory, then by the draws, which wait
// for each other.
#include "cuda/sample_hard_patches.h"

#include "cuda/block.h"
#include "cuda/labels.h"
#include "math/patch_table.h"
#include "math/random.h"

namespace sure_fast {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunk = 8192;  // voxels of an image that a block looks at
constexpr int kWanted = 128;
constexpr int kListed = 512;  // room in a list
constexpr uint8_t kNoClass = kMostCudaClasses + 1;

struct Candidate {
  unsigned long long key;
  long long voxel;  // -1: none
};

// The one that is drawn first: the larger key or, with the same one, the earlier voxel.
SURE_FAST_DEVICE Candidate operator+(const Candidate& x, const Candidate& y) {
  if (x.voxel < 0 || y.voxel < 0) return x.voxel < 0 ? y : x;
  return x.key > y.key || (x.key == y.key && x.voxel < y.voxel) ? x : y;
}

struct Lists {
  uint8_t* classes;          // [N, V]
  unsigned* number;          // candidates of each class, and voxels where a patch fits: [N, C + 1]
  unsigned* listed;          // [N, C + 1]
  unsigned long long* keys;  // [N, C + 1, kListed]
  uint32_t* voxels;          // the same
  uint32_t* drawn;           // [N, slots]
  int64_t *cells, *centers;  // of what is drawn [N, room]
  int64_t room;

  Lists(const HardPatchArgs& a, Arena& arena) {
    const int64_t lists = a.size[0] * (a.num_classes + 1);
    classes = arena.take<uint8_t>(a.size[0] * a.size[1] * a.size[2] * a.size[3]);
    number = arena.take<unsigned>(lists);
    listed = arena.take<unsigned>(lists);
    keys = arena.take<unsigned long long>(lists * kListed);
    voxels = arena.take<uint32_t>(lists * kListed);
    drawn = arena.take<uint32_t>(a.size[0] * a.num_classes * a.num_patches);
    room = patch_table_room(a.num_classes * a.num_patches);
    cells = arena.take<int64_t>(a.size[0] * room);
    centers = arena.take<int64_t>(a.size[0] * room);
  }
};

struct Coordinates {
  int along[3];  // D, H, W
};

SURE_FAST_DEVICE Coordinates coordinates_of(const HardPatchArgs& a, uint32_t voxel) {
  const uint32_t H = static_cast<uint32_t>(a.size[2]), W = static_cast<uint32_t>(a.size[3]), row = voxel / W;
  return {{static_cast<int>(row / H), static_cast<int>(row % H), static_cast<int>(voxel % W)}};
}

// Whether a patch around the voxel lies inside the image.
SURE_FAST_DEVICE bool fits(const HardPatchArgs& a, uint32_t voxel) {
  const Coordinates x = coordinates_of(a, voxel);
  bool inside = true;
  for (int k = 0; k < 3; ++k)
    inside = inside && x.along[k] >= a.patch[k] / 2 && x.along[k] < a.size[k + 1] - a.patch[k] / 2;
  return inside;
}

// Keys below it are not listed; 0 where all of `number` candidates are.
SURE_FAST_DEVICE unsigned long long lowest_listed(unsigned number) {
  if (number <= kWanted) return 0;
  return static_cast<unsigned long long>((1.0 - kWanted / static_cast<double>(number)) * 0x1p53);
}

__global__ void clear_lists(unsigned* number, unsigned* listed, int64_t lists) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < lists; i += step) {
    number[i] = listed[i] = 0;
  }
}

// The class each voxel stands for as a candidate, and how many there are of each.
template <typename Value, typename Distance>
__global__ void __launch_bounds__(kThreads, 4) classify(HardPatchArgs a, Lists lists, uint32_t chunks) {
  SURE_FAST_SHARED(number, unsigned[256]);
  number[threadIdx.x] = 0;
  __syncthreads();
  const int64_t image = blockIdx.x / chunks, volume = a.size[1] * a.size[2] * a.size[3];
  const int64_t begin = blockIdx.x % chunks * kChunk, end = begin + kChunk < volume ? begin + kChunk : volume;
  const Distance limit = static_cast<Distance>(a.max_distance);
  for (int64_t v = begin + threadIdx.x; v < end; v += kThreads) {
    const int64_t i = image * volume + v;
    uint8_t cls = kNoClass;
    if (fits(a, static_cast<uint32_t>(v))) {
      atomicAdd(&number[kNoClass], 1u);
      const bool hard = static_cast<const Value*>(a.noisy)[i] <= static_cast<const Value*>(a.uncertainty)[i];
      const int64_t label = hard ? label_at(a.label, i) : -1;
      const bool counts =
          label >= 0 && label < a.num_classes && (label != 0 || static_cast<const Distance*>(a.distance)[i] < limit);
      cls = counts ? static_cast<uint8_t>(label) : kNoClass;
      if (counts) atomicAdd(&number[cls], 1u);
    }
    lists.classes[i] = cls;
  }
  __syncthreads();
  const int64_t list = threadIdx.x == kNoClass ? a.num_classes : threadIdx.x;
  if ((threadIdx.x < a.num_classes || threadIdx.x == kNoClass) && number[threadIdx.x] > 0) {
    atomicAdd(&lists.number[image * (a.num_classes + 1) + list], number[threadIdx.x]);
  }
}

SURE_FAST_DEVICE void enter(const Lists& lists, int64_t list, unsigned long long key, uint32_t voxel) {
  const unsigned at = atomicAdd(&lists.listed[list], 1u);
  if (at >= kListed) return;  // the draw sees that the list is not whole
  lists.keys[list * kListed + at] = key;
  lists.voxels[list * kListed + at] = voxel;
}

__global__ void __launch_bounds__(kThreads, 4) list_candidates(HardPatchArgs a, Lists lists, uint32_t chunks) {
  SURE_FAST_SHARED(lowest, unsigned long long[256]);
  const int64_t image = blockIdx.x / chunks, volume = a.size[1] * a.size[2] * a.size[3];
  const int64_t first_list = image * (a.num_classes + 1);
  if (threadIdx.x <= a.num_classes) lowest[threadIdx.x] = lowest_listed(lists.number[first_list + threadIdx.x]);
  __syncthreads();
  const int64_t begin = blockIdx.x % chunks * kChunk, end = begin + kChunk < volume ? begin + kChunk : volume;
  const uint64_t start = random_row(static_cast<uint64_t>(*a.seed), image);
  for (int64_t v = begin + threadIdx.x; v < end; v += kThreads) {
    const uint32_t voxel = static_cast<uint32_t>(v);
    const unsigned long long key = random_bits(start, v);
    const uint8_t cls = lists.classes[image * volume + v];
    if (cls != kNoClass && key >= lowest[cls]) enter(lists, first_list + cls, key, voxel);
    if (key >= lowest[a.num_classes] && fits(a, voxel)) enter(lists, first_list + a.num_classes, key, voxel);
  }
}

struct DrawShared {
  unsigned long long key[kListed];
  uint32_t voxel[kListed], sorted[kListed];
  int first;
};

// What the draws of an image share; a block draws one image.
struct Draws {
  int64_t image, slots, volume;
  uint64_t start;          // of the image's random keys
  const uint8_t* classes;  // [V]
  uint32_t* drawn;         // [slots]
  uint8_t* valid;          // [slots]
  PatchTable table;        // of what is drawn
};

SURE_FAST_DEVICE Draws draws_of(const HardPatchArgs& a, const Lists& lists, uint8_t* valid, int64_t image) {
  const int64_t slots = a.num_classes * a.num_patches, volume = a.size[1] * a.size[2] * a.size[3];
  return {image,
          slots,
          volume,
          random_row(static_cast<uint64_t>(*a.seed), image),
          lists.classes + image * volume,
          lists.drawn + image * slots,
          valid + image * slots,
          {lists.cells + image * lists.room,
           lists.centers + image * lists.room,
           lists.room,
           {a.size[1], a.size[2], a.size[3]},
           {a.patch[0], a.patch[1], a.patch[2]}}};
}

// Brings a list into the order of drawing, in shared.sorted. The whole block takes part, as in all that follows.
SURE_FAST_DEVICE void sort_list(const Lists& lists, int64_t list, int length, DrawShared& shared) {
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();
  for (int i = t; i < length; i += kThreads) {
    shared.key[i] = lists.keys[list * kListed + i];
    shared.voxel[i] = lists.voxels[list * kListed + i];
  }
  __syncthreads();
  for (int i = t; i < length; i += kThreads) {
    int rank = 0;
    for (int j = 0; j < length; ++j) {
      rank += shared.key[j] > shared.key[i] || (shared.key[j] == shared.key[i] && shared.voxel[j] < shared.voxel[i]);
    }
    shared.sorted[rank] = shared.voxel[i];
  }
  __syncthreads();
}

// The next voxel of the sorted list, from `next` on, whose patch is free, -1 where none is; `next` is then behind it.
SURE_FAST_DEVICE long long next_listed(const Draws& draws, int length, int& next, DrawShared& shared) {
  const int t = static_cast<int>(threadIdx.x);
  long long voxel = -1;
  while (next < length && voxel < 0) {
    if (t == 0) shared.first = length;
    __syncthreads();
    const int i = next + t;
    if (i < length && is_free(draws.table, shared.sorted[i])) atomicMin(&shared.first, i);
    __syncthreads();
    if (shared.first < length) {
      voxel = shared.sorted[shared.first];
      next = shared.first + 1;
    } else {
      next += kThreads;
    }
    __syncthreads();
  }
  return voxel;
}

// The free candidate of class c, or with c = num_classes any voxel, that all of the image draws first; -1: none.
SURE_FAST_DEVICE long long search_image(const HardPatchArgs& a, const Draws& draws, int64_t c, Candidate* best) {
  Candidate own = {0, -1};
  for (int64_t v = threadIdx.x; v < draws.volume; v += kThreads) {
    const Candidate x = {random_bits(draws.start, v), static_cast<long long>(v)};
    if (own.voxel >= 0 && (own + x).voxel == own.voxel) continue;
    const uint32_t voxel = static_cast<uint32_t>(v);
    const bool counts = c == a.num_classes ? fits(a, voxel) : draws.classes[v] == c;
    if (counts && is_free(draws.table, v)) own = x;
  }
  return block_sum<kThreads>(own, best).voxel;
}

SURE_FAST_DEVICE void write_centers(const HardPatchArgs& a, const Draws& draws, int64_t* centers) {
  for (int64_t s = threadIdx.x; s < draws.slots; s += kThreads) {
    const Coordinates x = draws.valid[s] ? coordinates_of(a, draws.drawn[s]) : Coordinates{{0, 0, 0}};
    int64_t* center = centers + (draws.image * draws.slots + s) * a.dims;
    if (a.dims == 3) *center++ = x.along[0];
    center[0] = x.along[1];
    center[1] = x.along[2];
  }
}

// An image: for each class its draws, then the slots that are left.
__global__ void __launch_bounds__(kThreads, 4)
    draw_patches(HardPatchArgs a, Lists lists, int64_t* centers, uint8_t* valid) {
  SURE_FAST_SHARED(shared, DrawShared);
  SURE_FAST_SHARED(best, Candidate[kThreads]);
  const Draws draws = draws_of(a, lists, valid, blockIdx.x);
  for (int64_t s = threadIdx.x; s < draws.slots; s += kThreads) draws.valid[s] = 0;
  for (int64_t i = threadIdx.x; i < draws.table.room; i += kThreads) draws.table.cells[i] = 0;
  for (int64_t c = 0; c <= a.num_classes; ++c) {
    const int64_t list = draws.image * (a.num_classes + 1) + c;
    const bool overflow = lists.listed[list] > kListed;
    const int length = overflow ? 0 : static_cast<int>(lists.listed[list]);
    const bool whole = !overflow && lowest_listed(lists.number[list]) == 0;
    sort_list(lists, list, length, shared);
    int next = 0;
    const bool filling = c == a.num_classes;
    const int64_t last = filling ? draws.slots : (c + 1) * a.num_patches;
    for (int64_t slot = filling ? 0 : c * a.num_patches; slot < last; ++slot) {
      if (filling && draws.valid[slot]) continue;
      long long voxel = next_listed(draws, length, next, shared);
      if (voxel < 0 && !whole) voxel = search_image(a, draws, c, best);
      if (voxel < 0) break;
      __syncthreads();
      if (threadIdx.x == 0) {
        draws.drawn[slot] = static_cast<uint32_t>(voxel);
        draws.valid[slot] = 1;
        insert_patch(draws.table, voxel);
      }
      __syncthreads();
    }
  }
  write_centers(a, draws, centers);
}

}  // namespace

int64_t sample_hard_patches_workspace(const HardPatchArgs& a, const Stream&) {
  Arena arena(nullptr);
  Lists(a, arena);
  return arena.used();
}

void sample_hard_patches_forward(const HardPatchArgs& a, const Stream& stream, void* workspace, int64_t* centers,
                                 uint8_t* valid) {
  Arena arena(workspace);
  const Lists lists(a, arena);
  const int64_t chunks = ceil_div<int64_t>(a.size[1] * a.size[2] * a.size[3], kChunk);
  const int64_t number = a.size[0] * (a.num_classes + 1);
  const auto classes = a.dtype == DType::f64
                           ? (a.distance_dtype == DType::f64 ? classify<double, double> : classify<double, float>)
                           : (a.distance_dtype == DType::f64 ? classify<float, double> : classify<float, float>);
  launch(stream, "clear_lists", fill(stream, ceil_div<int64_t>(number, kThreads)), kThreads, clear_lists, lists.number,
         lists.listed, number);
  launch(stream, "classify", a.size[0] * chunks, kThreads, classes, a, lists, chunks);
  launch(stream, "list_candidates", a.size[0] * chunks, kThreads, list_candidates, a, lists, chunks);
  launch(stream, "draw_patches", a.size[0], kThreads, draw_patches, a, lists, centers, valid);
}

}  // namespace sure_fast
