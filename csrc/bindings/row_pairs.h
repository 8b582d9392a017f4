// The arguments of pair_concordance and spearman as Python gives them to both modules.
#pragma once

#include "args/row_pairs.h"
#include "bindings/registrar.h"

namespace sure_fast {

inline RowPairArgs row_pair_args(const TensorArgument& a, const TensorArgument& b, const OptionalTensor& mask,
                                 int64_t most, int threads) {
  const int64_t all = a.elements();
  RowPairArgs args{};
  args.a = memory(a, "a", {DType::f32, DType::f64}, all);
  args.dtype = a.dtype;
  args.b = memory(b, "b", {args.dtype}, all);
  args.mask = data<uint8_t>(mask, "mask", all);
  args.rows = a.size[0];
  args.n = a.size[1];
  args.most = most;
  args.threads = usable_threads(threads);
  return args;
}

inline void bind_row_pair_args(pybind11::module_& m) {
  using pybind11::arg;
  bind_args(m, "RowPairArgs", &row_pair_args, arg("a"), arg("b"), arg("mask"), arg("most") = 0, arg("threads") = 1);
}

}  // namespace sure_fast
