// Distances between the surfaces of a class in two label maps [N, D, H, W]: largest, quantile, sum, share in tolerance.
//   A surface voxel of a class has a neighbour across a face that is not of the class; outside of the image nothing is.
//   From each surface voxel of one map: d = min over the surface voxels of the other of |s (i - j)|, s the spacing.
// Within the box that holds the class in both maps: surfaces as bytes, squared distances along W; from there each
// surface voxel looks outwards over rows and planes until nothing nearer is possible, no farther than its neighbour's
// distance allows. Surfaces far apart, where that would cost more than the box, take boundary_distance's pass along H.
// Order statistics by radix selection: three passes over the distances, which are not sorted. Sums: float over 1024
// distances, float64 beyond.
// Parallel over images, or over the planes of one. Bytes per voxel: both labels, 4 as uint16; in the box 14 more.
// Bound by the passes over the labels and the rows.
#include "cpu/surface_distances.h"

#include "cpu/distance_lines.h"
#include "cpu/vectors.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kTogether = Sixteen::kLanes;  // voxels of a row that search together
constexpr int kSelectBits = 11;
constexpr int kSelectBins = 1 << kSelectBits;
const double kNone = static_cast<double>(__builtin_nanf(""));

struct Box {
  int64_t first[3], size[3];
  SURE_FAST_INLINE_MEMBER int64_t volume() const { return size[0] * size[1] * size[2]; }
};

Box box_of(const int32_t* b) {
  Box box;
  for (int axis = 0; axis < 3; ++axis) {
    box.first[axis] = b[2 * axis];
    box.size[axis] = b[2 * axis + 1] < b[2 * axis] ? 0 : b[2 * axis + 1] - b[2 * axis] + 1;
  }
  return box;
}

struct Scratch {
  uint8_t* surface;              // 0 on a surface voxel, else 255; both maps, [2, largest]
  float* squared;                // within a row, or within a plane, [largest]
  float* at_surface;             // squared distances of the surface voxels of both maps, [2, largest]
  uint8_t* any;                  // rows with a surface voxel, [2, D, H]
  int64_t* number;               // surface voxels of a plane, then those before it, [2, D + 1]
  float* line;                   // a thread's [H, W]
  double* envelope;              // a thread's [3, H + 1]
  Squares depth, height, width;  // of the steps along D, H, W
  float step;                    // along W
  float farther;                 // the squared distance along D or H of a row that is not the next one

  Scratch(const SurfaceArgs& a, int64_t largest, int inner, Arena& arena)
      : depth(arena, a.size[1]),
        height(arena, a.size[2]),
        width(arena, a.size[3]),
        step(static_cast<float>(a.step[2])),
        farther(static_cast<float>(4 * (a.step[0] < a.step[1] ? a.step[0] * a.step[0] : a.step[1] * a.step[1]))) {
    const int64_t D = a.size[1], H = a.size[2], W = a.size[3];
    surface = arena.take<uint8_t>(2 * largest);
    squared = arena.take<float>(largest + kTogether);  // the last block of a row may reach out of it
    at_surface = arena.take<float>(2 * largest);
    any = arena.take<uint8_t>(2 * D * H);
    number = arena.take<int64_t>(2 * (D + 1));
    line = arena.take<float>(inner * H * W);
    envelope = arena.take<double>(inner * 3 * (H + 1));
  }
};

SURE_FAST_INLINE void widen_box(int32_t* box, int64_t d, int64_t h, int64_t w0, int64_t w1) {
  const int32_t at[6] = {static_cast<int32_t>(d), static_cast<int32_t>(d),  static_cast<int32_t>(h),
                         static_cast<int32_t>(h), static_cast<int32_t>(w0), static_cast<int32_t>(w1)};
  for (int i = 0; i < 6; i += 2) {
    box[i] = at[i] < box[i] ? at[i] : box[i];
    box[i + 1] = at[i + 1] > box[i + 1] ? at[i + 1] : box[i + 1];
  }
}

constexpr int64_t kSame = 32;  // labels in a vector

// Whether kSame labels are all this one.
SURE_FAST_INLINE bool all_same(const uint16_t* labels, uint16_t label) {
  uint16_t differ = 0;
#pragma omp simd reduction(| : differ)
  for (int64_t i = 0; i < kSame; ++i) differ |= labels[i] ^ label;
  return differ == 0;
}

// The end of the run of equal labels that holds `start`.
SURE_FAST_INLINE int64_t run_end(const uint16_t* labels, int64_t start, int64_t W) {
  const uint16_t label = labels[start];
  int64_t w = start + 1;
  while (w + kSame <= W && all_same(labels + w, label)) w += kSame;
  for (uint64_t four; w + 4 <= W; w += 4) {
    memcpy(&four, labels + w, sizeof(four));
    if (four != label * uint64_t{0x0001000100010001}) break;
  }
  while (w < W && labels[w] == label) ++w;
  return w;
}

// One row as uint16, its runs entered into the boxes. Returns the number of labels outside [0, C).
int64_t row_boxes(const Labels& labels, const Labels& target, int64_t at, int64_t W, int64_t d, int64_t h,
                  uint16_t* out, int32_t* boxes) {
  constexpr int kRun = 512;
  int32_t own[kRun], other[kRun];
  int64_t bad = 0;
  for (int64_t w0 = 0; w0 < W; w0 += kRun) {
    const int count = static_cast<int>(W - w0 < kRun ? W - w0 : kRun);
    bad += load_labels(labels, at + w0, count, own);
    for (int v = 0; v < count; ++v) out[w0 + v] = static_cast<uint16_t>(own[v] < 0 ? 0 : own[v]);
    if (target.has_ignore && target.data != labels.data) {
      load_labels(target, at + w0, count, other);
      for (int v = 0; v < count; ++v) out[w0 + v] = other[v] < 0 ? 0 : out[w0 + v];
    }
  }
  for (int64_t start = 0, end; start < W; start = end) {
    end = run_end(out, start, W);
    widen_box(boxes + out[start] * kSurfaceBox, d, h, start, end - 1);
  }
  return bad;
}

// How many of the bytes, each 0 or 255, are 0.
SURE_FAST_INLINE int64_t zeros(const uint8_t* bytes, int64_t count) {
  int64_t number = 0, w = 0;
  for (; w + 8 <= count; w += 8) {
    uint64_t eight;
    memcpy(&eight, bytes + w, 8);
    number += eight == UINT64_MAX ? 0 : __builtin_popcountll(~eight) / 8;
  }
  for (; w < count; ++w) number += bytes[w] == 0;
  return number;
}

// Surface of class c in the box of one map: row (d, h) as bytes. Returns its number of surface voxels.
int64_t surface_row(const SurfaceArgs& a, const uint16_t* label, const Box& box, uint16_t c, int64_t d, int64_t h,
                    uint8_t* out) {
  const int64_t H = a.size[2], W = a.size[3], count = box.size[2];
  const uint16_t* row = label + ((box.first[0] + d) * H + box.first[1] + h) * W + box.first[2];
  const bool edge = h == 0 || h + 1 == box.size[1] || (!a.planar && (d == 0 || d + 1 == box.size[0]));
  if (edge) {  // nothing of the class lies outside of the box
    for (int64_t w = 0; w < count; ++w) out[w] = row[w] == c ? 0 : 255;
    return zeros(out, count);
  }
  const int64_t plane = a.planar ? 0 : H * W;
  const uint16_t *north = row - W, *south = row + W, *front = row - plane, *back = row + plane;
  // A difference is 0 where a voxel is of the class, so that one comparison serves the six neighbours.
  const auto voxel = [&](int64_t w) {
    const uint16_t beside = static_cast<uint16_t>((row[w - 1] ^ c) | (row[w + 1] ^ c) | (north[w] ^ c) |
                                                  (south[w] ^ c) | (front[w] ^ c) | (back[w] ^ c));
    return static_cast<uint8_t>((row[w] == c) & (beside != 0) ? 0 : 255);
  };
  const auto block = [&](int64_t first) {
#pragma omp simd
    for (int64_t w = first; w < first + kSame; ++w) out[w] = voxel(w);
  };
  int64_t w = 1;
  for (; w + kSame < count; w += kSame) block(w);
  if (count > kSame + 1) {  // the last block lies over the one before rather than leave voxels one by one
    block(count - 1 - kSame);
  } else {
    for (; w < count - 1; ++w) out[w] = voxel(w);
  }
  out[0] = row[0] == c ? 0 : 255;
  out[count - 1] = row[count - 1] == c ? 0 : 255;
  return zeros(out, count);
}

// Lanes of best = min over j of x[j stride] and y[j stride], + ((i - j) step)^2 + base, where that is less. Counts the
// steps.
SURE_FAST_INLINE void along(const float* x, const float* y, int64_t stride, int64_t i, int64_t length,
                            const float* cost, float base, Sixteen::All& best, int64_t& looked) {
  int64_t k = 0;
  for (; (k <= i || k < length - i) && any_above(best, cost[k] + base); ++k) {
    const int64_t before = (k <= i ? i - k : i + k) * stride, after = (k < length - i ? i + k : i - k) * stride;
    const Sixteen::All of_x = lower(Sixteen::at(x + before), Sixteen::at(x + after)),
                       of_y = lower(Sixteen::at(y + before), Sixteen::at(y + after));
    best = lower(lower(of_x, of_y) + (cost[k] + base), best);
  }
  looked += k;
}

// The same from the nine rows around row (d, h), which most surfaces need no more than, without a branch.
SURE_FAST_INLINE void nearby(const Scratch& s, const Box& box, int64_t d, int64_t h, int64_t w, Sixteen::All& best) {
  const int64_t D = box.size[0], H = box.size[1], W = box.size[2];
  for (int64_t i = -1; i <= 1; ++i) {
    const int64_t plane = d + i < 0 || d + i >= D ? d : d + i;
    for (int64_t j = -1; j <= 1; ++j) {
      const int64_t row = h + j < 0 || h + j >= H ? h : h + j;
      const float cost = s.depth.up[i != 0 && D > 1] + s.height.up[j != 0 && H > 1];
      best = lower(Sixteen::at(s.squared + (plane * H + row) * W + w) + cost, best);
    }
  }
}

// Squared distances of a block of row (d, h) of the box to the nearest surface, from those within rows; they are at
// most `best`.
void search(const Scratch& s, const Box& box, int64_t d, int64_t h, int64_t w, Sixteen::All& best, int64_t& looked) {
  const int64_t D = box.size[0], H = box.size[1], W = box.size[2];
  nearby(s, box, d, h, w, best);
  if (!any_above(best, s.farther)) return;
  for (int64_t k = 0; (k <= d || k < D - d) && any_above(best, s.depth.up[k]); ++k) {
    const int64_t before = k <= d ? d - k : d + k, after = k < D - d ? d + k : d - k;
    along(s.squared + before * H * W + w, s.squared + after * H * W + w, W, h, H, s.height.up, s.depth.up[k], best,
          looked);
  }
}

// A voxel and its squared distance, which bounds those of others: no distance grows faster than the way there.
struct Known {
  int64_t h, w;
  float squared;

  // Lowers the squared distances of a block of row at_h to these bounds.
  SURE_FAST_INLINE_MEMBER void bound(const Scratch& s, int64_t at_h, int64_t at_w, Sixteen::All& best) const {
    alignas(64) float bounds[kTogether];
    const float root = __builtin_sqrtf(squared), across = s.height.up[at_h - h];
    for (int i = 0; i < kTogether; ++i) {
      const float away = static_cast<float>(static_cast<int32_t>(at_w - w) + i) * s.step;
      const float reach = root + __builtin_sqrtf(across + away * away);
      bounds[i] = reach * reach * 1.0001f;
    }
    best = lower(Sixteen::at(bounds), best);
  }
};

// Squared distances of the surface voxels of plane d, from those within rows or, with `planes`, within planes.
// Returns false when a search within rows has cost more than the pass along H would.
bool plane_distances(const Scratch& s, const Box& box, const uint8_t* surface, const uint8_t* any, int64_t d,
                     bool planes, float* out) {
  const int64_t D = box.size[0], H = box.size[1], W = box.size[2];
  const int64_t enough = (4 * H * W + 4096) / kTogether;
  int64_t looked = 0;
  Known known = {0, 0, kInf};
  for (int64_t h = 0; h < H; ++h) {
    if (!any[h]) continue;
    for (int64_t w = 0; w < W; w += kTogether) {
      const uint8_t* from = surface + h * W + w;
      uint8_t own[kTogether];
      if (W - w >= kTogether) {
        memcpy(own, from, sizeof(own));
      } else {
        for (int64_t i = 0; i < kTogether; ++i) own[i] = i < W - w ? from[i] : 255;
      }
      uint64_t outside[kTogether / 8];
      memcpy(outside, own, sizeof(own));
      if ((outside[0] & outside[1]) == UINT64_MAX) continue;
      const float* column = s.squared + h * W + w;
      Sixteen::All best = where_zero(own, column + d * H * W);
      if (any_above(best, 0.0f)) {
        if (planes) {
          along(column, column, H * W, d, D, s.depth.up, 0.0f, best, looked);
        } else {
          known.bound(s, h, w, best);
          search(s, box, d, h, w, best, looked);
          if (looked > enough) return false;
        }
      }
      for (int part = 0; part < kTogether; part += 8) {
        for (uint64_t left = ~outside[part / 8]; left != 0;) {
          const int i = part + __builtin_ctzll(left) / 8;
          left &= ~(uint64_t{255} << (8 * (i - part)));
          known = {h, w + i, best[i]};
          *out++ = known.squared;
        }
      }
    }
  }
  return true;
}

// The k-th smallest, from 0, of n numbers >= 0, whose bits are ordered as they are; and the next one.
void select(const float* x, int64_t n, int64_t k, float& kth, float& next) {
  uint32_t prefix = 0, known = 0;
  int64_t rank = k;
  for (int shift = 32 - kSelectBits; known != UINT32_MAX; shift -= kSelectBits) {
    const int low = shift < 0 ? 0 : shift;
    int64_t counts[kSelectBins] = {};
    const uint32_t bins = known == 0 ? kSelectBins : 1u << (32 - __builtin_popcount(known) - low);
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t bits = static_cast<uint32_t>(math::bits_of(x[i]));
      counts[(bits >> low) & (bins - 1)] += (bits & known) == prefix;
    }
    uint32_t bin = 0;
    while (rank >= counts[bin]) rank -= counts[bin++];
    prefix |= bin << low;
    known = low == 0 ? UINT32_MAX : ~0u << low;
  }
  kth = math::float_of(static_cast<int32_t>(prefix));
  int64_t up_to = 0;
  float above = kInf;
  for (int64_t i = 0; i < n; ++i) {
    up_to += x[i] <= kth;
    above = x[i] > kth && x[i] < above ? x[i] : above;
  }
  next = up_to > k + 1 || above == kInf ? kth : above;
}

// Largest, quantile, sum, and number within the tolerance of the distances whose squares are squared[0 .. n).
void statistics(const SurfaceArgs& a, const float* squared, int64_t n, double* out) {
  constexpr int64_t kBlock = 1024;
  double sum = 0;
  float most = 0;
  int64_t within = 0;
  const double limit = a.tolerance * kSlack;
  const float most_within = static_cast<float>(limit * limit);
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t last = first + kBlock < n ? first + kBlock : n;
    float part = 0;
    int inside = 0;
#pragma omp simd reduction(+ : part, inside) reduction(max : most)
    for (int64_t i = first; i < last; ++i) {
      part += __builtin_sqrtf(squared[i]);
      inside += squared[i] <= most_within;
      most = squared[i] > most ? squared[i] : most;
    }
    sum += static_cast<double>(part);
    within += inside;
  }
  const double at = a.quantile * static_cast<double>(n - 1);
  const int64_t k = static_cast<int64_t>(at);
  float kth, next;
  select(squared, n, k, kth, next);
  const double low = __builtin_sqrt(static_cast<double>(kth)), high = __builtin_sqrt(static_cast<double>(next));
  out[0] = __builtin_sqrt(static_cast<double>(most));
  out[1] = low + (high - low) * (at - static_cast<double>(k));
  out[2] = sum;
  out[3] = static_cast<double>(within);
}

void one_class(const SurfaceArgs& a, const uint16_t* const labels[2], const Box& box, uint16_t c, const Scratch& s,
               int64_t largest, int threads, double* record) {
  const int64_t D = box.size[0], H = box.size[1], W = box.size[2], plane = H * W;
  int64_t total[2] = {0, 0};
  bool far = false;
  for (int side = 0; side < 2; ++side) {
    uint8_t* any = s.any + side * D * H;
    int64_t* number = s.number + side * (D + 1);
    parallel_tasks(D, threads, [&](int64_t d) {
      number[d] = 0;
      for (int64_t h = 0; h < H; ++h) {
        const int64_t voxels = surface_row(a, labels[side], box, c, d, h, s.surface + side * largest + (d * H + h) * W);
        any[d * H + h] = voxels > 0;
        number[d] += voxels;
      }
    });
    for (int64_t d = 0; d <= D; ++d) {
      const int64_t here = d < D ? number[d] : 0;
      number[d] = total[side];
      total[side] += here;
    }
    record[side] = static_cast<double>(total[side]);
  }
  for (int i = 2; i < kSurfaceRecord; ++i) record[i] = kNone;
  if (total[0] == 0 || total[1] == 0) return;
  for (int side = 0; side < 2; ++side) {  // from the surface of this side to the other's
    const uint8_t* own = s.surface + side * largest;
    const uint8_t* other = s.surface + (1 - side) * largest;
    const uint8_t* any = s.any + (1 - side) * D * H;
    parallel_tasks(D, threads, [&](int64_t d) {
      for (int64_t h = d * H; h < (d + 1) * H; ++h) row_squares(other + h * W, s.width, W, s.squared + h * W);
    });
    const auto distances = [&](int64_t d, bool planes) {
      float* out = s.at_surface + side * largest + s.number[side * (D + 1) + d];
      return plane_distances(s, box, own + d * plane, s.any + (side * D + d) * H, d, planes, out);
    };
    far = false;
    parallel_tasks(D, threads, [&](int64_t d) {
      if (!__atomic_load_n(&far, __ATOMIC_RELAXED) && !distances(d, false)) {
        __atomic_store_n(&far, true, __ATOMIC_RELAXED);
      }
    });
    if (far) {
      parallel_tasks(D, threads, [&](int64_t d) {
        const int thread = threads > 1 ? thread_index() : 0;
        float* rows = s.line + thread * a.size[2] * a.size[3];
        memcpy(rows, s.squared + d * plane, sizeof(float) * static_cast<size_t>(plane));
        lines_floats(rows, any + d * H, 1, H, W, a.step[1], static_cast<double>(kInf),
                     s.envelope + thread * 3 * (a.size[2] + 1), s.squared + d * plane, W);
      });
      parallel_tasks(D, threads, [&](int64_t d) { distances(d, true); });
    }
  }
  parallel_tasks(2, threads, [&](int64_t side) {
    statistics(a, s.at_surface + side * largest, total[side], record + 2 + 4 * side);
  });
}

}  // namespace

int64_t surface_distances_boxes(const SurfaceArgs& a, uint16_t* labels, int32_t* boxes) {
  const int64_t N = a.size[0], D = a.size[1], H = a.size[2], W = a.size[3], table = surface_boxes_size(a);
  const Labels* maps[2] = {&a.prediction, &a.target};
  for (int64_t i = 0; i < a.threads * table; i += 2) {
    boxes[i] = INT32_MAX;
    boxes[i + 1] = -1;
  }
  int64_t bad = 0;
  parallel_tasks(N * D, a.threads, [&](int64_t i) {
    int32_t* own = boxes + thread_index() * table + i / D * a.prediction.classes * kSurfaceBox;
    int64_t wrong = 0;
    for (int side = 0; side < 2; ++side) {
      for (int64_t h = 0; h < H; ++h) {
        const int64_t at = (i * H + h) * W;
        wrong += row_boxes(*maps[side], a.target, at, W, i % D, h, labels + side * N * D * H * W + at, own);
      }
    }
    __atomic_fetch_add(&bad, wrong, __ATOMIC_RELAXED);
  });
  return bad;
}

int64_t surface_distances_workspace(const SurfaceArgs& a, int64_t largest) {
  const Team team = team_of(a.size[0], 0, a.threads);
  Arena arena(nullptr);
  for (int slot = 0; slot < team.outer; ++slot) Scratch(a, largest, team.inner, arena);
  return arena.used();
}

void surface_distances_forward(const SurfaceArgs& a, const uint16_t* labels, const int32_t* boxes, int64_t largest,
                               void* workspace, double* records) {
  const int64_t N = a.size[0], C = a.prediction.classes, volume = a.size[1] * a.size[2] * a.size[3];
  const Team team = team_of(N, 0, a.threads);
  Arena counter(nullptr);
  Scratch(a, largest, team.inner, counter);
  dynamic_tasks(N, team.outer, [&](int64_t n) {
    Arena arena(static_cast<char*>(workspace) + (team.outer > 1 ? thread_index() : 0) * counter.used());
    const Scratch s(a, largest, team.inner, arena);
    s.depth.fill(a.step[0], static_cast<double>(kInf));
    s.height.fill(a.step[1], static_cast<double>(kInf));
    s.width.fill(a.step[2], static_cast<double>(kInf));
    const uint16_t* maps[2] = {labels + n * volume, labels + (N + n) * volume};
    for (int64_t c = 0; c < C; ++c) {
      double* record = records + (n * C + c) * kSurfaceRecord;
      const Box box = box_of(boxes + (n * C + c) * kSurfaceBox);
      for (int i = 0; i < kSurfaceRecord; ++i) record[i] = i < 2 ? 0.0 : kNone;
      if (c > 0 && box.volume() > 0) one_class(a, maps, box, static_cast<uint16_t>(c), s, largest, team.inner, record);
    }
  });
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
