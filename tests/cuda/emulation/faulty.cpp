// Kernels with the faults that the emulator should find.
#include <pybind11/pybind11.h>

#include <vector>

#include "cuda/launch.h"

namespace sure_fast {
namespace {

// Each thread adds its neighbour's number to its own; without the barrier it depends on who comes first.
__global__ void add_neighbour(const int* in, bool with_barrier, int* out) {
  __shared__ int shared[64];
  shared[threadIdx.x] = in[threadIdx.x];
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = in[threadIdx.x] + shared[(threadIdx.x + 1) % 64];
}

// Each block reads what the one before it wrote.
__global__ void chain_blocks(int* out) {
  if (threadIdx.x == 0) out[blockIdx.x] = blockIdx.x == 0 ? 1 : out[blockIdx.x - 1] + 1;
}

__global__ void leave_early(int* out) {
  if (threadIdx.x == 3) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void wait_apart(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void divide_warp(int* out) {
  if (threadIdx.x % 2 == 0) out[threadIdx.x] = static_cast<int>(__ballot_sync(kAllLanes, true));
}

__global__ void read_shared(int* out) {
  __shared__ int shared[64];
  out[threadIdx.x] = shared[threadIdx.x];
}

std::vector<int> run(const std::string& fault) {
  const Stream stream = {nullptr, 2};
  std::vector<int> in(64), out(64, 0);
  for (int i = 0; i < 64; ++i) in[static_cast<size_t>(i)] = i;
  int* result = out.data();
  if (fault == "none") launch(stream, "add_neighbour", 1, 64, add_neighbour, in.data(), true, result);
  if (fault == "race") launch(stream, "add_neighbour", 1, 64, add_neighbour, in.data(), false, result);
  if (fault == "race of blocks") launch(stream, "chain_blocks", 4, 64, chain_blocks, result);
  if (fault == "left early") launch(stream, "leave_early", 1, 64, leave_early, result);
  if (fault == "apart") launch(stream, "wait_apart", 1, 64, wait_apart, result);
  if (fault == "divided warp") launch(stream, "divide_warp", 1, 64, divide_warp, result);
  if (fault == "unwritten shared") launch(stream, "read_shared", 1, 64, read_shared, result);
  return out;
}

}  // namespace
}  // namespace sure_fast

PYBIND11_MODULE(faulty, m) {
  m.def("run", [](const std::string& fault) {
    pybind11::list numbers;
    for (int x : sure_fast::run(fault)) numbers.append(x);
    return numbers;
  });
  m.def("set_order", &emulation::set_order);
}
