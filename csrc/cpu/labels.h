// Blocks of labels as int32.
#pragma once

#include "cpu/common.h"

namespace sure_fast {

namespace SURE_FAST_NS {
namespace {

template <typename Label>
int convert_labels(const Labels& a, int64_t offset, int count, int32_t* out) {
  const Label* y = static_cast<const Label*>(a.data) + offset;
  const uint64_t classes = static_cast<uint64_t>(a.classes);
  int bad = 0;
  if (a.has_ignore) {
#pragma omp simd reduction(+ : bad)
    for (int v = 0; v < count; ++v) {
      const int64_t label = static_cast<int64_t>(y[v]);
      const bool counts = label != a.ignore, inside = static_cast<uint64_t>(label) < classes;
      bad += counts & !inside;
      out[v] = (counts & inside) ? static_cast<int32_t>(label) : -1;
    }
  } else {
#pragma omp simd reduction(+ : bad)
    for (int v = 0; v < count; ++v) {
      const int64_t label = static_cast<int64_t>(y[v]);
      const bool inside = static_cast<uint64_t>(label) < classes;
      bad += !inside;
      out[v] = inside ? static_cast<int32_t>(label) : -1;
    }
  }
  return bad;
}

// -1 for what does not count; returns how many are neither a class nor ignored.
inline int load_labels(const Labels& a, int64_t offset, int count, int32_t* out) {
  switch (a.dtype) {
    case DType::u8: return convert_labels<uint8_t>(a, offset, count, out);
    case DType::i8: return convert_labels<int8_t>(a, offset, count, out);
    case DType::i16: return convert_labels<int16_t>(a, offset, count, out);
    case DType::i32: return convert_labels<int32_t>(a, offset, count, out);
    default: return convert_labels<int64_t>(a, offset, count, out);
  }
}

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
