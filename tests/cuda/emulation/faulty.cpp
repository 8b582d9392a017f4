// Kernels with the faults that the emulator should find.
#include <pybind11/pybind11.h>

#include <vector>

#include "cuda/grid.h"

namespace sure_fast {
namespace {

// Each thread adds its neighbour's number to its own; without the barrier it depends on who comes first.
__global__ void add_neighbour(const int* in, bool with_barrier, int* out) {
  SURE_FAST_SHARED(shared, int[64]);
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

// Lanes count on each other being as far as they are: a shuffle brings no memory up to date.
__global__ void trust_lanes(int* out) {
  SURE_FAST_SHARED(shared, int[64]);
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  __ballot_sync(kAllLanes, true);
  out[threadIdx.x] = shared[threadIdx.x ^ 1u];
}

// Blocks add to the same place, which blocks one after the other do not lose.
__global__ void add_up(int* out) { out[threadIdx.x] += 1; }

template <typename T>
__global__ void read_shared_as(T* out) {
  SURE_FAST_SHARED(shared, T[64]);
  out[threadIdx.x] = shared[threadIdx.x];
}

__global__ void read_shared(int* out) {
  SURE_FAST_SHARED(shared, int[64]);
  out[threadIdx.x] = shared[threadIdx.x];
}

// Each block adds up what all of them wrote before they met, in memory of its own.
__global__ void meet_twice(Gate gate, bool at_gate, int* out) {
  SURE_FAST_SHARED(sum, int);
  for (int round = 0; round < 2; ++round) {
    if (threadIdx.x == 0) sum = 0;
    out[blockIdx.x * blockDim.x + threadIdx.x] += 1;
    if (at_gate) gate.meet();
    __syncthreads();
    for (unsigned i = threadIdx.x; i < gridDim.x * blockDim.x; i += blockDim.x) atomicAdd(&sum, out[i]);
    if (at_gate) gate.meet();
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
    if (at_gate) gate.meet();
  }
}

// The first block tells of its number by another one, which may be there before it.
__global__ void tell_early(bool fenced, int* out) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    out[1] = 5;
    if (fenced) __threadfence();
    atomicAdd(out, 1);
    return;
  }
  while (*static_cast<volatile int*>(out) == 0) __nanosleep(1);
  __threadfence();
  out[2] = out[1];
}

__global__ void wait_for_nobody(const int* never) {
  while (threadIdx.x == 0 && *static_cast<const volatile int*>(never) == 0) __nanosleep(1);
}

std::vector<int> run_together(const Stream& stream, bool at_gate) {
  std::vector<int> out(4 * 32, 0);
  alignas(64) char memory[64] = {};
  Arena arena(memory);
  launch_together(stream, "meet_twice", 9, 32, meet_twice, Gate(arena), at_gate, out.data());
  return out;
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
  if (fault == "unwritten shared of a template") launch(stream, "read_shared_as", 1, 64, read_shared_as<int>, result);
  if (fault == "race of a warp") launch(stream, "trust_lanes", 1, 64, trust_lanes, result);
  if (fault == "lost update") launch(stream, "add_up", 2, 64, add_up, result);
  if (fault == "fences") launch_together(stream, "tell_early", 2, 32, tell_early, true, result);
  if (fault == "no fence") launch_together(stream, "tell_early", 2, 32, tell_early, false, result);
  Gate gate;
  gate.arrived = reinterpret_cast<uint32_t*>(result);
  if (fault == "none together") return run_together(stream, true);
  if (fault == "race of blocks together") return run_together(stream, false);
  if (fault == "waits apart") launch(stream, "meet_twice", 2, 32, meet_twice, gate, true, result);
  if (fault == "waits forever") launch_together(stream, "wait_for_nobody", 2, 32, wait_for_nobody, result);
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
