#include "cpu/uncertainty_supervision.h"
#include "bindings/cpu/dispatch.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

void run_count(const BoundaryPairArgs& args, int64_t* counts) {
  SURE_FAST_DISPATCH(uncertainty_supervision_count(args, counts));
}

int64_t workspace(const Held<BoundaryPairArgs>& args, int64_t most) {
  SURE_FAST_DISPATCH(uncertainty_supervision_workspace(args, most));
}

void run_forward(const BoundaryPairArgs& args, const int64_t* counts, int64_t most, void* scratch, double* loss,
                 void* slope) {
  SURE_FAST_DISPATCH(uncertainty_supervision_forward(args, counts, most, scratch, loss, slope));
}

int64_t counted(const BoundaryPairArgs& args) { return args.pairs.rows * compact_chunks(args.pairs.n); }

void count(const Held<BoundaryPairArgs>& args, const TensorArgument& counts) {
  run_count(args, data<int64_t>(counts, "counts", counted(args)));
}

void forward(const Held<BoundaryPairArgs>& args, const TensorArgument& counts, int64_t most,
             const TensorArgument& scratch, const TensorArgument& loss, const TensorArgument& slope) {
  run_forward(args, data<int64_t>(counts, "counts", counted(args)), most,
              scratch_memory(scratch, workspace(args, most)), data<double>(loss, "loss", args.pairs.rows),
              memory(slope, "slope", {args.pairs.dtype}, args.pairs.rows * args.pairs.n));
}

BoundaryPairArgs arguments(const TensorArgument& logits, Evidence evidence, const Held<GradientArgs>& image,
                           const TensorArgument& squared, int near, const OptionalTensor& label, int64_t num_pairs,
                           int64_t seed, bool normalize, int threads) {
  BoundaryPairArgs args{};
  args.logits = view(logits, "logits");
  args.evidence = evidence;
  args.image = image;
  args.near = near;
  PairArgs& pairs = args.pairs;
  pairs.dtype = args.logits.dtype == DType::f64 ? DType::f64 : DType::f32;
  pairs.rows = args.logits.batch;
  pairs.n = args.logits.voxels;
  pairs.num_pairs = num_pairs;
  pairs.seed = static_cast<uint64_t>(seed);
  pairs.normalize = normalize;
  pairs.threads = usable_threads(threads);
  args.squared = data<uint8_t>(squared, "squared", pairs.rows * pairs.n);
  pairs.label = {data<int64_t>(label, "label", pairs.rows * pairs.n), DType::i64};
  return args;
}

const Registrar registrar([](py::module_& m) {
  using py::arg;
  bind_args(m, "BoundaryPairArgs", &arguments, arg("logits"), arg("evidence"), arg("image"), arg("squared"),
            arg("near"), arg("label"), arg("num_pairs"), arg("seed"), arg("normalize"), arg("threads"));
  m.def("uncertainty_supervision_count", &count, arg("args"), arg("counts"), WithoutLock());
  m.def("uncertainty_supervision_workspace", &workspace, arg("args"), arg("most"));
  m.def("uncertainty_supervision_forward", &forward, arg("args"), arg("counts"), arg("most"), arg("scratch"),
        arg("loss"), arg("slope"), WithoutLock());
});

}  // namespace
}  // namespace sure_fast
