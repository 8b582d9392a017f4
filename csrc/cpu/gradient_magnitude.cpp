// Gradient magnitude of an image [N, K, D, H, W]: out = sqrt(sum_axes (D_axis S_others image / spacing)^2), with
//   Sobel: D = [-1 0 1]/2, S = [1 2 1]/4, borders replicate;  central: D = central differences, one-sided at the
//   borders, S = identity.  2D is D = 1: replicated planes smooth to themselves and have no derivative.
// Parallel over tiles of 16 rows x 256 columns x up to 32 planes. A tile walks along D and keeps, for three planes,
// the rows smoothed and differentiated along H; the D and W steps then finish a row in registers and L1.
// Bytes per voxel: the image once (1.2 times with halos), the output once. No reduction. Bound by memory once a few
// cores share it, by about 30 vector operations per voxel on one.
#include "cpu/gradient_magnitude.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kRows = 16;
constexpr int kColumns = 256;
constexpr int kPlanes = 32;
constexpr int kPitch = kColumns + 32;  // one halo column on each side, rounded to whole vectors

template <typename T>
struct Tile {
  T rows[kRows + 2][kPitch];       // the combined image, with halo
  T smooth[3][kRows][kPitch];      // along H: S image, for the planes z mod 3
  T derivative[3][kRows][kPitch];  // along H: D image
  T along_w[kPitch], along_h[kPitch], along_d[kPitch];
};

SURE_FAST_INLINE int64_t clamp_index(int64_t i, int64_t size) { return i < 0 ? 0 : (i >= size ? size - 1 : i); }

// One row of columns first-1 .. first+count (clamped) of the weighted channels, as T.
template <typename T, typename Storage>
void load_row(const GradientArgs& a, const Storage* base, int channels, const double* weights, int64_t first, int count,
              T* row) {
  const int64_t step = a.stride[4];
  for (int k = 0; k < channels; ++k) {
    const Storage* source = base + k * a.stride[1] + first * step;
    const T w = static_cast<T>(weights[k]);
    T* to = row + 1;
    if (k == 0 && channels == 1) {
      if (step == 1) {
        for (int x = 0; x < count; ++x) to[x] = static_cast<T>(widen(source[x]));
      } else {
        for (int x = 0; x < count; ++x) to[x] = static_cast<T>(widen(source[x * step]));
      }
    } else {
      for (int x = 0; x < count; ++x) to[x] = (k ? to[x] : T(0)) + w * static_cast<T>(widen(source[x * step]));
    }
    const T left = static_cast<T>(widen(source[(clamp_index(first - 1, a.size[4]) - first) * step]));
    const T right = static_cast<T>(widen(source[(clamp_index(first + count, a.size[4]) - first) * step]));
    row[0] = channels == 1 ? left : (k ? row[0] : T(0)) + w * left;
    row[count + 1] = channels == 1 ? right : (k ? row[count + 1] : T(0)) + w * right;
  }
}

struct Extent {
  int64_t image, z0, y0, x0;
  int planes, rows, columns;
};

template <typename T, typename Storage>
void load_plane(const GradientArgs& a, const Extent& e, int channel, int64_t z, Tile<T>& tile, int slot) {
  const double one = 1.0;
  const int channels = a.max_channels ? 1 : static_cast<int>(a.size[1]);
  const Storage* plane = static_cast<const Storage*>(a.image) + e.image * a.stride[0] + channel * a.stride[1] +
                         clamp_index(z, a.size[2]) * a.stride[2];
  for (int r = 0; r < e.rows + 2; ++r) {
    const int64_t y = clamp_index(e.y0 + r - 1, a.size[3]);
    load_row<T, Storage>(a, plane + y * a.stride[3], channels, channels == 1 ? &one : a.weight, e.x0, e.columns,
                         tile.rows[r]);
  }
  for (int r = 0; r < e.rows; ++r) {
    const T *up = tile.rows[r], *here = tile.rows[r + 1], *down = tile.rows[r + 2];
    T *smooth = tile.smooth[slot][r], *derivative = tile.derivative[slot][r];
    const bool sobel = !a.central;
#pragma omp simd
    for (int x = 0; x < e.columns + 2; ++x) {
      smooth[x] = sobel ? (up[x] + T(2) * here[x] + down[x]) * T(0.25) : here[x];
      derivative[x] = (down[x] - up[x]) * T(0.5);
    }
  }
}

// One output row from three planes; `at_h`, `at_d` double the one-sided differences of the central operator.
template <typename T, typename Storage>
void finish_row(const GradientArgs& a, const Extent& e, Tile<T>& tile, const int slot[3], int r, T at_h, T at_d,
                bool combine, Storage* out) {
  const T *s0 = tile.smooth[slot[0]][r], *s1 = tile.smooth[slot[1]][r], *s2 = tile.smooth[slot[2]][r];
  const T *d0 = tile.derivative[slot[0]][r], *d1 = tile.derivative[slot[1]][r], *d2 = tile.derivative[slot[2]][r];
  T *w = tile.along_w, *h = tile.along_h, *d = tile.along_d;
  const bool sobel = !a.central;
  const T scale_w = static_cast<T>(a.scale[2]) * T(0.5), scale_h = static_cast<T>(a.scale[1]) * at_h,
          scale_d = static_cast<T>(a.scale[0]) * T(0.5) * at_d;
#pragma omp simd
  for (int x = 0; x < e.columns + 2; ++x) {
    w[x] = (sobel ? (s0[x] + T(2) * s1[x] + s2[x]) * T(0.25) : s1[x]) * scale_w;
    h[x] = (sobel ? (d0[x] + T(2) * d1[x] + d2[x]) * T(0.25) : d1[x]) * scale_h;
    d[x] = (s2[x] - s0[x]) * scale_d;
  }
  T* result = tile.rows[0];  // free once the plane is loaded
#pragma omp simd
  for (int x = 0; x < e.columns; ++x) {
    const T gw = w[x + 2] - w[x];
    const T gh = sobel ? (h[x] + T(2) * h[x + 1] + h[x + 2]) * T(0.25) : h[x + 1];
    const T gd = sobel ? (d[x] + T(2) * d[x + 1] + d[x + 2]) * T(0.25) : d[x + 1];
    result[x] = std::sqrt(gw * gw + gh * gh + gd * gd);
  }
  if (a.central) {
    for (int side = 0; side < 2; ++side) {
      const int64_t x = (side ? a.size[4] - 1 : 0) - e.x0;
      if (x < 0 || x >= e.columns || (side && a.size[4] == 1)) continue;
      const T gw = T(2) * (w[x + 2] - w[x]), gh = h[x + 1], gd = d[x + 1];
      result[x] = std::sqrt(gw * gw + gh * gh + gd * gd);
    }
  }
  for (int x = 0; x < e.columns; ++x) {
    T value = result[x];
    if (combine) {
      const T before = static_cast<T>(widen(out[x]));
      value = before != before || value < before ? before : value;
    }
    narrow(value, out[x]);
  }
}

template <typename T, typename Storage>
void run(const GradientArgs& a, Storage* out) {
  const int64_t depth = a.size[2], height = a.size[3], width = a.size[4];
  const int64_t tiles_z = (depth + kPlanes - 1) / kPlanes, tiles_y = (height + kRows - 1) / kRows,
                tiles_x = (width + kColumns - 1) / kColumns;
  parallel_tasks(a.size[0] * tiles_z * tiles_y * tiles_x, a.threads, [&](int64_t task) {
    Tile<T>* tile = static_cast<Tile<T>*>(aligned_alloc(64, (sizeof(Tile<T>) + 63) / 64 * 64));
    Extent e;
    e.x0 = task % tiles_x * kColumns;
    e.y0 = task / tiles_x % tiles_y * kRows;
    e.z0 = task / (tiles_x * tiles_y) % tiles_z * kPlanes;
    e.image = task / (tiles_x * tiles_y * tiles_z);
    e.planes = static_cast<int>(depth - e.z0 < kPlanes ? depth - e.z0 : kPlanes);
    e.rows = static_cast<int>(height - e.y0 < kRows ? height - e.y0 : kRows);
    e.columns = static_cast<int>(width - e.x0 < kColumns ? width - e.x0 : kColumns);
    const int channels = a.max_channels ? static_cast<int>(a.size[1]) : 1;
    for (int k = 0; k < channels; ++k) {
      int64_t loaded = -1;  // planes up to here are in the ring, at slot z mod 3
      for (int64_t z = e.z0; z < e.z0 + e.planes; ++z) {
        const int64_t low = clamp_index(z - 1, depth), high = clamp_index(z + 1, depth);
        for (int64_t p = loaded < 0 ? low : loaded + 1; p <= high; ++p) {
          load_plane<T, Storage>(a, e, k, p, *tile, static_cast<int>(p % 3));
          loaded = p;
        }
        const int slot[3] = {static_cast<int>(low % 3), static_cast<int>(z % 3), static_cast<int>(high % 3)};
        const T at_d = a.central && (z == 0 || z == depth - 1) ? T(2) : T(1);
        for (int r = 0; r < e.rows; ++r) {
          const int64_t y = e.y0 + r;
          const T at_h = a.central && (y == 0 || y == height - 1) ? T(2) : T(1);
          Storage* row = out + ((e.image * depth + z) * height + y) * width + e.x0;
          finish_row<T, Storage>(a, e, *tile, slot, r, at_h, at_d, k > 0, row);
        }
      }
    }
    free(tile);
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
