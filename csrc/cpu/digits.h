// Ranks split digit by digit: what the dealing of pair_concordance and of gradient_uncertainty_loss share.
#pragma once

#include "cpu/common.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kDigitBits = 4;
constexpr int kDigits = 1 << kDigitBits;
constexpr int64_t kPairChunk = 1 << 15;       // a large group is dealt in chunks of this many elements
constexpr int64_t kExact = int64_t{1} << 20;  // elements that meet fewer than 2^32 each: a double counts them exactly

SURE_FAST_INLINE int bits_needed(int64_t values) {
  int bits = 0;
  while ((int64_t{1} << bits) < values) ++bits;
  return bits;
}

// Where the highest digit of a rank starts, and the one below; the lowest overlaps the one before rather than reach
// below 0. Negative: no digit is left.
SURE_FAST_INLINE int first_shift(int bits) { return bits > kDigitBits ? bits - kDigitBits : bits > 0 ? 0 : -1; }

SURE_FAST_INLINE int next_shift(int shift) { return shift > kDigitBits ? shift - kDigitBits : shift > 0 ? 0 : -1; }

SURE_FAST_INLINE int64_t pair_chunks(int64_t n) { return (n + kPairChunk - 1) / kPairChunk; }

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
