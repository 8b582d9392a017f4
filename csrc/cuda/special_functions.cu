// The scalar functions of csrc/math, one thread an element, grid-stride loop.
#include "cuda/special_functions.h"

#include "cuda/launch.h"
#include "math/gamma.h"

namespace sure_fast {
namespace {

template <typename T>
__global__ void evaluate(int which, const T* __restrict__ x, int64_t count, T* __restrict__ out) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const T v = x[i];
    T extra = T(0);
    T result = T(0);
    switch (which) {
      case 0: result = math::exponential(v); break;
      case 1: result = math::logarithm(v); break;
      case 2: result = math::log_one_plus(v); break;
      case 3: result = math::evidence<math::Evidence::softplus>(v, extra); break;
      case 4: math::evidence<math::Evidence::softplus>(v, extra), result = extra; break;
      case 5: result = math::digamma(v); break;
      case 6: result = math::trigamma(v); break;
      case 7: math::digamma_entropic(v, extra), result = extra; break;
      default: math::trigamma_entropic(v, extra), result = extra; break;
    }
    out[i] = result;
  }
}

}  // namespace

void special_function_cuda(const Queue& queue, int which, bool wide, const void* x, int64_t count, void* out) {
  const int64_t blocks = fill(queue, ceil_div<int64_t>(count, 256));
  if (wide) {
    launch(queue, "special_function", blocks, 256, evaluate<double>, which, static_cast<const double*>(x), count,
           static_cast<double*>(out));
  } else {
    launch(queue, "special_function", blocks, 256, evaluate<float>, which, static_cast<const float*>(x), count,
           static_cast<float*>(out));
  }
}

}  // namespace sure_fast
