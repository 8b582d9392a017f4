// Blocks of labels as int32.
#pragma once

#include <type_traits>

#include "cpu/common.h"

namespace sure_fast {

namespace SURE_FAST_NS {
namespace {

// What labels are compared as: vectors have one width.
template <typename Label>
using WideLabel = typename std::conditional<(sizeof(Label) > sizeof(int32_t)), int64_t, int32_t>::type;

template <typename Label>
int convert_labels(const Labels& a, int64_t offset, int count, int32_t* out) {
  using Wide = WideLabel<Label>;
  using Unsigned = typename std::make_unsigned<Wide>::type;
  const Label* y = static_cast<const Label*>(a.data) + offset;
  const Unsigned classes = static_cast<Unsigned>(a.classes);
  const Wide none = -1, ignore = static_cast<Wide>(a.ignore);
  Wide bad = 0;
  if (a.has_ignore && static_cast<int64_t>(ignore) == a.ignore) {
#pragma omp simd reduction(+ : bad)
    for (int v = 0; v < count; ++v) {
      const Wide label = static_cast<Wide>(y[v]), inside = static_cast<Unsigned>(label) < classes ? label : none;
      const Wide kept = label == ignore ? none : inside;
      bad += label != ignore ? (inside < 0 ? Wide(1) : Wide(0)) : Wide(0);
      out[v] = static_cast<int32_t>(kept);
    }
  } else {
#pragma omp simd reduction(+ : bad)
    for (int v = 0; v < count; ++v) {
      const Wide label = static_cast<Wide>(y[v]), inside = static_cast<Unsigned>(label) < classes ? label : none;
      bad += inside < 0 ? Wide(1) : Wide(0);
      out[v] = static_cast<int32_t>(inside);
    }
  }
  return static_cast<int>(bad);
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
