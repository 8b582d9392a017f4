#include "cpu/segmentation_stats.h"

#include <vector>

#include "bindings/common.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void forward(const StatsArgs& args, double* partials) {
  SURE_FAST_DISPATCH(segmentation_stats_forward(args, partials));
}

}  // namespace

void bind_segmentation_stats(py::module_& m) {
  m.def("segmentation_stats_size",
        [](int64_t classes, int64_t bins, int64_t levels) { return stats_size(classes, bins, levels); });
  m.def("segmentation_stats_forward", [](const View& logits, std::uintptr_t target, int target_dtype, py::object ignore,
                                         int evidence, int bins, int levels, int threads, std::uintptr_t records) {
    const StatsArgs args{logits,
                         {pointer(target), static_cast<DType>(target_dtype), logits.channels, !ignore.is_none(),
                          ignore.is_none() ? 0 : ignore.cast<int64_t>()},
                         evidence,
                         bins,
                         levels,
                         usable_threads(threads)};
    py::gil_scoped_release release;
    const int64_t width = stats_size(logits.channels, bins, levels), chunks = stats_chunks(args);
    std::vector<double> partials(static_cast<size_t>(logits.batch * chunks * width));
    forward(args, partials.data());
    double* out = static_cast<double*>(pointer(records));
    for (int64_t n = 0; n < logits.batch; ++n) {
      for (int64_t i = 0; i < width; ++i) {
        double sum = 0.0;
        for (int64_t c = 0; c < chunks; ++c) sum += partials[static_cast<size_t>((n * chunks + c) * width + i)];
        out[n * width + i] = sum;
      }
    }
  });
}

}  // namespace sure_fast
