// The CUDA versions of the driver and of the runtime that is linked in. A driver of an older major version than the
// runtime's runs nothing of it; an older minor one does. An emulation has neither.
#include "cuda/versions.h"

#include "cuda/launch.h"

namespace sure_fast {

CudaVersions cuda_versions() {
  CudaVersions versions = {0, 0};
#if !defined(SURE_FAST_CUDA_EMULATION)
  check("cuda_versions", cudaDriverGetVersion(&versions.driver));
  check("cuda_versions", cudaRuntimeGetVersion(&versions.library));
#endif
  return versions;
}

}  // namespace sure_fast
