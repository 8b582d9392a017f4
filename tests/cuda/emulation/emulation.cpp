#include "emulation.h"

#include <sys/mman.h>

#include "races.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

emulation::Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {
namespace {

constexpr int kMostThreads = 1024;
constexpr size_t kStack = 64 << 10;
constexpr size_t kShared = 48 << 10;  // what a kernel may declare

enum class State { ready, at_block, at_warp, asleep, done };

struct Fiber {
  State state;
  Site site;
  unsigned parity, block_parity;
  char* stack;
  void* witness;
#if defined(__x86_64__)
  void* at;
#else
  ucontext_t at;
#endif
};

struct Piece {
  Site site;
  void* at;
};

struct Block {
  Fiber fibers[kMostThreads];
  uint64_t slots[kMostThreads / 32][2][32];
  races::Meeting meeting[2], warp_meeting[kMostThreads / 32][2];
  alignas(16) char shared[kShared];
  size_t shared_used;
  std::vector<Piece> pieces;  // of shared memory
  bool begun, done;
};

std::vector<std::unique_ptr<Block>> blocks;  // those that run at the same time
Fiber* fibers = nullptr;                     // of the block that runs
Block* block_now = nullptr;
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

void leave_fiber() { sure_fast_emulation_switch(&fibers[current].at, main_at); }
void enter_fiber(Fiber& fiber) { sure_fast_emulation_switch(&main_at, fiber.at); }
#else
ucontext_t main_at;

void leave_fiber() { swapcontext(&fibers[current].at, &main_at); }
void enter_fiber(Fiber& fiber) { swapcontext(&main_at, &fiber.at); }
#endif

races::Meeting grid_begins, grid_ends, fences;

void to_main() {
  races::go_on_as(races::host());
  leave_fiber();
}

void to_fiber(Fiber& fiber) {
  races::go_on_as(fiber.witness);
  enter_fiber(fiber);
}

void enter() {
  races::learn(grid_begins);
  (*body_now)();
  races::tell(grid_ends);
  fibers[current].state = State::done;
  to_main();
}

void start(Fiber& fiber) {
  fiber.state = State::ready;
  fiber.parity = fiber.block_parity = 0;
  if (fiber.stack == nullptr) {
    fiber.stack = static_cast<char*>(
        mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (fiber.stack == MAP_FAILED) throw std::runtime_error("emulation: no memory for a stack");
  }
  races::renew(fiber.witness);
  races::forget(fiber.stack, kStack);
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

// 0 .. number - 1 as they take turns.
std::vector<int64_t> turns(int64_t number) {
  std::vector<int64_t> turn(static_cast<size_t>(number));
  std::iota(turn.begin(), turn.end(), int64_t{0});
  if (order_now == 1) std::reverse(turn.begin(), turn.end());
  if (order_now == 2) {
    for (size_t i = turn.size(); i > 1; --i) std::swap(turn[i - 1], turn[random_number() % i]);
  }
  return turn;
}

// Runs the threads that are ready. Returns whether one of them did more than to wake up and sleep again.
bool run_threads() {
  bool moved = false;
  for (int64_t t : turns(threads_now)) {
    Fiber& fiber = fibers[t];
    const bool slept = fiber.state == State::asleep;
    if (fiber.state != State::ready && !slept) continue;
    fiber.state = State::ready;
    current = static_cast<int>(t);
    threadIdx.x = static_cast<unsigned>(t);
    to_fiber(fiber);
    moved |= !slept || fiber.state != State::asleep;
  }
  return moved;
}

// Runs the block until its threads are done or some of them wait for another block. Returns whether anything happened.
bool run_block(const char* name) {
  bool moved = false;
  while (true) {
    moved |= run_threads();
    if (release_warps(name)) continue;
    const auto number = [](State state) {
      return std::count_if(fibers, fibers + threads_now, [=](const Fiber& f) { return f.state == state; });
    };
    const long done = number(State::done);
    block_now->done = done == threads_now;
    if (block_now->done || number(State::asleep) > 0) return moved;
    for (int t = 0; t < threads_now; ++t) {
      if (done > 0 && fibers[t].state == State::at_block) fail(name, "some threads have left, others wait", t);
      if (!same_site(fibers[t].site, fibers[0].site)) fail(name, "threads wait in different places", t);
    }
    for (int t = 0; t < threads_now; ++t) fibers[t].state = State::ready;
  }
}

// Goes on with a block.
bool go_on(const char* name, Block& block, int64_t index) {
  block_now = &block;
  fibers = block.fibers;
  blockIdx.x = static_cast<unsigned>(index);
  if (!block.begun) {
    for (int t = 0; t < threads_now; ++t) start(fibers[t]);
    block.pieces.clear();
    block.shared_used = 0;
    races::forget(block.meeting, sizeof(block.meeting));
    races::forget(block.warp_meeting, sizeof(block.warp_meeting));
    races::forget(block.shared, kShared);
    std::memset(block.shared, 0xCB, kShared);
    races::forget(block.shared, kShared);  // what was written just now
  }
  block.begun = true;
  return run_block(name);
}

int sleeper() {
  return static_cast<int>(
      std::find_if(fibers, fibers + threads_now, [](const Fiber& f) { return f.state == State::asleep; }) - fibers);
}

// Blocks one after the other.
void run_apart(const char* name, int64_t number) {
  for (int64_t index : turns(number)) {
    Block& block = *blocks[0];
    block.begun = block.done = false;
    go_on(name, block, index);
    if (!block.done) fail(name, "a block waits for others, which need not run at the same time", sleeper());
  }
}

// Blocks that wait for each other.
void run_together(const char* name, int64_t number) {
  for (int64_t i = 0; i < number; ++i)
    blocks[static_cast<size_t>(i)]->begun = blocks[static_cast<size_t>(i)]->done = false;
  for (int64_t left = number; left > 0;) {
    bool moved = false;
    for (int64_t index : turns(number)) {
      Block& block = *blocks[static_cast<size_t>(index)];
      if (block.done) continue;
      moved |= go_on(name, block, index);
      left -= block.done;
    }
    if (!moved) fail(name, "every block waits for another", sleeper());
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

void wait_for_block(Site site) {
  races::Meeting& meeting = block_now->meeting[fibers[current].block_parity ^= 1];
  races::tell(meeting);
  wait(State::at_block, site);
  races::learn(meeting);
}

void sleep(Site site) { wait(State::asleep, site); }

void* shared_memory(size_t bytes, Site site) {
  for (const Piece& piece : block_now->pieces) {
    if (same_site(piece.site, site)) return piece.at;
  }
  void* at = block_now->shared + block_now->shared_used;
  block_now->shared_used += (bytes + 15) / 16 * 16;
  if (block_now->shared_used > kShared) std::abort();  // ptxas refuses it
  block_now->pieces.push_back({site, at});
  return at;
}

void fence() {
  races::tell(fences);
  races::learn(fences);
}

void wait_for_warp(Site site) {
  races::Meeting& meeting = block_now->warp_meeting[current / 32][fibers[current].parity ^ 1];
  races::tell(meeting);
  exchange(0, site);
  races::learn(meeting);
}

const uint64_t* exchange(uint64_t value, Site site) {
  Fiber& fiber = fibers[current];
  fiber.parity ^= 1;  // no lane writes a second time before all have read
  uint64_t* all = block_now->slots[current / 32][fiber.parity];
  all[current & 31] = value;
  wait(State::at_warp, site);
  return all;
}

void check_mask(unsigned mask, Site site) {
  if (mask == 0xFFFFFFFFu) return;
  std::fprintf(stderr, "emulation: %s:%d: a collective of some lanes only\n", site.file, site.line);
  std::abort();
}

void run(const char* name, bool together, int64_t number, int threads, const std::function<void()>& body) {
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
  gridDim.x = static_cast<unsigned>(number);
  while (blocks.size() < static_cast<size_t>(together ? number : 1)) blocks.push_back(std::make_unique<Block>());
  races::tell(grid_begins);
  together ? run_together(name, number) : run_apart(name, number);
  races::learn(grid_ends);
}

}  // namespace emulation

#if defined(SURE_FAST_RACES)
// What is read as volatile.
extern "C" void __tsan_volatile_read4(void*) {}
#endif
