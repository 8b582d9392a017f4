// Gradient-uncertainty loss of a training step, from logits z [N, C, V], image [N, K, V] and boundary bytes [N, V].
//   u = C / sum alpha and g = |grad image| of the boundary voxels of one image at a time; then the pair loss and its
//   slope by u (pair_loss.h).
// u is computed at these voxels only, gathered in blocks of 128; g is written for one image into scratch that the next
// one uses again. No map of the batch but the slope is made.
// Parallel over images, or inside an image where there are fewer images than threads. float64 sums in a fixed order.
// Bytes per voxel: the boundary byte twice, the image once, the slope once; C logits per boundary voxel. Bound by the
// image's gradient, and by the sort where boundaries are dense.
#include "cpu/uncertainty_supervision.h"

#include "cpu/dirichlet.h"
#include "cpu/pair_loss.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

int64_t bytes_of(DType dtype) { return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2; }

// The gradient map of one image, in the image's dtype.
void one_gradient(const BoundaryPairArgs& a, int64_t row, int threads, void* map) {
  GradientArgs image = a.image;
  image.image = static_cast<const char*>(image.image) + row * image.stride[0] * bytes_of(image.dtype);
  image.size[0] = 1;
  image.threads = threads;
  gradient_magnitude_forward(image, map);
}

template <typename Value, typename Storage>
void gather_gradient(const void* map, const uint32_t* voxel, int64_t first, int64_t last, Value* g) {
  const Storage* values = static_cast<const Storage*>(map);
  for (int64_t i = first; i < last; ++i) g[i] = static_cast<Value>(widen(values[voxel[i]]));
}

template <typename Value>
int64_t compact(const BoundaryPairArgs& a, int64_t row, const int64_t* counts, int threads, const void* map,
                const PairScratch<Value>& s) {
  const uint8_t* squared = a.squared + row * a.pairs.n;
  const int64_t chunks = compact_chunks(a.pairs.n);
  parallel_tasks(chunks, threads, [&](int64_t c) {
    int64_t first = 0;
    for (int64_t before = 0; before < c; ++before) first += counts[before];
    const int64_t last = (c + 1) * kCompactChunk < a.pairs.n ? (c + 1) * kCompactChunk : a.pairs.n;
    const int64_t at = first + list_near(squared, c * kCompactChunk, last, a.near, s.voxel + first);
    for (int64_t i = first; i < at; i += kBlock) {
      const int count = static_cast<int>(at - i < kBlock ? at - i : kBlock);
      alignas(64) Value total[kBlock];
      gather_totals(a.logits, a.evidence, row, s.voxel + i, count, total);
      for (int k = 0; k < count; ++k) s.u[i + k] = Value(a.logits.channels) / total[k];
    }
    switch (a.image.dtype) {
      case DType::f64: return gather_gradient<Value, double>(map, s.voxel, first, at, s.g);
      case DType::bf16: return gather_gradient<Value, bfloat16_t>(map, s.voxel, first, at, s.g);
      case DType::f16: return gather_gradient<Value, half_t>(map, s.voxel, first, at, s.g);
      default: return gather_gradient<Value, float>(map, s.voxel, first, at, s.g);
    }
  });
  int64_t m = 0;
  for (int64_t c = 0; c < chunks; ++c) m += counts[c];
  return m;
}

template <typename Value>
int64_t scratch_bytes(const BoundaryPairArgs& a, int64_t most) {
  Arena arena(nullptr);
  arena.take<char>(a.pairs.n * bytes_of(a.image.dtype));
  PairScratch<Value>(arena, a.pairs, most, team_of(a.pairs.rows, most, a.pairs.threads).inner);
  return arena.used();
}

template <typename Value>
void run(const BoundaryPairArgs& a, const int64_t* counts, int64_t most, void* workspace, double* loss, void* slope) {
  const Team threads = team_of(a.pairs.rows, most, a.pairs.threads);
  const int64_t bytes = scratch_bytes<Value>(a, most);
  dynamic_tasks(a.pairs.rows, threads.outer, [&](int64_t row) {
    Arena arena(static_cast<char*>(workspace) + (threads.outer > 1 ? thread_index() : 0) * bytes);
    char* map = arena.take<char>(a.pairs.n * bytes_of(a.image.dtype));
    PairScratch<Value> s(arena, a.pairs, most, threads.inner);
    one_gradient(a, row, threads.inner, map);
    const int64_t m = compact(a, row, counts + row * compact_chunks(a.pairs.n), threads.inner, map, s);
    pair_loss_row(a.pairs, row, m, threads.inner, s, loss + row, static_cast<Value*>(slope) + row * a.pairs.n);
  });
}

}  // namespace

void uncertainty_supervision_count(const BoundaryPairArgs& a, int64_t* counts) {
  const int64_t chunks = compact_chunks(a.pairs.n);
  parallel_tasks(a.pairs.rows * chunks, a.pairs.threads, [&](int64_t k) {
    const int64_t first = k % chunks * kCompactChunk, rest = a.pairs.n - first;
    const uint8_t* squared = a.squared + k / chunks * a.pairs.n + first;
    const int64_t n = rest < kCompactChunk ? rest : kCompactChunk;
    int64_t near = 0;
    for (int64_t i = 0; i < n; ++i) near += squared[i] <= a.near;
    counts[k] = near;
  });
}

int64_t uncertainty_supervision_workspace(const BoundaryPairArgs& a, int64_t most) {
  const int64_t one = a.pairs.dtype == DType::f64 ? scratch_bytes<double>(a, most) : scratch_bytes<float>(a, most);
  return team_of(a.pairs.rows, most, a.pairs.threads).outer * one;
}

void uncertainty_supervision_forward(const BoundaryPairArgs& a, const int64_t* counts, int64_t most, void* workspace,
                                     double* loss, void* slope) {
  a.pairs.dtype == DType::f64 ? run<double>(a, counts, most, workspace, loss, slope)
                              : run<float>(a, counts, most, workspace, loss, slope);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
