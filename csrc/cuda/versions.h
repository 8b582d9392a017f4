// Which CUDA the driver and the library are of.
#pragma once

namespace sure_fast {

// 1000 major + 10 minor; of the driver 0 where there is none.
struct CudaVersions {
  int driver, library;
};

CudaVersions cuda_versions();

}  // namespace sure_fast
