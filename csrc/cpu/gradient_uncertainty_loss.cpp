// Gradient-uncertainty loss of maps [rows, n], over B = {i : d_i <= threshold}, and its gradient in u.
//   v_ij = (g_i - g_j)(u_i - u_j), loss = sum v+ / #{v > 0}, dloss/du_i = sum of (g_i - g_j) over violating j, / #{v >
//   0}
// The voxels of B are compacted, then pair_loss.h sorts and counts them.
// Parallel over rows, or inside a row where there are fewer rows than threads. float64 sums in a fixed order.
// Bytes per voxel: the distance twice, the slope once; per voxel of B some 90 of scratch. Bound by the sort and
// dealing.
#include "cpu/gradient_uncertainty_loss.h"

#include "cpu/pair_loss.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

template <typename Distance>
int64_t count_near(const Distance* d, int64_t n, Distance threshold) {
  int64_t near = 0;
  for (int64_t i = 0; i < n; ++i) near += d[i] <= threshold;
  return near;
}

template <typename Value, typename Distance>
int64_t compact(const PairArgs& a, int64_t row, const int64_t* counts, int threads, const PairScratch<Value>& s) {
  const Value* u = static_cast<const Value*>(a.uncertainty) + row * a.n;
  const Value* g = static_cast<const Value*>(a.gradient) + row * a.n;
  const Distance* d = static_cast<const Distance*>(a.distance) + row * a.n;
  const Distance threshold = static_cast<Distance>(a.threshold);
  parallel_tasks(compact_chunks(a.n), threads, [&](int64_t c) {
    int64_t at = 0;
    for (int64_t before = 0; before < c; ++before) at += counts[before];
    const int64_t last = (c + 1) * kCompactChunk < a.n ? (c + 1) * kCompactChunk : a.n;
    const int64_t end = at + list_near(d, c * kCompactChunk, last, threshold, s.voxel + at);
    for (; at < end; ++at) {
      s.u[at] = u[s.voxel[at]];
      s.g[at] = g[s.voxel[at]];
    }
  });
  int64_t m = 0;
  for (int64_t c = 0; c < compact_chunks(a.n); ++c) m += counts[c];
  return m;
}

template <typename Value>
int64_t scratch_bytes(const PairArgs& a, int64_t most) {
  Arena arena(nullptr);
  PairScratch<Value>(arena, a, most, team_of(a.rows, most, a.threads).inner);
  return arena.used();
}

template <typename Value, typename Distance>
void run(const PairArgs& a, const int64_t* counts, int64_t most, void* workspace, double* loss, void* slope) {
  const Team threads = team_of(a.rows, most, a.threads);
  const int64_t bytes = scratch_bytes<Value>(a, most);
  dynamic_tasks(a.rows, threads.outer, [&](int64_t row) {
    Arena arena(static_cast<char*>(workspace) + (threads.outer > 1 ? thread_index() : 0) * bytes);
    PairScratch<Value> s(arena, a, most, threads.inner);
    const int64_t m = compact<Value, Distance>(a, row, counts + row * compact_chunks(a.n), threads.inner, s);
    pair_loss_row(a, row, m, threads.inner, s, loss + row, static_cast<Value*>(slope) + row * a.n);
  });
}

}  // namespace

void gradient_uncertainty_count(const PairArgs& a, int64_t* counts) {
  const int64_t chunks = compact_chunks(a.n);
  parallel_tasks(a.rows * chunks, a.threads, [&](int64_t k) {
    const int64_t first = k % chunks * kCompactChunk, at = k / chunks * a.n + first;
    const int64_t n = a.n - first < kCompactChunk ? a.n - first : kCompactChunk;
    counts[k] = a.distance_dtype == DType::f64
                    ? count_near(static_cast<const double*>(a.distance) + at, n, a.threshold)
                    : count_near(static_cast<const float*>(a.distance) + at, n, static_cast<float>(a.threshold));
  });
}

int64_t gradient_uncertainty_workspace(const PairArgs& a, int64_t most) {
  return team_of(a.rows, most, a.threads).outer *
         (a.dtype == DType::f64 ? scratch_bytes<double>(a, most) : scratch_bytes<float>(a, most));
}

void gradient_uncertainty_forward(const PairArgs& a, const int64_t* counts, int64_t most, void* workspace, double* loss,
                                  void* slope) {
  const bool wide = a.distance_dtype == DType::f64;
  if (a.dtype == DType::f64) {
    return wide ? run<double, double>(a, counts, most, workspace, loss, slope)
                : run<double, float>(a, counts, most, workspace, loss, slope);
  }
  return wide ? run<float, double>(a, counts, most, workspace, loss, slope)
              : run<float, float>(a, counts, most, workspace, loss, slope);
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
