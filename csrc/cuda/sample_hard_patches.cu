// Draws non-overlapping patch centers among the hard voxels (u_noisy <= u) of every class, class 0 near the boundary.
// Every voxel has a random key, splitmix64 of (seed, image, voxel); the free candidate of the largest key is a uniform
// draw among the free ones. One pass writes the class of each candidate as a byte and counts them; where there are
// many, a second one lists those whose key is so large that about kWanted remain. One block an image sorts the lists
// and walks down, past what overlaps. A list that runs out is followed by a search of the image, so the result never
// depends on kWanted, and is the CPU's. Bytes per voxel: u, u_noisy, label and distance once, a byte twice.
#include "cuda/sample_hard_patches.h"

#include "cuda/block.h"
#include "cuda/labels.h"
#include "math/random.h"

namespace sure_fast {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunk = 8192;  // voxels of an image that a block looks at
constexpr int kWanted = 128;
constexpr int kListed = 512;  // room in a list
constexpr uint8_t kNoClass = 255;

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

  Lists(const HardPatchArgs& a, Arena& arena) {
    const int64_t lists = a.size[0] * (a.num_classes + 1);
    classes = arena.take<uint8_t>(a.size[0] * a.size[1] * a.size[2] * a.size[3]);
    number = arena.take<unsigned>(lists);
    listed = arena.take<unsigned>(lists);
    keys = arena.take<unsigned long long>(lists * kListed);
    voxels = arena.take<uint32_t>(lists * kListed);
    drawn = arena.take<uint32_t>(a.size[0] * a.num_classes * a.num_patches);
  }
};

// Place of a voxel along D, H, W.
struct Place {
  int at[3];
};

SURE_FAST_DEVICE Place place_of(const HardPatchArgs& a, uint32_t voxel) {
  const uint32_t H = static_cast<uint32_t>(a.size[2]), W = static_cast<uint32_t>(a.size[3]), row = voxel / W;
  return {{static_cast<int>(row / H), static_cast<int>(row % H), static_cast<int>(voxel % W)}};
}

// Whether a patch around the voxel lies inside the image.
SURE_FAST_DEVICE bool fits(const HardPatchArgs& a, uint32_t voxel) {
  const Place x = place_of(a, voxel);
  bool inside = true;
  for (int k = 0; k < 3; ++k) inside = inside && x.at[k] >= a.patch[k] / 2 && x.at[k] < a.size[k + 1] - a.patch[k] / 2;
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
  __shared__ unsigned number[256];
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
  __shared__ unsigned long long lowest[256];
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

// Whether a patch at `voxel` overlaps none of those drawn.
SURE_FAST_DEVICE bool is_free(const HardPatchArgs& a, uint32_t voxel, const uint32_t* drawn, const uint8_t* valid,
                              int64_t slots) {
  const Place x = place_of(a, voxel);
  for (int64_t s = 0; s < slots; ++s) {
    if (!valid[s]) continue;
    const Place y = place_of(a, drawn[s]);
    bool overlaps = true;
    for (int k = 0; k < 3; ++k) {
      const int apart = x.at[k] - y.at[k];
      overlaps = overlaps && apart < a.patch[k] && -apart < a.patch[k];
    }
    if (overlaps) return false;
  }
  return true;
}

struct DrawShared {
  unsigned long long key[kListed];
  uint32_t voxel[kListed], sorted[kListed];
  int first;
};

// An image: for each class its draws, then the slots that are left. The whole block takes every step together.
__global__ void __launch_bounds__(kThreads, 4)
    draw_patches(HardPatchArgs a, Lists lists, int64_t* all_centers, uint8_t* all_valid) {
  __shared__ DrawShared shared;
  __shared__ Candidate best[kThreads];
  const int t = static_cast<int>(threadIdx.x);
  const int64_t image = blockIdx.x, slots = a.num_classes * a.num_patches;
  const int64_t volume = a.size[1] * a.size[2] * a.size[3];
  const uint64_t start = random_row(static_cast<uint64_t>(*a.seed), image);
  const uint8_t* classes = lists.classes + image * volume;
  uint32_t* drawn = lists.drawn + image * slots;
  uint8_t* valid = all_valid + image * slots;
  for (int64_t s = t; s < slots; s += kThreads) valid[s] = 0;
  for (int64_t c = 0; c <= a.num_classes; ++c) {
    const int64_t list = image * (a.num_classes + 1) + c;
    const bool overflow = lists.listed[list] > kListed;
    const int length = overflow ? 0 : static_cast<int>(lists.listed[list]);
    const bool whole = !overflow && lowest_listed(lists.number[list]) == 0;
    __syncthreads();
    for (int i = t; i < length; i += kThreads) {
      shared.key[i] = lists.keys[list * kListed + i];
      shared.voxel[i] = lists.voxels[list * kListed + i];
    }
    __syncthreads();
    for (int i = t; i < length; i += kThreads) {  // into the order of drawing
      int rank = 0;
      for (int j = 0; j < length; ++j) {
        rank += shared.key[j] > shared.key[i] || (shared.key[j] == shared.key[i] && shared.voxel[j] < shared.voxel[i]);
      }
      shared.sorted[rank] = shared.voxel[i];
    }
    __syncthreads();
    int next = 0;
    const bool filling = c == a.num_classes;
    const int64_t last = filling ? slots : (c + 1) * a.num_patches;
    for (int64_t slot = filling ? 0 : c * a.num_patches; slot < last; ++slot) {
      if (filling && valid[slot]) continue;
      long long found = -1;
      while (next < length && found < 0) {
        if (t == 0) shared.first = length;
        __syncthreads();
        const int i = next + t;
        if (i < length && is_free(a, shared.sorted[i], drawn, valid, slots)) atomicMin(&shared.first, i);
        __syncthreads();
        if (shared.first < length) {
          found = shared.sorted[shared.first];
          next = shared.first + 1;
        } else {
          next += kThreads;
        }
        __syncthreads();
      }
      if (found < 0 && !whole) {
        Candidate own = {0, -1};
        for (int64_t v = t; v < volume; v += kThreads) {
          const Candidate x = {random_bits(start, v), static_cast<long long>(v)};
          if (own.voxel >= 0 && (own + x).voxel == own.voxel) continue;
          const uint32_t voxel = static_cast<uint32_t>(v);
          if ((filling ? fits(a, voxel) : classes[v] == c) && is_free(a, voxel, drawn, valid, slots)) own = x;
        }
        found = block_sum<kThreads>(own, best).voxel;
      }
      if (found < 0) break;
      __syncthreads();
      if (t == 0) {
        drawn[slot] = static_cast<uint32_t>(found);
        valid[slot] = 1;
      }
      __syncthreads();
    }
  }
  for (int64_t s = t; s < slots; s += kThreads) {
    const Place place = valid[s] ? place_of(a, drawn[s]) : Place{{0, 0, 0}};
    int64_t* center = all_centers + (image * slots + s) * a.dims;
    if (a.dims == 3) *center++ = place.at[0];
    center[0] = place.at[1];
    center[1] = place.at[2];
  }
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
