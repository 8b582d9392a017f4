// Distance of every voxel of label [N, D, H, W] to the nearest boundary voxel, a voxel whose 3 x 3 x 3 neighbourhood
// (clipped at the border) holds more than one label: its minimum is not its maximum.
//   d^2 = min over j in B of sum_a (s_a (i_a - j_a))^2, one axis after the other: W in a row, then H, then D.
// Labels become bytes where they fit. Within a limit below 16 equal steps d^2 is a byte too, and each axis looks only
// that far: 64 voxels a vector, saturating additions, a plane of rows as one line. Where d^2 in equal steps fits 16
// bits, as in distance_steps.h; otherwise float, as in distance_lines.h. Parallel over planes of as many images as the
// threads need. Bytes per voxel: the label, 6 of scratch in the cache, 4 written. Bound by vector loads.
#include "cpu/boundary_distance.h"

#include "cpu/distance_steps.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int64_t kPiece = 2048;  // bytes that look outwards together, all steps, before the next ones

template <typename Work>
struct Limits;
template <>
struct Limits<uint8_t> {
  static constexpr uint8_t low = 0, high = UINT8_MAX;
};
template <>
struct Limits<int64_t> {
  static constexpr int64_t low = INT64_MIN, high = INT64_MAX;
};

// Whether squared distances fit 16 bits, in equal steps: those within the limit or, without one, across the image.
bool in_steps(const BoundaryArgs& a) {
  if (!(a.step[0] == a.step[1] && a.step[1] == a.step[2])) return false;
  if (a.limit >= 0) return a.limit * kSlack < 255.0 * a.step[0];
  double squared = 0.0;
  for (int axis = 1; axis < 4; ++axis) squared += static_cast<double>(a.size[axis]) * static_cast<double>(a.size[axis]);
  return squared < static_cast<double>(kNoSteps);
}

// Planes in scratch have rows `pitch` apart; what lies between them keeps rows from seeing each other, so that a plane
// is one line of voxels to every loop, however short its rows are.
template <typename Work>
struct Scratch {
  int reach;  // byte path: steps to look
  int64_t pitch;
  int64_t images;           // worked on together: enough planes for all threads
  Work *minimum, *maximum;  // of each voxel's 3 x 3 neighbourhood in its plane, [images, D, H, pitch]
  uint8_t* near;            // byte path: d^2 within the plane, [images, D, H, W]
  uint8_t* any;             // other paths: rows that hold a boundary, [images, D, H]
  uint16_t* steps;          // step path: d^2 within the plane, [images, H, D, columns]
  uint16_t* row;            // step path: a thread's [H, columns]
  int64_t columns;          // W, up to whole vectors
  Work* plane;              // a thread's [2, H + 2, pitch] + 2
  uint8_t* bytes;           // a thread's [2, H + 2 reach, pitch] + 2 reach
  float* line;              // a thread's [max(H, D), W]
  double* envelope;         // a thread's [3, max(H, D) + 1]
  Squares squares;          // along W
  SquaresOf<uint16_t> step_squares;

  Scratch(const BoundaryArgs& a, Arena& arena)
      : squares(arena, boundary_in_bytes(a) || in_steps(a) ? 0 : a.size[3]),
        step_squares(arena, !boundary_in_bytes(a) && in_steps(a) ? a.size[3] : 0) {
    const int64_t D = a.size[1], H = a.size[2], W = a.size[3], longest = D > H ? D : H;
    const bool bytes_path = boundary_in_bytes(a), steps_path = !bytes_path && in_steps(a);
    const bool floats_path = !bytes_path && !steps_path;
    reach = bytes_path ? static_cast<int>(steps_within(a.limit / a.step[0], kBeyond)) : 0;
    pitch = W + (reach > 2 ? reach : 2);
    const int64_t wanted = (4 * a.threads + D - 1) / D;
    images = wanted < a.size[0] ? wanted : a.size[0];
    minimum = arena.take<Work>(images * D * H * pitch);
    maximum = arena.take<Work>(images * D * H * pitch);
    near = arena.take<uint8_t>(bytes_path ? images * D * H * W : 0);
    any = arena.take<uint8_t>(bytes_path ? 0 : images * D * H);
    plane = arena.take<Work>(a.threads * plane_size(H));
    bytes = arena.take<uint8_t>(a.threads * 2 * bytes_size(H));
    columns = (W + kColumns - 1) / kColumns * kColumns;
    steps = arena.take<uint16_t>(steps_path ? images * D * H * columns : 0);
    row = arena.take<uint16_t>(steps_path ? a.threads * (H > D ? H : D) * columns : 0);
    line = arena.take<float>(floats_path ? a.threads * longest * W : 0);
    envelope = arena.take<double>(floats_path ? a.threads * 3 * (longest + 1) : 0);
  }
  SURE_FAST_INLINE_MEMBER int64_t plane_size(int64_t H) const { return 2 * ((H + 2) * pitch + 2); }
  SURE_FAST_INLINE_MEMBER int64_t bytes_size(int64_t H) const { return (H + 2 * reach) * pitch + 2 * reach; }
};

template <typename Label>
SURE_FAST_INLINE bool is_ignored(const BoundaryArgs& a, Label label) {
  return a.has_ignore && static_cast<int64_t>(label) == a.ignore;
}

// Minimum and maximum of the 3 x 3 neighbourhood in one plane; an ignored voxel is in neither. Returns whether every
// label that counts could be told apart: a byte holds [0, 255], of which 255 is taken where voxels are ignored.
template <typename Label, typename Work>
bool plane_extremes(const BoundaryArgs& a, const Label* label, int64_t pitch, Work* low, Work* minimum, Work* maximum) {
  const int64_t H = a.size[2], W = a.size[3], half = (H + 2) * pitch + 2;
  Work* high = a.has_ignore ? low + half : low;  // else the same numbers; the border is filled by repeating it
  const uint64_t largest_label = sizeof(Work) > 1 ? UINT64_MAX : a.has_ignore ? UINT8_MAX - 1 : UINT8_MAX;
  uint8_t unfit = 0;
  for (int64_t h = 0; h < H; ++h) {
    Work* l = low + (h + 1) * pitch + 1;
    Work* u = high + (h + 1) * pitch + 1;
    const Label* row = label + h * W;
    if (a.has_ignore) {
      for (int64_t w = 0; w < W; ++w) {
        const bool out = is_ignored(a, row[w]);
        l[w] = out ? Limits<Work>::high : static_cast<Work>(row[w]);
        u[w] = out ? Limits<Work>::low : static_cast<Work>(row[w]);
        unfit |= !out && static_cast<uint64_t>(row[w]) > largest_label;
      }
      u[-1] = u[0];
      u[W] = u[W - 1];
    } else {
      for (int64_t w = 0; w < W; ++w) {
        l[w] = static_cast<Work>(row[w]);
        unfit |= static_cast<uint64_t>(row[w]) > largest_label;
      }
    }
    l[-1] = l[0];
    l[W] = l[W - 1];
  }
  for (Work* side = low;; side = high) {
    const size_t row = sizeof(Work) * static_cast<size_t>(W + 2);
    memcpy(side, side + pitch, row);
    memcpy(side + (H + 1) * pitch, side + H * pitch, row);
    if (side == high) break;
  }
  const Work *l0 = low, *l1 = l0 + pitch, *l2 = l1 + pitch;
  const Work *u0 = high, *u1 = u0 + pitch, *u2 = u1 + pitch;
#pragma omp simd
  for (int64_t i = 0; i < H * pitch; ++i) {
    Work low_here = l1[i], high_here = u1[i];
    for (int k = 0; k < 3; ++k) {
      const Work x0 = l0[i + k], x1 = l1[i + k], x2 = l2[i + k];
      const Work y0 = u0[i + k], y1 = u1[i + k], y2 = u2[i + k];
      low_here = x0 < low_here ? x0 : low_here;
      low_here = x1 < low_here ? x1 : low_here;
      low_here = x2 < low_here ? x2 : low_here;
      high_here = y0 > high_here ? y0 : high_here;
      high_here = y1 > high_here ? y1 : high_here;
      high_here = y2 > high_here ? y2 : high_here;
    }
    minimum[i] = low_here;
    maximum[i] = high_here;
  }
  return unfit == 0;
}

// One plane of rows `pitch` apart: 0 on a boundary voxel, kBeyond elsewhere and between the rows.
template <typename Label, typename Work>
void boundary_plane(const BoundaryArgs& a, const Scratch<Work>& s, const Label* label, int64_t slot, int64_t d,
                    uint8_t* out) {
  const int64_t D = a.size[1], H = a.size[2], W = a.size[3], plane = H * s.pitch, at = slot * plane;
  const int64_t before = at - (d > 0 ? plane : 0), after = at + (d + 1 < D ? plane : 0);
  const Work *l0 = s.minimum + before, *l1 = s.minimum + at, *l2 = s.minimum + after;
  const Work *u0 = s.maximum + before, *u1 = s.maximum + at, *u2 = s.maximum + after;
#pragma omp simd
  for (int64_t i = 0; i < plane; ++i) {
    const Work a0 = l0[i] < l1[i] ? l0[i] : l1[i], low = a0 < l2[i] ? a0 : l2[i];
    const Work b0 = u0[i] > u1[i] ? u0[i] : u1[i], high = b0 > u2[i] ? b0 : u2[i];
    out[i] = low < high ? 0 : kBeyond;
  }
  for (int64_t h = 0; h < H; ++h) {
    uint8_t* row = out + h * s.pitch;
    for (int64_t w = 0; w < W && a.has_ignore; ++w) row[w] = is_ignored(a, label[h * W + w]) ? kBeyond : row[w];
    memset(row + W, kBeyond, static_cast<size_t>(s.pitch - W));
  }
}

SURE_FAST_INLINE bool holds_boundary(const uint8_t* row, int64_t W) {
  uint8_t all = kBeyond;
#pragma omp simd reduction(& : all)
  for (int64_t w = 0; w < W; ++w) all &= row[w];
  return all != kBeyond;
}

SURE_FAST_INLINE uint8_t add_saturated(uint8_t x, uint8_t y) {
  const uint8_t sum = static_cast<uint8_t>(x + y);
  return sum < x ? UINT8_MAX : sum;
}

// out[i] = min over |k| <= reach of x[i + k stride] + k^2; `before` and `after` of them exist.
SURE_FAST_INLINE void nearest_bytes(const uint8_t* x, int64_t stride, int64_t before, int64_t after, int reach,
                                    int64_t count, uint8_t* out) {
  for (int64_t first = 0; first < count; first += kPiece) {
    const int64_t last = first + kPiece < count ? first + kPiece : count;
    memcpy(out + first, x + first, static_cast<size_t>(last - first));
    for (int k = 1; k <= reach; ++k) {
      const uint8_t cost = static_cast<uint8_t>(k * k);
      const uint8_t* left = x - (k <= before ? k : 0) * stride;  // the voxel itself adds nothing nearer
      const uint8_t* right = x + (k <= after ? k : 0) * stride;
#pragma omp simd
      for (int64_t i = first; i < last; ++i) {
        const uint8_t y = left[i] < right[i] ? left[i] : right[i];
        const uint8_t z = add_saturated(y, cost);
        out[i] = z < out[i] ? z : out[i];
      }
    }
  }
}

// Byte path of one plane: boundary, then the distance along W in runs of rows that hold any, then along H.
template <typename Label, typename Work>
void plane_bytes(const BoundaryArgs& a, const Scratch<Work>& s, const Label* label, int64_t slot, int64_t d) {
  const int64_t H = a.size[2], W = a.size[3], P = s.pitch, size = s.bytes_size(H), margin = s.reach * (P + 1);
  uint8_t* boundary = s.bytes + thread_index() * 2 * size + margin;
  uint8_t* along_w = boundary + size;
  uint8_t* out = s.near + slot * H * W;
  memset(boundary - s.reach, kBeyond, static_cast<size_t>(s.reach));
  boundary_plane(a, s, label, slot, d, boundary);
  memset(boundary + H * P, kBeyond, static_cast<size_t>(s.reach));
  memset(along_w - margin, kBeyond, static_cast<size_t>(size));
  bool any = false;
  for (int64_t h = 0, end = 0; h < H; h = end + 1) {
    for (end = h; end < H && holds_boundary(boundary + end * P, W); ++end) {
    }
    if (end == h) continue;
    any = true;
    nearest_bytes(boundary + h * P, 1, s.reach, s.reach, s.reach, (end - h) * P, along_w + h * P);
  }
  if (!any) {
    memset(out, kBeyond, static_cast<size_t>(H * W));
    return;
  }
  nearest_bytes(along_w, P, s.reach, s.reach, s.reach, H * P, boundary);
  for (int64_t h = 0; h < H; ++h) memcpy(out + h * W, boundary + h * P, static_cast<size_t>(W));
}

template <typename Label, typename Work>
void images_floats(const BoundaryArgs& a, const Scratch<Work>& s, const Label* label, int64_t images, float* out) {
  const int64_t D = a.size[1], H = a.size[2], W = a.size[3], longest = D > H ? D : H;
  const double farthest = a.limit < 0 ? static_cast<double>(kInf) : a.limit * kSlack;
  s.squares.fill(a.step[2], farthest);
  parallel_tasks(images * D, a.threads, [&](int64_t i) {
    float* rows = s.line + thread_index() * longest * W;
    uint8_t* boundary = s.bytes + thread_index() * 2 * s.bytes_size(H);
    boundary_plane(a, s, label + i * H * W, i, i % D, boundary);
    for (int64_t h = 0; h < H; ++h) {
      s.any[i * H + h] = holds_boundary(boundary + h * s.pitch, W);
      row_squares(boundary + h * s.pitch, s.squares, W, rows + h * W);
    }
    lines_floats(rows, s.any + i * H, 1, H, W, a.step[1], farthest, s.envelope + thread_index() * 3 * (longest + 1),
                 out + i * H * W, W);
  });
  parallel_tasks(images * D, a.threads, [&](int64_t i) {  // now: any row of the plane
    uint8_t any = 0;
    for (int64_t h = 0; h < H; ++h) any |= s.any[i * H + h];
    s.any[i * H] = any;
  });
  const float limit = a.limit < 0 ? kInf : static_cast<float>(a.limit * a.limit * kSquaredSlack);
  parallel_tasks(images * H, a.threads, [&](int64_t i) {
    float* rows = s.line + thread_index() * longest * W;
    float* column = out + i / H * D * H * W + i % H * W;  // [D, W], H W apart
    for (int64_t d = 0; d < D; ++d) memcpy(rows + d * W, column + d * H * W, sizeof(float) * static_cast<size_t>(W));
    lines_floats(rows, s.any + i / H * D * H, H, D, W, a.step[0], farthest,
                 s.envelope + thread_index() * 3 * (longest + 1), column, H * W);
    for (int64_t d = 0; d < D; ++d) {
      float* row = column + d * H * W;
#pragma omp simd
      for (int64_t w = 0; w < W; ++w) row[w] = row[w] > limit ? kInf : __builtin_sqrtf(row[w]);
    }
  });
}

// From the first to the last of `count` flags that are set, a stride apart; first > last: none is.
Window window_of(const uint8_t* flags, int64_t count, int64_t stride) {
  Window window = {count, -1};
  for (int64_t i = 0; i < count; ++i) {
    if (!flags[i * stride]) continue;
    window.last = i;
    if (window.first == count) window.first = i;
  }
  return window;
}

// The distances of a row of D x W voxels, from their squares in steps.
void write_distances(const BoundaryArgs& a, const uint16_t* squared, int64_t columns, float* out) {
  const int64_t D = a.size[1], W = a.size[3], plane = a.size[2] * W;
  const double limit = a.limit / a.step[0], within = limit * limit * kSquaredSlack;
  const bool limited = a.limit >= 0 && within < static_cast<double>(kNoSteps);
  const int32_t most = limited ? static_cast<int32_t>(within) : kNoSteps - 1;
  const float step = static_cast<float>(a.step[0]);
  for (int64_t d = 0; d < D; ++d) {
    const uint16_t* from = squared + d * columns;
    float* to = out + d * plane;
#pragma omp simd
    for (int64_t w = 0; w < W; ++w) {
      const int32_t x = from[w];
      const float distance = step * __builtin_sqrtf(static_cast<float>(x));
      to[w] = x > most ? kInf : distance;
    }
  }
}

template <typename Label, typename Work>
void images_steps(const BoundaryArgs& a, const Scratch<Work>& s, const Label* label, int64_t images, float* out) {
  const int64_t D = a.size[1], H = a.size[2], W = a.size[3], columns = s.columns, longest = D > H ? D : H;
  const int64_t reach = a.limit < 0 ? longest : steps_within(a.limit / a.step[0], longest);
  s.step_squares.fill(1.0, a.limit < 0 ? static_cast<double>(kInf) : a.limit / a.step[0] * kSlack);
  parallel_tasks(images * D, a.threads, [&](int64_t i) {
    uint16_t* rows = s.row + thread_index() * longest * columns;
    uint8_t* boundary = s.bytes + thread_index() * 2 * s.bytes_size(H);
    uint16_t* to = s.steps + i / D * D * H * columns + i % D * columns;  // rows of the plane are D columns apart
    boundary_plane(a, s, label + i * H * W, i, i % D, boundary);
    for (int64_t h = 0; h < H; ++h) {
      s.any[i * H + h] = holds_boundary(boundary + h * s.pitch, W);
      row_squares(boundary + h * s.pitch, s.step_squares, W, rows + h * columns);
      for (int64_t w = W; w < columns; ++w) rows[h * columns + w] = 0;  // looks no farther
    }
    const Window holding = window_of(s.any + i * H, H, 1);
    for (int64_t w = 0; w < columns; w += kColumns) {
      line_of_columns(rows + w, columns, H, holding, reach, to + w, D * columns);
    }
    s.any[i * H] = holding.first <= holding.last;  // now: any row of the plane
  });
  parallel_tasks(images * H, a.threads, [&](int64_t i) {
    uint16_t* line = s.row + thread_index() * longest * columns;
    const uint16_t* rows = s.steps + i * D * columns;
    const Window holding = window_of(s.any + i / H * D * H, D, H);
    for (int64_t w = 0; w < columns && D > 1; w += kColumns) {
      line_of_columns(rows + w, columns, D, holding, reach, line + w, columns);
    }
    write_distances(a, D > 1 ? line : rows, columns, out + i / H * D * H * W + i % H * W);
  });
}

template <typename Label, typename Work>
void images_bytes(const BoundaryArgs& a, const Scratch<Work>& s, const Label* label, int64_t images, float* out,
                  uint8_t* squared) {
  const int64_t D = a.size[1], plane = a.size[2] * a.size[3];
  const int most = squared_steps_within(a.limit / a.step[0]);
  const float step = static_cast<float>(a.step[0]);
  parallel_tasks(images * D, a.threads, [&](int64_t i) { plane_bytes(a, s, label + i * plane, i, i % D); });
  parallel_tasks(images * D, a.threads, [&](int64_t i) {
    const int64_t d = i % D;
    alignas(64) uint8_t piece[kPiece];
    for (int64_t at = i * plane; at < (i + 1) * plane; at += kPiece) {
      const int64_t count = at + kPiece < (i + 1) * plane ? kPiece : (i + 1) * plane - at;
      uint8_t* nearest = squared != nullptr ? squared + at : piece;
      nearest_bytes(s.near + at, plane, d, D - 1 - d, s.reach, count, nearest);
      if (squared != nullptr) {
        for (int64_t v = 0; v < count; ++v) nearest[v] = nearest[v] > most ? kBeyond : nearest[v];
        for (int64_t v = 0; v < count && a.has_ignore; ++v) {
          nearest[v] = is_ignored(a, label[at + v]) ? kIgnored : nearest[v];
        }
      } else {
        float* to = out + at;
#pragma omp simd
        for (int64_t v = 0; v < count; ++v) {
          const int32_t steps = nearest[v];
          const float away = step * __builtin_sqrtf(static_cast<float>(steps));  // of all, or it would be a branch
          to[v] = steps > most ? kInf : away;
        }
      }
    }
  });
}

template <typename Label, typename Work>
bool run(const BoundaryArgs& a, void* workspace, float* distance, uint8_t* squared) {
  const int64_t D = a.size[1], H = a.size[2], plane = H * a.size[3];
  Arena arena(workspace);
  const Scratch<Work> s(a, arena);
  for (int64_t n = 0; n < a.size[0]; n += s.images) {
    const int64_t images = a.size[0] - n < s.images ? a.size[0] - n : s.images;
    const Label* label = static_cast<const Label*>(a.label.data) + n * D * plane;
    bool fits = true;
    parallel_tasks(images * D, a.threads, [&](int64_t i) {
      Work* scratch = s.plane + thread_index() * s.plane_size(H);
      const int64_t at = i * H * s.pitch;
      if (!plane_extremes(a, label + i * plane, s.pitch, scratch, s.minimum + at, s.maximum + at)) {
        __atomic_store_n(&fits, false, __ATOMIC_RELAXED);
      }
    });
    if (!fits) return false;
    if (boundary_in_bytes(a)) {
      images_bytes(a, s, label, images, distance == nullptr ? nullptr : distance + n * D * plane,
                   squared == nullptr ? nullptr : squared + n * D * plane);
    } else if (in_steps(a)) {
      images_steps(a, s, label, images, distance + n * D * plane);
    } else {
      images_floats(a, s, label, images, distance + n * D * plane);
    }
  }
  return true;
}

template <typename Label>
bool run_label(const BoundaryArgs& a, void* workspace, float* distance, uint8_t* squared) {
  return a.wide ? run<Label, int64_t>(a, workspace, distance, squared)
                : run<Label, uint8_t>(a, workspace, distance, squared);
}

bool dispatch(const BoundaryArgs& a, void* workspace, float* distance, uint8_t* squared) {
  switch (a.label.dtype) {
    case DType::u8: return run_label<uint8_t>(a, workspace, distance, squared);
    case DType::i8: return run_label<int8_t>(a, workspace, distance, squared);
    case DType::i16: return run_label<int16_t>(a, workspace, distance, squared);
    case DType::i32: return run_label<int32_t>(a, workspace, distance, squared);
    default: return run_label<int64_t>(a, workspace, distance, squared);
  }
}

}  // namespace

int64_t boundary_distance_workspace(const BoundaryArgs& a) {
  Arena arena(nullptr);
  if (a.wide) {
    Scratch<int64_t>(a, arena);
  } else {
    Scratch<uint8_t>(a, arena);
  }
  return arena.used();
}

bool boundary_distance_forward(const BoundaryArgs& a, void* workspace, float* distance) {
  return dispatch(a, workspace, distance, nullptr);
}

bool boundary_distance_squared(const BoundaryArgs& a, void* workspace, uint8_t* squared) {
  return dispatch(a, workspace, nullptr, squared);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
