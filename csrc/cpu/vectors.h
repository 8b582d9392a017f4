// Vectors as wide as the instruction set's registers, for loops that pass values from one to the next or ask a question
// of all lanes; what is independent by element stays a plain loop.
#pragma once

#include <type_traits>
#include <utility>

#include "cpu/common.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename T, int bytes = kVectorBytes>
struct VectorOf {
  typedef T All __attribute__((vector_size(bytes)));
  typedef typename std::conditional<sizeof(T) == 4, int32_t, int64_t>::type Index;
  typedef Index Indices __attribute__((vector_size(bytes)));
  typedef uint64_t Words __attribute__((vector_size(bytes)));
  static constexpr int kLanes = bytes / sizeof(T);

  static SURE_FAST_INLINE_MEMBER All at(const T* from) {
    All all;
    memcpy(&all, from, sizeof(All));
    return all;
  }

  // Lanes first .. first + kLanes - 1 of the two vectors side by side.
  template <int first, int... lane>
  static SURE_FAST_INLINE_MEMBER All part(All left, All right, std::integer_sequence<int, lane...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(left, right, (first + lane)...);
#else
    return __builtin_shuffle(left, right, Indices{(first + lane)...});
#endif
  }

  template <int first>
  static SURE_FAST_INLINE_MEMBER All part(All left, All right) {
    return part<first>(left, right, std::make_integer_sequence<int, kLanes>{});
  }
};

// Sixteen numbers, in as many registers as they need.
using Sixteen = VectorOf<float, 64>;

SURE_FAST_INLINE Sixteen::All lower(Sixteen::All x, Sixteen::All y) { return x < y ? x : y; }

// The numbers where a byte, which is 0 or 255, is 0; elsewhere 0.
SURE_FAST_INLINE Sixteen::All where_zero(const uint8_t* bytes, const float* numbers) {
  typedef int8_t Bytes __attribute__((vector_size(Sixteen::kLanes)));
  Bytes mask;
  memcpy(&mask, bytes, sizeof(mask));
  return (Sixteen::All)(~__builtin_convertvector(mask, Sixteen::Indices) & (Sixteen::Indices)Sixteen::at(numbers));
}

// Whether any of them is above the limit.
SURE_FAST_INLINE bool any_above(const Sixteen::All& x, float limit) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(limit), _CMP_GT_OQ) != 0;
#else
  const Sixteen::Words above = (Sixteen::Words)(x > limit);
  return ((above[0] | above[1]) | (above[2] | above[3]) | (above[4] | above[5]) | (above[6] | above[7])) != 0;
#endif
}

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
