// The scalar functions of csrc/math, one thread an element, grid-stride loop.
#include "cuda/special_functions.h"

#include "cuda/launch.h"
#include "math/gamma.h"

namespace sure_fast {
namespace {

template <typename T>
__global__ void evaluate(Special which, const T* __restrict__ x, int64_t count, T* __restrict__ out) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const T v = x[i];
    T extra = T(0);
    T result = T(0);
    switch (which) {
      case Special::exponential: result = math::exponential(v); break;
      case Special::logarithm: result = math::logarithm(v); break;
      case Special::log_one_plus: result = math::log_one_plus(v); break;
      case Special::softplus: result = math::evidence<Evidence::softplus>(v, extra); break;
      case Special::sigmoid: math::evidence<Evidence::softplus>(v, extra), result = extra; break;
      case Special::digamma: result = math::digamma(v); break;
      case Special::trigamma: result = math::trigamma(v); break;
      case Special::entropic: math::digamma_entropic(v, extra), result = extra; break;
      case Special::entropic_slope: math::trigamma_entropic(v, extra), result = extra; break;
    }
    out[i] = result;
  }
}

}  // namespace

void special_function(const Stream& stream, Special which, DType dtype, const void* x, int64_t count, void* out) {
  const int64_t blocks = fill(stream, ceil_div<int64_t>(count, 256));
  if (dtype == DType::f64) {
    launch(stream, "special_function", blocks, 256, evaluate<double>, which, static_cast<const double*>(x), count,
           static_cast<double*>(out));
  } else {
    launch(stream, "special_function", blocks, 256, evaluate<float>, which, static_cast<const float*>(x), count,
           static_cast<float*>(out));
  }
}

}  // namespace sure_fast
