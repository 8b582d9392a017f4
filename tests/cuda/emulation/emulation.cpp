#include "emulation.h"

#include <sys/mman.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

emulation::Index threadIdx, blockIdx, blockDim, gridDim;

extern "C" char __start_cuda_shared[], __stop_cuda_shared[];

namespace emulation {
namespace {

constexpr int kMostThreads = 1024;
constexpr size_t kStack = 64 << 10;

enum class State { ready, at_block, at_warp, done };

struct Fiber {
  State state;
  Site site;
  unsigned parity;
  char* stack;
#if defined(__x86_64__)
  void* at;
#else
  ucontext_t at;
#endif
};

Fiber fibers[kMostThreads];
uint64_t slots[kMostThreads / 32][2][32];
int threads_now = 0, current = 0, order_now = 0;
uint64_t random_state = 1;
const std::function<void()>* body_now = nullptr;
bool busy = false, only_counts = false;
int64_t launches_now = 0;

uint64_t random_number() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

#if defined(__x86_64__)
void* main_at = nullptr;

// Pushes what a call must keep, leaves the stack pointer in *from and goes on at `to`.
extern "C" void sure_fast_emulation_switch(void** from, void* to);
asm(".text\n"
    ".type sure_fast_emulation_switch, @function\n"
    "sure_fast_emulation_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size sure_fast_emulation_switch, . - sure_fast_emulation_switch\n");

void to_main() { sure_fast_emulation_switch(&fibers[current].at, main_at); }
void to_fiber(Fiber& fiber) { sure_fast_emulation_switch(&main_at, fiber.at); }
#else
ucontext_t main_at;

void to_main() { swapcontext(&fibers[current].at, &main_at); }
void to_fiber(Fiber& fiber) { swapcontext(&main_at, &fiber.at); }
#endif

void enter() {
  (*body_now)();
  fibers[current].state = State::done;
  to_main();
}

void start(Fiber& fiber) {
  fiber.state = State::ready;
  fiber.parity = 0;
  if (fiber.stack == nullptr) {
    fiber.stack = static_cast<char*>(
        mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (fiber.stack == MAP_FAILED) throw std::runtime_error("emulation: no memory for a stack");
  }
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(fiber.stack + kStack);
  *--top = nullptr;  // where `enter` would return to; keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(&enter);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.at = top;
#else
  getcontext(&fiber.at);
  fiber.at.uc_stack.ss_sp = fiber.stack;
  fiber.at.uc_stack.ss_size = kStack;
  fiber.at.uc_link = nullptr;
  makecontext(&fiber.at, enter, 0);
#endif
}

void wait(State state, Site site) {
  fibers[current].state = state;
  fibers[current].site = site;
  to_main();
}

[[noreturn]] void fail(const char* name, const std::string& what, int thread) {
  const Site& site = fibers[thread].site;
  throw std::runtime_error(std::string("emulation: ") + name + ", block " + std::to_string(blockIdx.x) + ": " + what +
                           ", thread " + std::to_string(thread) + " at " + site.file + ":" + std::to_string(site.line));
}

bool same_site(const Site& a, const Site& b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

// Lets go the warps whose lanes have all come to one place. Returns whether there was one.
bool release_warps(const char* name) {
  bool released = false;
  for (int first = 0; first < threads_now; first += 32) {
    const int waiting = static_cast<int>(
        std::count_if(fibers + first, fibers + first + 32, [](const Fiber& f) { return f.state == State::at_warp; }));
    if (waiting == 0) continue;
    for (int t = first; t < first + 32; ++t) {
      if (fibers[t].state != State::at_warp || !same_site(fibers[t].site, fibers[first].site)) {
        fail(name, "a warp waits with some of its lanes, not at one place", t);
      }
    }
    for (int t = first; t < first + 32; ++t) fibers[t].state = State::ready;
    released = true;
  }
  return released;
}

void run_block(const char* name) {
  std::memset(__start_cuda_shared, 0xCB, static_cast<size_t>(__stop_cuda_shared - __start_cuda_shared));
  for (int t = 0; t < threads_now; ++t) start(fibers[t]);
  while (true) {
    std::vector<int> turn(static_cast<size_t>(threads_now));
    std::iota(turn.begin(), turn.end(), 0);
    if (order_now == 1) std::reverse(turn.begin(), turn.end());
    if (order_now == 2) {
      for (size_t i = turn.size(); i > 1; --i) std::swap(turn[i - 1], turn[random_number() % i]);
    }
    for (int t : turn) {
      if (fibers[t].state != State::ready) continue;
      current = t;
      threadIdx.x = static_cast<unsigned>(t);
      to_fiber(fibers[t]);
    }
    if (release_warps(name)) continue;
    const long done =
        std::count_if(fibers, fibers + threads_now, [](const Fiber& f) { return f.state == State::done; });
    if (done == threads_now) return;
    for (int t = 0; t < threads_now; ++t) {
      if (done > 0 && fibers[t].state == State::at_block) fail(name, "some threads have left, others wait", t);
      if (!same_site(fibers[t].site, fibers[0].site)) fail(name, "threads wait in different places", t);
    }
    for (int t = 0; t < threads_now; ++t) fibers[t].state = State::ready;
  }
}

}  // namespace

void set_order(int order, uint64_t seed) {
  order_now = order;
  random_state = seed * 2 + 1;
}

void count_launches(bool only) {
  launches_now = 0;
  only_counts = only;
}

int64_t launches() { return launches_now; }

int lane() { return current & 31; }

void wait_for_block(Site site) { wait(State::at_block, site); }

const uint64_t* exchange(uint64_t value, Site site) {
  Fiber& fiber = fibers[current];
  fiber.parity ^= 1;  // no lane writes a second time before all have read
  uint64_t* all = slots[current / 32][fiber.parity];
  all[current & 31] = value;
  wait(State::at_warp, site);
  return all;
}

void check_mask(unsigned mask, Site site) {
  if (mask == 0xFFFFFFFFu) return;
  std::fprintf(stderr, "emulation: %s:%d: a collective of some lanes only\n", site.file, site.line);
  std::abort();
}

void run(const char* name, int64_t blocks, int threads, const std::function<void()>& body) {
  if (threads < 32 || threads > kMostThreads || threads % 32 != 0) {
    throw std::runtime_error(std::string("emulation: ") + name + ": blocks of " + std::to_string(threads) + " threads");
  }
  ++launches_now;
  if (only_counts) return;
  if (busy) throw std::runtime_error("emulation: one grid at a time");
  struct Busy {
    Busy() { busy = true; }
    ~Busy() { busy = false; }
  } guard;
  threads_now = threads;
  body_now = &body;
  blockDim.x = static_cast<unsigned>(threads);
  gridDim.x = static_cast<unsigned>(blocks);
  std::vector<int64_t> turn(static_cast<size_t>(blocks));
  std::iota(turn.begin(), turn.end(), int64_t{0});
  if (order_now == 1) std::reverse(turn.begin(), turn.end());
  if (order_now == 2) {
    for (size_t i = turn.size(); i > 1; --i) std::swap(turn[i - 1], turn[random_number() % i]);
  }
  for (int64_t block : turn) {
    blockIdx.x = static_cast<unsigned>(block);
    run_block(name);
  }
}

}  // namespace emulation
