// Distances between the surfaces of a class in two label maps [N, D, H, W]: largest, quantile, sum, share in tolerance.
//   A surface voxel of a class has a neighbour across a face that is not of the class; outside of the image nothing is.
//   From each surface voxel of one map: d = min over the surface voxels of the other of |s (i - j)|, s the spacing.
// All classes of all images at once, each within the box that holds it in both maps: surfaces as bits and as a list,
// squared distances along W by a warp a row, along H by a thread a voxel, and along D at the listed voxels only, each
// looking outwards until nothing nearer is possible. These distances are sorted for the order statistics; sums are
// float64 in a fixed order. Bytes per voxel: both labels, 4 as uint16; in a box 33. Bound by the pass along H.
#include "cuda/surface_distances.h"

#include "cuda/compact.h"
#include "cuda/labels.h"
#include "cuda/sort.h"
#include "math/distance.h"

namespace sure_fast {
namespace {

constexpr int kThreads = 256;

__global__ void clear_boxes(int32_t* boxes, int64_t numbers, unsigned long long* bad) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < numbers; i += step) {
    boxes[i] = i % 2 == 0 ? INT32_MAX : -1;
    if (i == 0) *bad = 0;
  }
}

SURE_FAST_DEVICE int64_t class_at(const SurfaceArgs& a, int side, int64_t i) {
  if (a.target.has_ignore && label_at(a.target, i) == a.target.ignore) return 0;
  return label_at(side == 0 ? a.prediction : a.target, i);
}

// A look before the atomic spares most of them: a box only ever grows.
SURE_FAST_DEVICE void widen_box(int32_t* box, int axis, int at) {
  if (at < *static_cast<volatile int32_t*>(box + 2 * axis)) atomicMin(box + 2 * axis, at);
  if (at > *static_cast<volatile int32_t*>(box + 2 * axis + 1)) atomicMax(box + 2 * axis + 1, at);
}

__global__ void __launch_bounds__(kThreads)
    find_boxes(SurfaceArgs a, uint16_t* labels, int32_t* boxes, unsigned long long* bad) {
  const int64_t H = a.size[2], W = a.size[3], volume = a.size[1] * H * W, all = a.size[0] * volume;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t f = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; f < 2 * all; f += step) {
    const int side = f >= all;
    const int64_t i = f - side * all, given = label_at(side == 0 ? a.prediction : a.target, i);
    const bool inside = given >= 0 && given < a.target.classes;
    if (!inside && !(side == 1 && a.target.has_ignore && given == a.target.ignore)) atomicAdd(bad, 1ull);
    const int64_t label = inside ? class_at(a, side, i) : 0;
    labels[f] = static_cast<uint16_t>(label);
    if (label == 0) continue;
    const uint32_t voxel = static_cast<uint32_t>(i % volume), width = static_cast<uint32_t>(W);
    const int w = static_cast<int>(voxel % width), row = static_cast<int>(voxel / width);
    const bool starts = w == 0 || class_at(a, side, i - 1) != label;
    const bool ends = w + 1 == W || class_at(a, side, i + 1) != label;
    if (!starts && !ends) continue;  // inside a run
    int32_t* box = boxes + (i / volume * a.target.classes + label) * kSurfaceBox;
    widen_box(box, 0, row / static_cast<int>(H));
    widen_box(box, 1, row % static_cast<int>(H));
    widen_box(box, 2, w);
  }
}

// Voxel v of all boxes: its task and its coordinates in the box.
struct Spot {
  const SurfaceTask* task;
  int64_t d, h, w;
};

SURE_FAST_DEVICE Spot spot_of(const SurfaceTask* tasks, int64_t number, int64_t v) {
  const SurfaceTask* task = tasks + first_not(1, number, [&](int64_t k) { return tasks[k].voxels_before <= v; }) - 1;
  const uint32_t rest = static_cast<uint32_t>(v - task->voxels_before), W = static_cast<uint32_t>(task->size[2]);
  const uint32_t row = rest / W, H = static_cast<uint32_t>(task->size[1]);
  return {task, row / H, row % H, rest % W};
}

// Of both sides, one after the other.
struct IsSurface {
  SurfaceArgs a;
  const uint16_t* labels;
  const SurfaceTask* tasks;
  int64_t number, voxels;

  SURE_FAST_DEVICE_MEMBER bool operator()(int64_t f) const {
    const int64_t side = f >= voxels;
    const Spot x = spot_of(tasks, number, f - side * voxels);
    const int64_t D = a.size[1], H = a.size[2], W = a.size[3];
    const int64_t d = x.task->first[0] + x.d, h = x.task->first[1] + x.h, w = x.task->first[2] + x.w;
    const uint16_t* at = labels + (((side * a.size[0] + x.task->image) * D + d) * H + h) * W + w;
    const uint16_t c = static_cast<uint16_t>(x.task->cls);
    if (*at != c) return false;
    const bool inside =
        w > 0 && at[-1] == c && w + 1 < W && at[1] == c && h > 0 && at[-W] == c && h + 1 < H && at[W] == c;
    if (!inside || a.planar) return !inside;
    return !(d > 0 && at[-H * W] == c && d + 1 < D && at[H * W] == c);
  }
};

__global__ void find_begins(const SurfaceTask* tasks, int64_t number, int64_t voxels, const uint32_t* list,
                            const uint32_t* length, uint32_t* begins) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; k <= 2 * number; k += step) {
    const int64_t from = k < number ? tasks[k].voxels_before : voxels + tasks[k - number].voxels_before;
    begins[k] = static_cast<uint32_t>(first_not(0, *length, [&](int64_t i) { return list[i] < from; }));
  }
}

// Squared distance of k steps.
SURE_FAST_DEVICE float squared(int64_t k, double step) {
  const double distance = static_cast<double>(k) * step;
  return static_cast<float>(distance * distance);
}

// A warp a row of the boxes of one side after the other: to the nearest surface voxel of the row.
__global__ void __launch_bounds__(kThreads)
    row_distances(const SurfaceTask* tasks, int64_t number, int64_t voxels, int64_t rows, double step,
                  const uint32_t* words, float* out) {
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kThreads / kWarp);
  const int lane = lane_index();
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + warp_index(); r < 2 * rows; r += warps) {
    const int64_t side = r >= rows, row = r - side * rows;
    const SurfaceTask& task = tasks[first_not(1, number, [&](int64_t k) { return tasks[k].rows_before <= row; }) - 1];
    const int64_t W = task.size[2];
    const int64_t base = side * voxels + task.voxels_before + (row - task.rows_before) * W;
    const auto surface = [&](int64_t w) {
      const int64_t f = base + w;
      return w < W && (words[f / kWarp] >> (f % kWarp) & 1u) != 0;
    };
    int64_t last = -1;
    for (int64_t w0 = 0; w0 < W; w0 += kWarp) {  // the nearest before
      const unsigned mask = __ballot_sync(kAllLanes, surface(w0 + lane));
      const unsigned upto = mask & ((2u << lane) - 1u);
      const int64_t near = upto != 0 ? w0 + 31 - __clz(static_cast<int>(upto)) : last;
      if (w0 + lane < W) out[base + w0 + lane] = near < 0 ? INFINITY : squared(w0 + lane - near, step);
      last = mask != 0 ? w0 + 31 - __clz(static_cast<int>(mask)) : last;
    }
    int64_t next = -1;
    for (int64_t w0 = (W - 1) / kWarp * kWarp; w0 >= 0; w0 -= kWarp) {  // and after
      const unsigned mask = __ballot_sync(kAllLanes, surface(w0 + lane));
      const unsigned from = mask & ~((1u << lane) - 1u);
      const int64_t near = from != 0 ? w0 + __ffs(static_cast<int>(from)) - 1 : next;
      if (w0 + lane < W && near >= 0) {
        const float after = squared(near - w0 - lane, step);
        if (after < out[base + w0 + lane]) out[base + w0 + lane] = after;
      }
      next = mask != 0 ? w0 + __ffs(static_cast<int>(mask)) - 1 : next;
    }
  }
}

// min over j of x[(j - i) stride] + ((i - j) step)^2 for i in [0, length).
SURE_FAST_DEVICE float along(const float* x, int64_t stride, int64_t i, int64_t length, double step) {
  float best = x[0];
  for (int64_t k = 1; k <= i || k < length - i; ++k) {
    const float cost = squared(k, step);
    if (!(cost < best)) break;
    const float before = k <= i ? x[-k * stride] + cost : INFINITY;
    const float after = k < length - i ? x[k * stride] + cost : INFINITY;
    best = fminf(best, fminf(before, after));
  }
  return best;
}

__global__ void __launch_bounds__(kThreads) plane_distances(const SurfaceTask* tasks, int64_t number, int64_t voxels,
                                                            double step, const float* rows, float* out) {
  const int64_t grid = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t f = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; f < 2 * voxels; f += grid) {
    const Spot x = spot_of(tasks, number, f >= voxels ? f - voxels : f);
    out[f] = along(rows + f, x.task->size[2], x.h, x.task->size[1], step);
  }
}

// At the surface voxels of one side, to the surface of the other.
__global__ void __launch_bounds__(kThreads)
    listed_distances(const SurfaceTask* tasks, int64_t number, int64_t voxels, double step, const float* planes,
                     const uint32_t* list, const uint32_t* length, float* squared) {
  const int64_t grid = static_cast<int64_t>(gridDim.x) * blockDim.x, n = *length;
  for (int64_t e = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; e < n; e += grid) {
    const int64_t f = list[e], v = f >= voxels ? f - voxels : f;
    const Spot x = spot_of(tasks, number, v);
    squared[e] =
        along(planes + (f >= voxels ? v : voxels + v), x.task->size[1] * x.task->size[2], x.d, x.task->size[0], step);
  }
}

// Squared distances are not negative: their bits are ordered as they are.
struct DistanceKey {
  const float* squared;
  SURE_FAST_DEVICE_MEMBER uint32_t operator()(uint32_t e) const {
    return static_cast<uint32_t>(math::bits_of(squared[e]));
  }
};

// Task and side of a surface voxel.
struct PartKey {
  const uint32_t* begins;
  int64_t parts;
  SURE_FAST_DEVICE_MEMBER uint32_t operator()(uint32_t e) const {
    return static_cast<uint32_t>(first_not(1, parts, [&](int64_t k) { return begins[k] <= e; }) - 1);
  }
};

struct SurfaceSum {
  double distance;
  unsigned long long within;
};

SURE_FAST_DEVICE SurfaceSum operator+(const SurfaceSum& x, const SurfaceSum& y) {
  return {x.distance + y.distance, x.within + y.within};
}

// A block for each task and side; order lists its surface voxels by rising distance.
__global__ void __launch_bounds__(kThreads, 4)
    surface_statistics(SurfaceArgs a, const SurfaceTask* tasks, int64_t number, const uint32_t* begins,
                       const uint32_t* order, const float* squared, double* records) {
  SURE_FAST_SHARED(shared, SurfaceSum[kThreads]);
  const int64_t part = blockIdx.x, side = part >= number, k = part - side * number;
  const int64_t begin = begins[part], n = begins[part + 1] - begin;
  const int64_t other = begins[(1 - side) * number + k + 1] - begins[(1 - side) * number + k];
  double* record = records + (tasks[k].image * a.target.classes + tasks[k].cls) * kSurfaceRecord;
  if (threadIdx.x == 0) record[side] = static_cast<double>(n);
  if (n == 0 || other == 0) return;
  const double limit = a.tolerance * kSlack;
  const float most_within = static_cast<float>(limit * limit);
  const auto at = [&](int64_t i) { return squared[order[begin + i]]; };
  SurfaceSum own = {0.0, 0};
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    own = own + SurfaceSum{sqrt(static_cast<double>(at(i))), at(i) <= most_within ? 1ull : 0ull};
  }
  const SurfaceSum all = block_sum<kThreads>(own, shared);
  if (threadIdx.x != 0) return;
  const double rank = a.quantile * static_cast<double>(n - 1);
  const int64_t lower = static_cast<int64_t>(rank), upper = lower + 1 < n ? lower + 1 : lower;
  const double low = sqrt(static_cast<double>(at(lower))), high = sqrt(static_cast<double>(at(upper)));
  record += 2 + 4 * side;
  record[0] = sqrt(static_cast<double>(at(n - 1)));
  record[1] = low + (high - low) * (rank - static_cast<double>(lower));
  record[2] = all.distance;
  record[3] = static_cast<double>(all.within);
}

struct Measure {
  float *rows, *planes, *squared;
  SortBuffers<uint32_t> sort;

  Measure(Arena& arena, const Stream& stream, int64_t voxels, int64_t listed, const Gate& gate)
      : rows(arena.take<float>(2 * voxels)),
        planes(arena.take<float>(2 * voxels)),
        squared(arena.take<float>(listed)),
        sort(arena, listed, sort_blocks(stream, listed), gate) {}
};

}  // namespace

void surface_boxes(const SurfaceArgs& a, const Stream& stream, uint16_t* labels, int32_t* boxes, int64_t* bad) {
  const int64_t numbers = a.size[0] * a.target.classes * kSurfaceBox,
                all = 2 * a.size[0] * a.size[1] * a.size[2] * a.size[3];
  unsigned long long* wrong = reinterpret_cast<unsigned long long*>(bad);
  launch(stream, "clear_boxes", fill(stream, ceil_div<int64_t>(numbers, kThreads)), kThreads, clear_boxes, boxes,
         numbers, wrong);
  launch(stream, "find_boxes", fill(stream, ceil_div<int64_t>(all, kThreads), 16), kThreads, find_boxes, a, labels,
         boxes, wrong);
}

int64_t surface_list_workspace(const SurfaceArgs&, const Stream&, int64_t, int64_t voxels) {
  Arena arena(nullptr);
  Compaction(arena, 2 * voxels);
  return arena.used();
}

void surface_list(const SurfaceArgs& a, const Stream& stream, const uint16_t* labels, const SurfaceTask* tasks,
                  int64_t number, int64_t voxels, void* workspace, uint32_t* begins) {
  Arena arena(workspace);
  const Compaction surfaces(arena, 2 * voxels);
  compact(stream, IsSurface{a, labels, tasks, number, voxels}, 2 * voxels, surfaces);
  launch(stream, "find_begins", fill(stream, ceil_div<int64_t>(2 * number + 1, kThreads)), kThreads, find_begins, tasks,
         number, voxels, surfaces.list, surfaces.length(2 * voxels), begins);
}

int64_t surface_measure_workspace(const SurfaceArgs&, const Stream& stream, int64_t, int64_t voxels, int64_t listed) {
  Arena arena(nullptr);
  Measure(arena, stream, voxels, listed, Gate{});
  return arena.used();
}

void surface_measure(const SurfaceArgs& a, const Stream& stream, const SurfaceTask* tasks, int64_t number,
                     int64_t voxels, int64_t rows, int64_t listed, void* lists, const uint32_t* begins, void* workspace,
                     double* records) {
  Arena list_arena(lists), arena(workspace);
  const Compaction surfaces(list_arena, 2 * voxels);
  const Measure m(arena, stream, voxels, listed, surfaces.gate);
  const uint32_t* length = surfaces.length(2 * voxels);
  const int64_t blocks = fill(stream, ceil_div<int64_t>(2 * voxels, kThreads), 16);
  const int64_t listed_blocks = fill(stream, ceil_div<int64_t>(listed, kThreads), 16);
  launch(stream, "row_distances", fill(stream, ceil_div<int64_t>(2 * rows, kThreads / kWarp), 16), kThreads,
         row_distances, tasks, number, voxels, rows, a.step[2], surfaces.words, m.rows);
  launch(stream, "plane_distances", blocks, kThreads, plane_distances, tasks, number, voxels, a.step[1], m.rows,
         m.planes);
  launch(stream, "listed_distances", listed_blocks, kThreads, listed_distances, tasks, number, voxels, a.step[0],
         m.planes, surfaces.list, length, m.squared);
  Sorted sorted = sort_by(stream, m.sort, Start::rising, 0, DistanceKey{m.squared}, 32, nullptr, listed, length);
  sorted = sort_by(stream, m.sort, Start::given, sorted.half(), PartKey{begins, 2 * number}, bits_needed(2 * number),
                   nullptr, listed, length);
  launch(stream, "surface_statistics", 2 * number, kThreads, surface_statistics, a, tasks, number, begins,
         sorted.payload[sorted.half()], m.squared, records);
}

}  // namespace sure_fast
