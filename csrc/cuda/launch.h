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

// A variable of a block in shared memory, of the type that follows its name.
#if defined(SURE_FAST_CUDA_EMULATION)
#define SURE_FAST_SHARED(name, ...) auto& name = *emulation::shared<Same<__VA_ARGS__>>(SURE_FAST_SITE)
#else
#define SURE_FAST_SHARED(name, ...) __shared__ Same<__VA_ARGS__> name
#endif

namespace sure_fast {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

template <typename T>
using Same = T;

template <typename T>
inline T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// Enough blocks to fill the device, no more than there are tiles.
inline int64_t fill(const Stream& stream, int64_t tiles, int each = 8) {
  const int64_t most = static_cast<int64_t>(stream.multiprocessors) * each;
  return tiles < 1 ? 1 : tiles < most ? tiles : most;
}

// Throws what CUDA has against a call.
#if !defined(SURE_FAST_CUDA_EMULATION)
inline void check(const char* name, cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(error));
}
#endif

// Starts a kernel.
template <typename... Parameters, typename... Arguments>
void launch(const Stream& stream, const char* name, int64_t blocks, int threads, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (blocks < 1) return;
  if (blocks > INT32_MAX) throw std::runtime_error(std::string(name) + ": more blocks than a grid has");
#if defined(SURE_FAST_CUDA_EMULATION)
  (void)stream;
  emulation::run(name, false, blocks, threads, [&] { kernel(static_cast<Parameters>(arguments)...); });
#else
  // clang-format off
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0,
           static_cast<cudaStream_t>(stream.handle)>>>(static_cast<Parameters>(arguments)...);
  // clang-format on
  check(name, cudaGetLastError());
#endif
}

// Starts a kernel whose blocks wait for each other (grid.h): as many of `blocks` as the device holds at the same time,
// which it starts all or none. A tool or a share of the device may hold fewer than it says.
template <typename... Parameters, typename... Arguments>
void launch_together(const Stream& stream, const char* name, int64_t blocks, int threads, void (*kernel)(Parameters...),
                     const Arguments&... arguments) {
#if defined(SURE_FAST_CUDA_EMULATION)
  const int64_t held = fill(stream, blocks, 2);
  emulation::run(name, true, held, threads, [&] { kernel(static_cast<Parameters>(arguments)...); });
#else
  int each = 0;
  check(name, cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, 0));
  const auto start = [&](Parameters... parameters) {
    void* pointers[] = {static_cast<void*>(&parameters)...};
    cudaError_t error = cudaErrorCooperativeLaunchTooLarge;
    for (int64_t held = fill(stream, blocks, each); error == cudaErrorCooperativeLaunchTooLarge && held > 0;
         held /= 2) {
      error =
          cudaLaunchCooperativeKernel(kernel, dim3(static_cast<unsigned>(held)), dim3(static_cast<unsigned>(threads)),
                                      pointers, 0, static_cast<cudaStream_t>(stream.handle));
      cudaGetLastError();  // which the next launch would take for its own
    }
    check(name, error);
  };
  start(static_cast<Parameters>(arguments)...);
#endif
}

}  // namespace sure_fast
