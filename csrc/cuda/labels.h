// Integers of any width, read one by one.
#pragma once

#include "cuda/launch.h"

namespace sure_fast {

namespace {

SURE_FAST_DEVICE int64_t label_at(const LabelMap& a, int64_t i) {
  switch (a.dtype) {
    case DType::u8: return static_cast<const uint8_t*>(a.data)[i];
    case DType::i8: return static_cast<const int8_t*>(a.data)[i];
    case DType::i16: return static_cast<const int16_t*>(a.data)[i];
    case DType::i32: return static_cast<const int32_t*>(a.data)[i];
    default: return static_cast<const int64_t*>(a.data)[i];
  }
}

inline int label_bits(DType dtype) {
  return dtype == DType::u8 || dtype == DType::i8 ? 8 : dtype == DType::i16 ? 16 : dtype == DType::i32 ? 32 : 64;
}

// Unsigned keys of label_bits in the order of the labels.
SURE_FAST_DEVICE unsigned long long label_key(const LabelMap& a, int64_t i) {
  const unsigned long long bits = static_cast<unsigned long long>(label_at(a, i));
  switch (a.dtype) {
    case DType::u8: return bits;
    case DType::i8: return (bits ^ 0x80u) & 0xFFu;
    case DType::i16: return (bits ^ 0x8000u) & 0xFFFFu;
    case DType::i32: return (bits ^ 0x80000000u) & 0xFFFFFFFFu;
    default: return bits ^ 0x8000000000000000u;
  }
}

}  // namespace
}  // namespace sure_fast
