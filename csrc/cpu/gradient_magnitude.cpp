// Gradient magnitude of an image [N, K, D, H, W]: out = sqrt(sum_axes (D_axis S_others image / spacing)^2), with
//   Sobel: D = [-1 0 1]/2, S = [1 2 1]/4, borders replicate;  central: D = central differences, one-sided at the
//   borders, S = identity.  2D is D = 1: replicated planes smooth to themselves and have no derivative.
// Parallel over tiles of 8 rows x 128 columns x up to 32 planes. A tile walks along D and keeps, for three planes,
// the rows smoothed and differentiated along H; the D and W steps then finish a row in registers and L1.
// Bytes per voxel: the image once (1.3 times with halos), the output once. float32 (float64 for float64) arithmetic, no
// reduction. Bound by memory once a few cores share it, by about 30 vector operations per voxel on one.
#include "cpu/gradient_magnitude.h"

#include <type_traits>

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kRows = 8;
constexpr int kColumns = 128;
constexpr int kPlanes = 32;
constexpr int kLead = 16;  // keeps column 0 aligned behind its halo column
constexpr int kPitch = kLead + kColumns + 16;

// Six working rows a plane, three planes: 26 KB in float, which stays in L1.
template <typename T>
struct Tile {
  T smooth[3][kRows][kPitch];      // along H: 4 S image (Sobel) or the image, for the planes z mod 3
  T derivative[3][kRows][kPitch];  // along H: 2 D image
  T along_w[kPitch], along_h[kPitch], along_d[kPitch];
  T rows[kRows + 2][kPitch];  // the combined image, where it cannot be read in place
  T result[kPitch];
};

SURE_FAST_INLINE int64_t clamp_index(int64_t i, int64_t size) { return i < 0 ? 0 : (i >= size ? size - 1 : i); }

struct Extent {
  int64_t image, z0, y0, x0;
  int planes, rows, columns;
};

// The weighted sum of the channels at one voxel, as T.
template <typename T, typename Storage>
SURE_FAST_INLINE T combined(const GradientArgs& a, const Storage* at, int channels, const double* weights) {
  if (channels == 1) return static_cast<T>(widen(*at));
  T sum = T(0);
  for (int k = 0; k < channels; ++k)
    sum += static_cast<T>(weights[k < 2 ? k : 2]) * static_cast<T>(widen(at[k * a.stride[1]]));
  return sum;
}

// Plane z of the tile, smoothed and differentiated along H, into ring slot `slot`.
template <bool sobel, typename T, typename Storage>
void load_plane(const GradientArgs& a, const Extent& e, int channel, int64_t z, Tile<T>& tile, int slot) {
  const int channels = a.max_channels ? 1 : static_cast<int>(a.size[1]);
  const int64_t step = a.stride[4];
  const Storage* plane =
      static_cast<const Storage*>(a.image) + e.image * a.stride[0] + channel * a.stride[1] + z * a.stride[2];
  const T* row[kRows + 2];
  T left[kRows + 2], right[kRows + 2];  // the halo columns
  for (int r = 0; r < e.rows + 2; ++r) {
    const Storage* source = plane + clamp_index(e.y0 + r - 1, a.size[3]) * a.stride[3];
    left[r] = combined<T>(a, source + clamp_index(e.x0 - 1, a.size[4]) * step, channels, a.weight);
    right[r] = combined<T>(a, source + clamp_index(e.x0 + e.columns, a.size[4]) * step, channels, a.weight);
    source += e.x0 * step;
    if constexpr (std::is_same<T, Storage>::value) {
      if (channels == 1 && step == 1) {
        row[r] = source;
        continue;
      }
    }
    T* copy = tile.rows[r] + kLead;
    if (channels == 1 && step == 1) {
      for (int x = 0; x < e.columns; ++x) copy[x] = static_cast<T>(widen(source[x]));
    } else {
      for (int x = 0; x < e.columns; ++x) copy[x] = combined<T>(a, source + x * step, channels, a.weight);
    }
    row[r] = copy;
  }
  for (int r = 0; r < e.rows; ++r) {
    const T *up = row[r], *here = row[r + 1], *down = row[r + 2];
    T *smooth = tile.smooth[slot][r] + kLead, *derivative = tile.derivative[slot][r] + kLead;
#pragma omp simd
    for (int x = 0; x < e.columns; ++x) {
      smooth[x] = sobel ? up[x] + T(2) * here[x] + down[x] : here[x];
      derivative[x] = down[x] - up[x];
    }
    smooth[-1] = sobel ? left[r] + T(2) * left[r + 1] + left[r + 2] : left[r + 1];
    derivative[-1] = left[r + 2] - left[r];
    smooth[e.columns] = sobel ? right[r] + T(2) * right[r + 1] + right[r + 2] : right[r + 1];
    derivative[e.columns] = right[r + 2] - right[r];
  }
}

// One output row from three planes; `at_h` and `at_d` double the one-sided differences of the central operator.
template <bool sobel, typename T, typename Storage>
void finish_row(const GradientArgs& a, const Extent& e, Tile<T>& tile, const int slot[3], int r, T at_h, T at_d,
                bool combine, Storage* out) {
  const T *s0 = tile.smooth[slot[0]][r] + kLead, *s1 = tile.smooth[slot[1]][r] + kLead,
          *s2 = tile.smooth[slot[2]][r] + kLead;
  const T *d0 = tile.derivative[slot[0]][r] + kLead, *d1 = tile.derivative[slot[1]][r] + kLead,
          *d2 = tile.derivative[slot[2]][r] + kLead;
  T *w = tile.along_w + kLead, *h = tile.along_h + kLead, *d = tile.along_d + kLead;
  const T unit = sobel ? T(1.0 / 32) : T(0.5);  // 1/2 of the derivative, 1/4 of each smoothing
  const T scale_w = static_cast<T>(a.scale[2]) * unit, scale_h = static_cast<T>(a.scale[1]) * unit * at_h,
          scale_d = static_cast<T>(a.scale[0]) * unit * at_d;
#pragma omp simd
  for (int x = 0; x < e.columns; ++x) {
    w[x] = sobel ? s0[x] + T(2) * s1[x] + s2[x] : s1[x];
    h[x] = sobel ? d0[x] + T(2) * d1[x] + d2[x] : d1[x];
    d[x] = s2[x] - s0[x];
  }
  for (int x = -1; x <= e.columns; x += e.columns + 1) {
    w[x] = sobel ? s0[x] + T(2) * s1[x] + s2[x] : s1[x];
    h[x] = sobel ? d0[x] + T(2) * d1[x] + d2[x] : d1[x];
    d[x] = s2[x] - s0[x];
  }
  auto magnitude = [&](int64_t x, T at_w) {
    const T gw = (w[x + 1] - w[x - 1]) * at_w;
    const T gh = (sobel ? h[x - 1] + T(2) * h[x] + h[x + 1] : h[x]) * scale_h;
    const T gd = (sobel ? d[x - 1] + T(2) * d[x] + d[x + 1] : d[x]) * scale_d;
    return std::sqrt(gw * gw + gh * gh + gd * gd);
  };
  T* result = tile.result;
  if constexpr (std::is_same<T, Storage>::value) {
    if (!combine) result = out;
  }
#pragma omp simd
  for (int x = 0; x < e.columns; ++x) result[x] = magnitude(x, scale_w);
  if (!sobel) {
    if (e.x0 == 0) result[0] = magnitude(0, T(2) * scale_w);
    if (e.x0 + e.columns == a.size[4]) result[e.columns - 1] = magnitude(e.columns - 1, T(2) * scale_w);
  }
  if (static_cast<void*>(result) == static_cast<void*>(out)) return;
  for (int x = 0; x < e.columns; ++x) {
    T value = result[x];
    if (combine) {
      const T before = static_cast<T>(widen(out[x]));
      value = before != before || value < before ? before : value;
    }
    narrow(value, out[x]);
  }
}

template <bool sobel, typename T, typename Storage>
void run_tile(const GradientArgs& a, const Extent& e, Tile<T>& tile, Storage* out) {
  const int64_t depth = a.size[2], height = a.size[3], width = a.size[4];
  const int channels = a.max_channels ? static_cast<int>(a.size[1]) : 1;
  for (int k = 0; k < channels; ++k) {
    int64_t loaded = clamp_index(e.z0 - 1, depth) - 1;  // planes up to here are in the ring, at slot z mod 3
    for (int64_t z = e.z0; z < e.z0 + e.planes; ++z) {
      const int64_t low = clamp_index(z - 1, depth), high = clamp_index(z + 1, depth);
      while (loaded < high) {
        ++loaded;
        load_plane<sobel, T, Storage>(a, e, k, loaded, tile, static_cast<int>(loaded % 3));
      }
      const int slot[3] = {static_cast<int>(low % 3), static_cast<int>(z % 3), static_cast<int>(high % 3)};
      const T at_d = !sobel && (z == 0 || z == depth - 1) ? T(2) : T(1);
      for (int r = 0; r < e.rows; ++r) {
        const int64_t y = e.y0 + r;
        const T at_h = !sobel && (y == 0 || y == height - 1) ? T(2) : T(1);
        finish_row<sobel, T, Storage>(a, e, tile, slot, r, at_h, at_d, k > 0,
                                      out + ((e.image * depth + z) * height + y) * width + e.x0);
      }
    }
  }
}

template <typename T, typename Storage>
void run(const GradientArgs& a, Storage* out) {
  const int64_t depth = a.size[2], height = a.size[3], width = a.size[4];
  const int64_t tiles_z = (depth + kPlanes - 1) / kPlanes, tiles_y = (height + kRows - 1) / kRows,
                tiles_x = (width + kColumns - 1) / kColumns;
  parallel_tasks(a.size[0] * tiles_z * tiles_y * tiles_x, a.threads, [&](int64_t task) {
    alignas(64) Tile<T> tile;
    Extent e;
    e.x0 = task % tiles_x * kColumns;
    e.y0 = task / tiles_x % tiles_y * kRows;
    e.z0 = task / (tiles_x * tiles_y) % tiles_z * kPlanes;
    e.image = task / (tiles_x * tiles_y * tiles_z);
    e.planes = static_cast<int>(depth - e.z0 < kPlanes ? depth - e.z0 : kPlanes);
    e.rows = static_cast<int>(height - e.y0 < kRows ? height - e.y0 : kRows);
    e.columns = static_cast<int>(width - e.x0 < kColumns ? width - e.x0 : kColumns);
    if (a.central) {
      run_tile<false, T, Storage>(a, e, tile, out);
    } else {
      run_tile<true, T, Storage>(a, e, tile, out);
    }
  });
}

}  // namespace

void gradient_magnitude_forward(const GradientArgs& args, void* out) {
  switch (args.dtype) {
    case DType::f64: return run<double>(args, static_cast<double*>(out));
    case DType::bf16: return run<float>(args, static_cast<bfloat16_t*>(out));
    case DType::f16: return run<float>(args, static_cast<half_t*>(out));
    default: return run<float>(args, static_cast<float*>(out));
  }
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
