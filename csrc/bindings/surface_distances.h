// The arguments of surface_distances as Python gives them to both modules.
#pragma once

#include "args/surface_distances.h"
#include "bindings/registrar.h"

namespace sure_fast {

inline SurfaceArgs surface_args(const TensorArgument& prediction, const TensorArgument& target, int64_t classes,
                                std::optional<int64_t> ignore, const pybind11::tuple& step, double quantile,
                                double tolerance, int threads) {
  const int64_t all = target.elements();
  SurfaceArgs args{};
  args.prediction = labels(prediction, "prediction", all, classes, std::nullopt);
  args.target = labels(target, "target", all, classes, ignore);
  read_sizes(target, "target", 1, args.size);
  read_axes<double>(step, 1.0, args.step);
  args.planar = target.axes == 3;
  args.quantile = quantile;
  args.tolerance = tolerance;
  args.threads = usable_threads(threads);
  return args;
}

inline void bind_surface_args(pybind11::module_& m) {
  using pybind11::arg;
  bind_args(m, "SurfaceArgs", &surface_args, arg("prediction"), arg("target"), arg("classes"), arg("ignore"),
            arg("step"), arg("quantile"), arg("tolerance"), arg("threads") = 1);
}

inline int64_t voxels_of(const SurfaceArgs& args) { return args.size[0] * args.size[1] * args.size[2] * args.size[3]; }

}  // namespace sure_fast
