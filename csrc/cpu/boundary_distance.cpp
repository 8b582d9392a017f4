// Distance of every voxel of label [N, D, H, W] to the nearest boundary voxel, a voxel whose 3 x 3 x 3 neighbourhood
// (clipped at the border) holds more than one label: its minimum is not its maximum.
//   d^2 = min over j in B of sum_a (s_a (i_a - j_a))^2, one axis after the other: W in a row, then H, then D.
// Labels become bytes where they fit. Within a limit below 16 equal steps d^2 is a byte too, and each axis looks only
// that far: 64 voxels a vector, saturating additions. Otherwise float, looking outwards from each row until no nearer
// one is possible; rows without any boundary are passed over, lines with many rows take the lower envelope of
// parabolas, linear in their length (Felzenszwalb and Huttenlocher, Theory of Computing 8, 2012).
// Parallel over planes. Bytes per voxel: the label, 6 of scratch in the cache, 4 written. Bound by vector loads.
#include "cpu/boundary_distance.h"

#include "cpu/distance_lines.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int64_t kPad = 16;  // farthest look of the byte path

template <typename Work>
struct Limits;
template <>
struct Limits<uint8_t> {
  static constexpr uint8_t low = 0, high = 255;
};
template <>
struct Limits<int64_t> {
  static constexpr int64_t low = INT64_MIN, high = INT64_MAX;
};

template <typename Work>
struct Scratch {
  Work *minimum, *maximum;  // of each voxel's 3 x 3 neighbourhood in its plane, [D, H, W]
  uint8_t* near;            // byte path: d^2 within the plane, [D, H, W]
  uint8_t* any;             // float path: rows that hold a boundary, [D, H]
  Work* plane;              // a thread's [2, H + 2, W + 2]
  uint8_t* padded;          // a thread's [H, W + 2 kPad] bytes
  float* line;              // a thread's [max(H, D), W]
  double* envelope;         // a thread's [3, max(H, D) + 1]
  Squares squares;          // along W

  Scratch(const BoundaryArgs& a, Arena& arena) : squares(arena, boundary_in_bytes(a) ? 0 : a.size[3]) {
    const int64_t D = a.size[1], H = a.size[2], W = a.size[3], longest = D > H ? D : H;
    const bool bytes = boundary_in_bytes(a);
    minimum = arena.take<Work>(D * H * W);
    maximum = arena.take<Work>(D * H * W);
    near = arena.take<uint8_t>(bytes ? D * H * W : 0);
    any = arena.take<uint8_t>(bytes ? 0 : D * H);
    plane = arena.take<Work>(a.threads * 2 * (H + 2) * (W + 2));
    padded = arena.take<uint8_t>(a.threads * H * (W + 2 * kPad));
    line = arena.take<float>(bytes ? 0 : a.threads * longest * W);
    envelope = arena.take<double>(bytes ? 0 : a.threads * 3 * (longest + 1));
  }
};

template <typename Label>
SURE_FAST_INLINE bool is_ignored(const BoundaryArgs& a, Label label) {
  return a.has_ignore && static_cast<int64_t>(label) == a.ignore;
}

// Minimum and maximum of the 3 x 3 neighbourhood in one plane; an ignored voxel is in neither. Returns whether every
// label that counts could be told apart: a byte holds [0, 255], of which 255 is taken where voxels are ignored.
template <typename Label, typename Work>
bool plane_extremes(const BoundaryArgs& a, const Label* label, Work* scratch, Work* minimum, Work* maximum) {
  const int64_t H = a.size[2], W = a.size[3], P = W + 2;
  Work* low = scratch;
  Work* high = scratch + (H + 2) * P;
  if (!a.has_ignore) high = low;  // the same numbers; the border is filled by repeating it
  const uint64_t largest_label = sizeof(Work) > 1 ? UINT64_MAX : a.has_ignore ? 254 : 255;
  uint8_t unfit = 0;
  for (int64_t h = 0; h < H; ++h) {
    Work* l = low + (h + 1) * P + 1;
    Work* u = high + (h + 1) * P + 1;
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
  for (int side = 0; side < 2; ++side) {
    Work* half = side == 0 ? low : high;
    memcpy(half, half + P, sizeof(Work) * static_cast<size_t>(P));
    memcpy(half + (H + 1) * P, half + H * P, sizeof(Work) * static_cast<size_t>(P));
  }
  for (int64_t h = 0; h < H; ++h) {
    const Work *l0 = low + h * P, *l1 = l0 + P, *l2 = l1 + P;
    const Work *u0 = high + h * P, *u1 = u0 + P, *u2 = u1 + P;
    Work* out_low = minimum + h * W;
    Work* out_high = maximum + h * W;
#pragma omp simd
    for (int64_t w = 0; w < W; ++w) {
      Work low_here = l1[w], high_here = u1[w];
      for (int k = 0; k < 3; ++k) {
        const Work x0 = l0[w + k], x1 = l1[w + k], x2 = l2[w + k];
        const Work y0 = u0[w + k], y1 = u1[w + k], y2 = u2[w + k];
        low_here = x0 < low_here ? x0 : low_here;
        low_here = x1 < low_here ? x1 : low_here;
        low_here = x2 < low_here ? x2 : low_here;
        high_here = y0 > high_here ? y0 : high_here;
        high_here = y1 > high_here ? y1 : high_here;
        high_here = y2 > high_here ? y2 : high_here;
      }
      out_low[w] = low_here;
      out_high[w] = high_here;
    }
  }
  return unfit == 0;
}

// One row: 0 on a boundary voxel, 255 elsewhere. Returns whether there is any.
template <typename Label, typename Work>
bool boundary_row(const BoundaryArgs& a, const Scratch<Work>& s, const Label* label, int64_t d, int64_t h,
                  uint8_t* out) {
  const int64_t D = a.size[1], H = a.size[2], W = a.size[3];
  const int64_t at = (d * H + h) * W, plane = H * W;
  const int64_t before = at - (d > 0 ? plane : 0), after = at + (d + 1 < D ? plane : 0);
  const Work *l0 = s.minimum + before, *l1 = s.minimum + at, *l2 = s.minimum + after;
  const Work *u0 = s.maximum + before, *u1 = s.maximum + at, *u2 = s.maximum + after;
  uint8_t all = 255;
#pragma omp simd reduction(& : all)
  for (int64_t w = 0; w < W; ++w) {
    const Work a0 = l0[w] < l1[w] ? l0[w] : l1[w], low = a0 < l2[w] ? a0 : l2[w];
    const Work b0 = u0[w] > u1[w] ? u0[w] : u1[w], high = b0 > u2[w] ? b0 : u2[w];
    const uint8_t value = low < high ? 0 : 255;
    out[w] = value;
    all &= value;
  }
  if (a.has_ignore) {
    all = 255;
    const Label* row = label + at;
    for (int64_t w = 0; w < W; ++w) {
      out[w] = is_ignored(a, row[w]) ? 255 : out[w];
      all &= out[w];
    }
  }
  return all != 255;
}

SURE_FAST_INLINE uint8_t add_saturated(uint8_t x, uint8_t y) {
  const uint8_t sum = static_cast<uint8_t>(x + y);
  return sum < x ? 255 : sum;
}

// out = min over |k| <= reach of rows[k] + k^2, of rows that exist; `before` and `after` of them do.
SURE_FAST_INLINE void nearest_bytes(const uint8_t* row, int64_t stride, int64_t before, int64_t after, int reach,
                                    int64_t W, uint8_t* out) {
  memcpy(out, row, static_cast<size_t>(W));
  for (int k = 1; k <= reach; ++k) {
    const uint8_t cost = static_cast<uint8_t>(k * k);
    const uint8_t* left = row - (k <= before ? k : 0) * stride;  // the row itself adds nothing nearer
    const uint8_t* right = row + (k <= after ? k : 0) * stride;
#pragma omp simd
    for (int64_t w = 0; w < W; ++w) {
      const uint8_t x = left[w] < right[w] ? left[w] : right[w];
      const uint8_t y = add_saturated(x, cost);
      out[w] = y < out[w] ? y : out[w];
    }
  }
}

// Byte path of one plane: boundary, then the distance along W and H.
template <typename Label, typename Work>
void plane_bytes(const BoundaryArgs& a, const Scratch<Work>& s, const Label* label, int64_t d, int reach) {
  const int64_t H = a.size[2], W = a.size[3], P = W + 2 * kPad;
  uint8_t* rows = s.padded + thread_index() * H * P;
  uint8_t* out = s.near + d * H * W;
  bool any = false;
  for (int64_t h = 0; h < H; ++h) {
    uint8_t* row = rows + h * P;
    memset(row, 255, static_cast<size_t>(P));
    if (!boundary_row(a, s, label, d, h, row + kPad)) continue;
    any = true;
    nearest_bytes(row + kPad, 1, kPad, kPad, reach, W, out + h * W);
    memcpy(row + kPad, out + h * W, static_cast<size_t>(W));
  }
  if (!any) {
    memset(out, 255, static_cast<size_t>(H * W));
    return;
  }
  for (int64_t h = 0; h < H; ++h) {
    nearest_bytes(rows + h * P + kPad, P, h, H - 1 - h, reach, W, out + h * W);
  }
}

template <typename Label, typename Work>
void image_floats(const BoundaryArgs& a, const Scratch<Work>& s, const Label* label, float* out) {
  const int64_t D = a.size[1], H = a.size[2], W = a.size[3], longest = D > H ? D : H;
  const double farthest = a.limit < 0 ? static_cast<double>(kInf) : a.limit * (1 + 1e-12);
  s.squares.fill(a.step[2], farthest);
  parallel_tasks(D, a.threads, [&](int64_t d) {
    float* rows = s.line + thread_index() * longest * W;
    uint8_t* boundary = s.padded + thread_index() * H * (W + 2 * kPad);
    for (int64_t h = 0; h < H; ++h) {
      s.any[d * H + h] = boundary_row(a, s, label, d, h, boundary);
      row_floats(boundary, s.squares, W, rows + h * W);
    }
    lines_floats(rows, s.any + d * H, 1, H, W, a.step[1], farthest, s.envelope + thread_index() * 3 * (longest + 1),
                 out + d * H * W, W);
  });
  parallel_tasks(D, a.threads, [&](int64_t d) {  // now: any row of the plane
    uint8_t any = 0;
    for (int64_t h = 0; h < H; ++h) any |= s.any[d * H + h];
    s.any[d * H] = any;
  });
  const float limit = a.limit < 0 ? kInf : static_cast<float>(a.limit * a.limit * (1 + 2e-6));
  parallel_tasks(H, a.threads, [&](int64_t h) {
    float* rows = s.line + thread_index() * longest * W;
    for (int64_t d = 0; d < D; ++d) memcpy(rows + d * W, out + (d * H + h) * W, sizeof(float) * static_cast<size_t>(W));
    lines_floats(rows, s.any, H, D, W, a.step[0], farthest, s.envelope + thread_index() * 3 * (longest + 1),
                 out + h * W, H * W);
    for (int64_t d = 0; d < D; ++d) {
      float* row = out + (d * H + h) * W;
#pragma omp simd
      for (int64_t w = 0; w < W; ++w) row[w] = row[w] > limit ? kInf : __builtin_sqrtf(row[w]);
    }
  });
}

template <typename Label, typename Work>
void image_bytes(const BoundaryArgs& a, const Scratch<Work>& s, const Label* label, float* out, uint8_t* squared) {
  const int64_t D = a.size[1], H = a.size[2], W = a.size[3];
  const double steps = a.limit / a.step[0];
  const int reach = static_cast<int>(steps * (1 + 1e-12));
  const int most = static_cast<int>(steps * steps * (1 + 1e-12));
  const float step = static_cast<float>(a.step[0]);
  parallel_tasks(D, a.threads, [&](int64_t d) { plane_bytes(a, s, label, d, reach); });
  parallel_tasks(D, a.threads, [&](int64_t d) {
    uint8_t* nearest = s.padded + thread_index() * H * (W + 2 * kPad);
    for (int64_t h = 0; h < H; ++h) {
      const int64_t at = (d * H + h) * W;
      uint8_t* row = squared != nullptr ? squared + at : nearest;
      nearest_bytes(s.near + at, H * W, d, D - 1 - d, reach, W, row);
      if (squared != nullptr) {
        for (int64_t w = 0; w < W; ++w) row[w] = row[w] > most ? kBeyond : row[w];
        if (a.has_ignore) {
          for (int64_t w = 0; w < W; ++w) row[w] = is_ignored(a, label[at + w]) ? kIgnored : row[w];
        }
      } else {
#pragma omp simd
        for (int64_t w = 0; w < W; ++w) {
          out[at + w] = row[w] > most ? kInf : step * __builtin_sqrtf(static_cast<float>(row[w]));
        }
      }
    }
  });
}

template <typename Label, typename Work>
bool run(const BoundaryArgs& a, void* workspace, float* distance, uint8_t* squared) {
  const int64_t H = a.size[2], W = a.size[3], volume = a.size[1] * H * W;
  Arena arena(workspace);
  const Scratch<Work> s(a, arena);
  for (int64_t n = 0; n < a.size[0]; ++n) {
    const Label* label = static_cast<const Label*>(a.label) + n * volume;
    bool fits = true;
    parallel_tasks(a.size[1], a.threads, [&](int64_t d) {
      Work* plane = s.plane + thread_index() * 2 * (H + 2) * (W + 2);
      if (!plane_extremes(a, label + d * H * W, plane, s.minimum + d * H * W, s.maximum + d * H * W)) {
        __atomic_store_n(&fits, false, __ATOMIC_RELAXED);
      }
    });
    if (!fits) return false;
    if (squared != nullptr) {
      image_bytes(a, s, label, nullptr, squared + n * volume);
    } else if (boundary_in_bytes(a)) {
      image_bytes(a, s, label, distance + n * volume, nullptr);
    } else {
      image_floats(a, s, label, distance + n * volume);
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
  switch (a.dtype) {
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
