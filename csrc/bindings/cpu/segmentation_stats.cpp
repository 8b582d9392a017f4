#include "cpu/segmentation_stats.h"

#include <vector>

#include "bindings/cpu/dispatch.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void run_forward(const StatsArgs& args, double* partials) {
  SURE_FAST_DISPATCH(segmentation_stats_forward(args, partials));
}

void forward(const Held<StatsArgs>& args, const TensorArgument& records) {
  const int64_t batch = args.logits.batch, chunks = stats_chunks(args);
  const int64_t width = stats_size(args.logits.channels, args.bins, args.levels);
  double* out = data<double>(records, "records", batch * width);
  std::vector<double> partials(static_cast<size_t>(batch * chunks * width));
  run_forward(args, partials.data());
  for (int64_t n = 0; n < batch; ++n) {
    for (int64_t i = 0; i < width; ++i) {
      double sum = 0.0;
      for (int64_t c = 0; c < chunks; ++c) sum += partials[static_cast<size_t>((n * chunks + c) * width + i)];
      out[n * width + i] = sum;
    }
  }
}

StatsArgs arguments(const TensorArgument& logits, const TensorArgument& target, std::optional<int64_t> ignore,
                    Evidence evidence, int bins, int levels, int threads) {
  const View z = view(logits, "logits");
  return {z,        labels(target, "target", z.batch * z.voxels, z.channels, ignore),
          evidence, bins,
          levels,   usable_threads(threads)};
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_args(m, "StatsArgs", &arguments, arg("logits"), arg("target"), arg("ignore"), arg("evidence"), arg("bins"),
            arg("levels"), arg("threads"));
  m.def(
      "segmentation_stats_size",
      [](int64_t classes, int64_t bins, int64_t levels) { return stats_size(classes, bins, levels); }, arg("classes"),
      arg("bins"), arg("levels"));
  m.def("segmentation_stats_forward", &forward, arg("args"), arg("records"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
