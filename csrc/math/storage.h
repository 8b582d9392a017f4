// Scratch memory of the caller.
#pragma once

#include <cstdint>

#include "math/enums.h"

// A member of a class that several instruction sets share must be inlined: the linker would merge its copies.
#define SURE_FAST_INLINE_MEMBER inline __attribute__((always_inline))

namespace sure_fast {

// Hands out a kernel's scratch memory in aligned pieces. The memory belongs to the caller, so that torch accounts for
// it; with a null base it only adds up how much is needed.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <typename T>
  SURE_FAST_INLINE_MEMBER T* take(int64_t count) {
    const int64_t at = used_;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + at);
  }
  SURE_FAST_INLINE_MEMBER int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace sure_fast
