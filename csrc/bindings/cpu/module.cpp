// The module sure_fast._cpu: instruction sets and threads.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "bindings/cpu/dispatch.h"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace sure_fast {
namespace {

bool forked = false;
Isa isa = Isa::baseline;

const char* const kIsas[] = {"baseline", "avx2", "avx512"};

Isa best_isa() {
#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
  __builtin_cpu_init();
#if defined(SURE_FAST_HAVE_AVX512)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
    return Isa::avx512;
  }
#endif
#if defined(SURE_FAST_HAVE_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    return Isa::avx2;
  }
#endif
#endif
  return Isa::baseline;
}

void set_isa(const std::string& name) {
  const int best = static_cast<int>(best_isa());
  for (int i = 0; i <= best; ++i) {
    if (name == kIsas[i]) {
      isa = static_cast<Isa>(i);
      return;
    }
  }
  std::string allowed = kIsas[0];
  for (int i = 1; i <= best; ++i) allowed += std::string(", ") + kIsas[i];
  throw std::invalid_argument("SURE_FAST_ISA: expected one of " + allowed + " on this machine, got " + name);
}

}  // namespace

Isa active_isa() { return isa; }

const char* const kDevice = "cpu";

int usable_threads(int wanted) { return forked || wanted < 1 ? 1 : wanted; }

}  // namespace sure_fast

PYBIND11_MODULE(_cpu, m) {
  using namespace sure_fast;
  m.doc() = "CPU kernels of sure_fast; use the functions of sure_fast instead.";
  const char* wanted = std::getenv("SURE_FAST_ISA");
  if (wanted != nullptr && *wanted != '\0') {
    set_isa(wanted);
  } else {
    isa = best_isa();
  }
#if defined(__unix__) || defined(__APPLE__)
  pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif
  m.def("isa", [] { return kIsas[static_cast<int>(isa)]; }, "Instruction set in use.");
  m.def("best_isa", [] { return kIsas[static_cast<int>(best_isa())]; }, "Best instruction set of this machine.");
  m.def("set_isa", &set_isa, pybind11::arg("name"), "Uses another instruction set; for tests and benchmarks.");
  m.def(
      "openmp",
      [] {
#if defined(_OPENMP)
        return true;
#else
        return false;
#endif
      },
      "Whether the kernels were built with OpenMP.");
  m.def("has_one_stride", &has_one_stride, pybind11::arg("t"), "Whether the axes behind [N, C] step by one stride.");
  Registrar::run(m);
}
