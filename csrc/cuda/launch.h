// How kernels are started: on a stream of the current device or, in the tests, by an emulator that runs the same code.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/stream.h"

#if defined(SURE_FAST_CUDA_EMULATION)
#include "emulation.h"
#else
#include <cuda_runtime.h>
#endif

#define SURE_FAST_DEVICE static __device__ __forceinline__
#define SURE_FAST_DEVICE_MEMBER __device__ __forceinline__
#define SURE_FAST_COMMON_MEMBER __host__ __device__ __forceinline__

namespace sure_fast {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

template <typename T>
inline T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// Enough blocks to fill the device, no more than there are tiles.
inline int64_t fill(const Stream& stream, int64_t tiles, int each = 8) {
  const int64_t most = static_cast<int64_t>(stream.multiprocessors) * each;
  return tiles < 1 ? 1 : tiles < most ? tiles : most;
}

// Starts a kernel; throws what CUDA has against it.
template <typename... Parameters, typename... Arguments>
void launch(const Stream& stream, const char* name, int64_t blocks, int threads, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (blocks < 1) return;
  if (blocks > INT32_MAX) throw std::runtime_error(std::string(name) + ": more blocks than a grid has");
#if defined(SURE_FAST_CUDA_EMULATION)
  (void)stream;
  emulation::run(name, blocks, threads, [&] { kernel(static_cast<Parameters>(arguments)...); });
#else
  // clang-format off
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0,
           static_cast<cudaStream_t>(stream.handle)>>>(static_cast<Parameters>(arguments)...);
  // clang-format on
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(error));
#endif
}

}  // namespace sure_fast
