// Gradient magnitude of an image [N, K, D, H, W]: out = sqrt(sum_axes (D_axis S_others image / spacing)^2), with
//   Sobel: D = [-1 0 1]/2, S = [1 2 1]/4, borders replicate;  central: D = central differences, one-sided at the
//   borders, S = identity.  2D is D = 1: replicated planes smooth to themselves and have no derivative.
// Parallel over strips of rows x up to 32 planes. A strip walks along D, within a plane along H: each row of it is
// smoothed and differentiated along D, and of three such rows the H and W steps finish one in registers. So the planes
// are read one row after the other, the two that were read before from the second-level cache.
// Bytes per voxel: the image once (and the halos of strips), the output once. float32 (float64 for float64) arithmetic,
// no reduction. 9 loads, 3 stores, about 25 operations and a root a vector, bound by latencies of the second-level
// cache.
#include "cpu/gradient_magnitude.h"

#include "cpu/vectors.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kColumns = 512;  // of a strip at most
constexpr int kStrip = 8192;   // voxels of a strip's plane with its halo: three planes stay in the second-level cache
constexpr int kCopiedColumns = 128, kCopied = 2048;  // the same where the planes are copied, onto the stack
constexpr int kPlanes = 32;
constexpr int kStrips = 4;  // a thread, where they need be no smaller than this for it:
constexpr int kLeast = 8;   // rows and planes, as each strip reads two more
constexpr int kLead = 16;   // keeps column 0 aligned behind its halo column
constexpr int kPitch = kLead + kColumns + 16;

SURE_FAST_INLINE int64_t clamp_index(int64_t i, int64_t size) { return i < 0 ? 0 : (i >= size ? size - 1 : i); }

struct Extent {
  int64_t image, z0, y0, x0;
  int planes, rows, columns;
};

// The rows of a strip in one plane of the image, in place or as a copy.
template <typename T>
struct Plane {
  const T* first;          // column x0 of row `origin`
  int64_t origin, pitch;   // in the image; elements from row to row
  int64_t before, behind;  // the halo columns

  SURE_FAST_INLINE_MEMBER const T* row(int64_t y) const { return first + (y - origin) * pitch; }
};

template <typename T>
struct Tile {
  T smooth[3][kPitch];      // of row y mod 3, along D: 4 S image (Sobel) or the image
  T derivative[3][kPitch];  // along D: 2 D image
  T result[kPitch];
  T copies[3][kCopied];  // of plane z mod 3, where it cannot be read in place
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

SURE_FAST_INLINE int combined_channels(const GradientArgs& a) {
  return a.max_channels ? 1 : static_cast<int>(a.size[1]);
}

// Whether a plane cannot be read in place.
template <typename T, typename Storage>
SURE_FAST_INLINE bool copied(const GradientArgs& a) {
  return !std::is_same<T, Storage>::value || combined_channels(a) > 1 || a.stride[4] != 1;
}

// Plane z of the strip.
template <typename T, typename Storage>
Plane<T> load_plane(const GradientArgs& a, const Extent& e, int channel, int64_t z, T* copy) {
  const int channels = combined_channels(a);
  const int64_t step = a.stride[4], width = a.size[4], end = e.x0 + e.columns;
  const int64_t before = clamp_index(e.x0 - 1, width) - e.x0, behind = clamp_index(end, width) - e.x0;
  const Storage* plane = static_cast<const Storage*>(a.image) + e.image * a.stride[0] + channel * a.stride[1] +
                         z * a.stride[2] + e.x0 * step;
  if constexpr (std::is_same<T, Storage>::value) {
    if (!copied<T, Storage>(a)) return {plane, 0, a.stride[3], before, behind};
  }
  const int64_t low = clamp_index(e.y0 - 1, a.size[3]), high = clamp_index(e.y0 + e.rows, a.size[3]);
  const int64_t pitch = e.columns + 2;
  for (int64_t y = low; y <= high; ++y) {
    const Storage* source = plane + y * a.stride[3];
    T* row = copy + (y - low) * pitch + 1;
    if (channels == 1 && step == 1) {
      for (int x = 0; x < e.columns; ++x) row[x] = static_cast<T>(widen(source[x]));
    } else {
      for (int x = 0; x < e.columns; ++x) row[x] = combined<T>(a, source + x * step, channels, a.weight);
    }
    row[-1] = combined<T>(a, source + before * step, channels, a.weight);
    row[e.columns] = combined<T>(a, source + behind * step, channels, a.weight);
  }
  return {copy + 1, low, pitch, -1, e.columns};
}

// Row y of the strip, smoothed and differentiated along D.
template <bool sobel, typename T>
void load_row(const Plane<T> planes[3], int64_t y, int columns, bool flat, T* smooth, T* derivative) {
  const T *front = planes[0].row(y), *here = planes[1].row(y), *back = planes[2].row(y);
#pragma omp simd
  for (int x = 0; x < columns; ++x) {
    smooth[x] = sobel ? front[x] + T(2) * here[x] + back[x] : here[x];
    derivative[x] = back[x] - front[x];
  }
  for (int x = -1; x <= columns; x += columns + 1) {
    const int64_t at[3] = {x < 0 ? planes[0].before : planes[0].behind, x < 0 ? planes[1].before : planes[1].behind,
                           x < 0 ? planes[2].before : planes[2].behind};
    smooth[x] = sobel ? front[at[0]] + T(2) * here[at[1]] + back[at[2]] : here[at[1]];
    derivative[x] = back[at[2]] - front[at[0]];
  }
  if (!flat) return;
  for (int x = -1; x <= columns; ++x) derivative[x] = T(0);  // not infinity less infinity
}

// Three rows of a strip, smoothed and differentiated along D, and how far their differences reach.
template <bool sobel, typename T>
struct Rows {
  const T *smooth[3], *derivative[3];
  T scale_w, scale_h, scale_d;

  // What is left to differentiate or smooth along W: for the derivative along W, along H and along D.
  template <typename Value, typename Read>
  SURE_FAST_INLINE_MEMBER void along_h(const Read& read, Value& w, Value& h, Value& d) const {
    const Value above = read(smooth[0]), here = read(smooth[1]), below = read(smooth[2]);
    w = sobel ? above + T(2) * here + below : here;
    h = below - above;
    d = sobel ? read(derivative[0]) + T(2) * read(derivative[1]) + read(derivative[2]) : read(derivative[1]);
  }

  template <typename Value>
  SURE_FAST_INLINE_MEMBER Value square(Value w, Value h, Value d) const {
    const Value gw = w * scale_w, gh = h * scale_h, gd = d * scale_d;
    return gw * gw + gh * gh + gd * gd;
  }

  // The magnitude at one end of the image, where the central difference along W is one-sided.
  T one_sided(int64_t x) const {
    T w[3], h[3], d[3];
    for (int i = 0; i < 3; ++i) along_h([&](const T* row) { return row[x + i - 1]; }, w[i], h[i], d[i]);
    return std::sqrt(square(T(2) * (w[2] - w[0]), h[1], d[1]));
  }

  void magnitude(int columns, T* out) const {
    using V = VectorOf<T>;
    using All = typename V::All;
    constexpr int L = V::kLanes;
    const auto read_at = [&](int x, All& w, All& h, All& d) {
      along_h([&](const T* row) { return V::at(row + x); }, w, h, d);
    };
    All w[3], h[3], d[3];
    read_at(-L, w[0], h[0], d[0]);
    read_at(0, w[1], h[1], d[1]);
    for (int x = 0; x < columns; x += L) {
      read_at(x + L, w[2], h[2], d[2]);
      const auto left = [](const All* v) { return V::template part<L - 1>(v[0], v[1]); };
      const auto right = [](const All* v) { return V::template part<1>(v[1], v[2]); };
      const auto smoothed = [&](const All* v) { return sobel ? left(v) + T(2) * v[1] + right(v) : v[1]; };
      alignas(kVectorBytes) T sum[L];
      const All squares = square(right(w) - left(w), smoothed(h), smoothed(d));
      memcpy(sum, &squares, sizeof(sum));
      for (int i = 0; i < L; ++i) sum[i] = std::sqrt(sum[i]);
      if (x + L <= columns) {
        memcpy(out + x, sum, sizeof(sum));
      } else {
        memcpy(out + x, sum, sizeof(T) * static_cast<size_t>(columns - x));
      }
      for (int i = 0; i < 2; ++i) {
        w[i] = w[i + 1];
        h[i] = h[i + 1];
        d[i] = d[i + 1];
      }
    }
  }
};

// One output row; `combine` keeps the larger of what is there.
template <bool sobel, typename T, typename Storage>
void finish_row(const GradientArgs& a, const Extent& e, const Rows<sobel, T>& rows, bool combine, T* result,
                Storage* out) {
  if constexpr (std::is_same<T, Storage>::value) {
    if (!combine) result = out;
  }
  rows.magnitude(e.columns, result);
  if (!sobel) {
    if (e.x0 == 0) result[0] = rows.one_sided(0);
    if (e.x0 + e.columns == a.size[4]) result[e.columns - 1] = rows.one_sided(e.columns - 1);
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

// Plane z of the output from three planes of the image.
template <bool sobel, typename T, typename Storage>
void run_plane(const GradientArgs& a, const Extent& e, const Plane<T> planes[3], int64_t z, bool combine, Tile<T>& tile,
               Storage* out) {
  const int64_t depth = a.size[2], height = a.size[3];
  const T unit = sobel ? T(1.0 / 32) : T(0.5);  // 1/2 of the derivative, 1/4 of each smoothing
  const auto scale = [&](int axis, bool at_end) {
    return static_cast<T>(a.scale[axis]) * unit * (!sobel && at_end ? T(2) : T(1));
  };
  int64_t loaded = clamp_index(e.y0 - 1, height) - 1;  // rows up to here are in the tile, at y mod 3
  for (int64_t y = e.y0; y < e.y0 + e.rows; ++y) {
    const int64_t at[3] = {clamp_index(y - 1, height), y, clamp_index(y + 1, height)};
    while (loaded < at[2]) {
      ++loaded;
      load_row<sobel>(planes, loaded, e.columns, depth == 1, tile.smooth[loaded % 3] + kLead,
                      tile.derivative[loaded % 3] + kLead);
    }
    Rows<sobel, T> rows;
    for (int i = 0; i < 3; ++i) {
      rows.smooth[i] = tile.smooth[at[i] % 3] + kLead;
      rows.derivative[i] = tile.derivative[at[i] % 3] + kLead;
    }
    rows.scale_w = scale(2, false);
    rows.scale_h = scale(1, y == 0 || y == height - 1);
    rows.scale_d = scale(0, z == 0 || z == depth - 1);
    finish_row(a, e, rows, combine, tile.result, out + y * a.size[4]);
  }
}

template <bool sobel, typename T, typename Storage>
void run_strip(const GradientArgs& a, const Extent& e, Tile<T>& tile, Storage* out) {
  const int64_t depth = a.size[2], height = a.size[3], width = a.size[4];
  const int channels = a.max_channels ? static_cast<int>(a.size[1]) : 1;
  for (int k = 0; k < channels; ++k) {
    int64_t loaded = clamp_index(e.z0 - 1, depth) - 1;  // planes up to here are there, at z mod 3
    Plane<T> there[3];
    for (int64_t z = e.z0; z < e.z0 + e.planes; ++z) {
      const int64_t low = clamp_index(z - 1, depth), high = clamp_index(z + 1, depth);
      while (loaded < high) {
        ++loaded;
        there[loaded % 3] = load_plane<T, Storage>(a, e, k, loaded, tile.copies[loaded % 3]);
      }
      const Plane<T> planes[3] = {there[low % 3], there[z % 3], there[high % 3]};
      run_plane<sobel>(a, e, planes, z, k > 0, tile, out + (e.image * depth + z) * height * width + e.x0);
    }
  }
}

// How many equal parts of at most `most` there are.
SURE_FAST_INLINE int64_t parts_of(int64_t size, int64_t most) { return (size + most - 1) / most; }

template <typename T, typename Storage>
void run(const GradientArgs& a, Storage* out) {
  const int64_t depth = a.size[2], height = a.size[3], width = a.size[4];
  const bool copies = copied<T, Storage>(a);
  const int64_t parts_x = parts_of(width, copies ? kCopiedColumns : kColumns), columns = parts_of(width, parts_x);
  int64_t most_rows = (copies ? kCopied : kStrip) / (columns + 2) - 2, most_planes = kPlanes;
  const auto strips = [&] { return a.size[0] * parts_x * parts_of(height, most_rows) * parts_of(depth, most_planes); };
  while (strips() < kStrips * a.threads && most_planes > kLeast) most_planes /= 2;
  while (strips() < kStrips * a.threads && most_rows > kLeast) most_rows /= 2;
  const int64_t parts_y = parts_of(height, most_rows), rows = parts_of(height, parts_y);
  const int64_t parts_z = parts_of(depth, most_planes), planes = parts_of(depth, parts_z);
  parallel_tasks(a.size[0] * parts_z * parts_y * parts_x, a.threads, [&](int64_t task) {
    alignas(64) Tile<T> tile;
    memset(tile.smooth, 0, sizeof(tile.smooth));
    memset(tile.derivative, 0, sizeof(tile.derivative));
    Extent e;
    e.x0 = task % parts_x * columns;
    e.y0 = task / parts_x % parts_y * rows;
    e.z0 = task / (parts_x * parts_y) % parts_z * planes;
    e.image = task / (parts_x * parts_y * parts_z);
    e.planes = static_cast<int>(depth - e.z0 < planes ? depth - e.z0 : planes);
    e.rows = static_cast<int>(height - e.y0 < rows ? height - e.y0 : rows);
    e.columns = static_cast<int>(width - e.x0 < columns ? width - e.x0 : columns);
    if (a.central) {
      run_strip<false, T, Storage>(a, e, tile, out);
    } else {
      run_strip<true, T, Storage>(a, e, tile, out);
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
