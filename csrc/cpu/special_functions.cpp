// The scalar functions of csrc/math, element by element, float32 or float64.
#include "cpu/special_functions.h"

#include "math/gamma.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

template <typename T>
void run(Special which, const T* x, int64_t count, T* out) {
  using namespace math;
#define SURE_FAST_LOOP(expression)                          \
  _Pragma("omp simd") for (int64_t i = 0; i < count; ++i) { \
    T extra = T(0);                                         \
    (void)extra;                                            \
    out[i] = expression;                                    \
  }                                                         \
  return;
  switch (which) {
    case Special::exponential: SURE_FAST_LOOP(math::exponential(x[i]))
    case Special::logarithm: SURE_FAST_LOOP(math::logarithm(x[i]))
    case Special::log_one_plus: SURE_FAST_LOOP(math::log_one_plus(x[i]))
    case Special::softplus: SURE_FAST_LOOP(math::evidence<Evidence::softplus>(x[i], extra))
    case Special::sigmoid: SURE_FAST_LOOP((math::evidence<Evidence::softplus>(x[i], extra), extra))
    case Special::digamma: SURE_FAST_LOOP(math::digamma(x[i]))
    case Special::trigamma: SURE_FAST_LOOP(math::trigamma(x[i]))
    case Special::entropic: SURE_FAST_LOOP((math::digamma_entropic(x[i], extra), extra))
    case Special::entropic_slope: SURE_FAST_LOOP((math::trigamma_entropic(x[i], extra), extra))
  }
#undef SURE_FAST_LOOP
}

}  // namespace

void special_function(Special which, DType dtype, const void* x, int64_t count, void* out) {
  if (dtype == DType::f64) return run(which, static_cast<const double*>(x), count, static_cast<double*>(out));
  run(which, static_cast<const float*>(x), count, static_cast<float*>(out));
}

}  // namespace SURE_FAST_NS
}  // namespace sure_fast
