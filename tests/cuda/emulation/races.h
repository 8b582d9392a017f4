// What ThreadSanitizer has to know of the emulator to find races, whatever order the threads take: every thread of a
// grid is one of its own that knows of the others only what barriers, fences and launches tell it. Shuffles and ballots
// tell nothing, nor do atomics, and what is read as volatile is no race. Without SURE_FAST_RACES nothing happens here.
// Files with kernels are compiled with -fsanitize=thread, the emulator without.
#pragma once

#include <cstddef>

#if defined(SURE_FAST_RACES)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void __tsan_java_init(void* begin, unsigned long size);
void __tsan_java_alloc(void* begin, unsigned long size);
void __tsan_java_free(void* begin, unsigned long size);
}
#endif

namespace emulation {
namespace races {

struct alignas(8) Meeting {
  char place[8];
};

#if defined(SURE_FAST_RACES)

// A thread's past is known to those that learn of the same meeting later.
inline void tell(Meeting& meeting) { __tsan_release(&meeting); }
inline void learn(Meeting& meeting) { __tsan_acquire(&meeting); }

inline void* host() {
  static void* const witness = __tsan_get_current_fiber();
  return witness;
}

inline void renew(void*& witness) {
  host();
  if (witness != nullptr) __tsan_destroy_fiber(witness);
  witness = __tsan_create_fiber(1);
}

inline void go_on_as(void* witness) { __tsan_switch_to_fiber(witness, 1); }  // which tells nothing

// Memory that is another's from here on.
inline void forget(void* begin, size_t size) {
  static const bool begun = (__tsan_java_init(reinterpret_cast<void*>(8), 1ul << 47), true);
  if (!begun) return;
  __tsan_java_free(begin, size);   // what meetings there were told
  __tsan_java_alloc(begin, size);  // who wrote and read
}

#else

inline void tell(Meeting&) {}
inline void learn(Meeting&) {}
inline void* host() { return nullptr; }
inline void renew(void*&) {}
inline void go_on_as(void*) {}
inline void forget(void*, size_t) {}

#endif

}  // namespace races
}  // namespace emulation
