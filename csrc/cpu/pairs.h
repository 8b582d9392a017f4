// Pairs counted by sorting: elements in the order of a, each with its rank in b. Of every pair (i before j) with
// rank_i < rank_j, both learn the other. Ranks are split digit by digit, the highest first: while a group of equal
// higher digits is dealt into its 16 parts in order, D[d] holds what an element of digit d has met (smaller ones so far
// and greater ones still to come). Parts of at most kSmall elements are compared directly. O(n log n) time.
#pragma once

#include "cpu/digits.h"
#include "cpu/lanes.h"

namespace sure_fast {
namespace SURE_FAST_NS {
namespace {

constexpr int kSmall = 32;
constexpr int kVector = 8;

// One element: its rank in b, where it came from, its a, and the sum over partners j of (a - a_j) so far.
struct PairElements {
  uint32_t* rank;
  uint32_t* index;
  double* a;
  double* slope;

  PairElements(Arena& arena, int64_t capacity)
      : rank(arena.take<uint32_t>(capacity)),
        index(arena.take<uint32_t>(capacity)),
        a(arena.take<double>(capacity)),
        slope(arena.take<double>(capacity)) {}
};

// Number and sum of a of what each digit has met.
struct Met {
  alignas(64) double number[kDigits];
  alignas(64) double sum[kDigits];
};

// All pairs of a group of at most kMost elements, directly; writes the finished slopes. Returns twice the number of
// pairs.
template <int kMost>
SURE_FAST_INLINE int64_t finish_group(const PairElements& e, int64_t begin, int64_t n, double* slope_of) {
  alignas(64) double rank[kMost] = {}, number[kMost] = {}, sum[kMost] = {}, position[kMost];
  for (int64_t i = 0; i < kMost; ++i) position[i] = static_cast<double>(i);
  for (int64_t i = 0; i < n; ++i) rank[i] = static_cast<double>(e.rank[begin + i]);
  const int64_t width = kMost == kVector ? kVector : (n + kVector - 1) / kVector * kVector;
  for (int64_t i = 0; i < n; ++i) {
    const double r = rank[i], p = position[i], a = e.a[begin + i];
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) {
      const double hit = (rank[j] - r) * (position[j] - p) > 0.0 ? 1.0 : 0.0;
      number[j] += hit;
      sum[j] += hit * a;
    }
  }
  int64_t pairs = 0;
  for (int64_t i = 0; i < n; ++i) {
    slope_of[e.index[begin + i]] = e.slope[begin + i] + (e.a[begin + i] * number[i] - sum[i]);
    pairs += static_cast<int64_t>(number[i]);
  }
  return pairs;
}

// The same of at most kSmall; most groups are of a few.
SURE_FAST_INLINE int64_t finish_small(const PairElements& e, int64_t begin, int64_t end, double* slope_of) {
  const int64_t n = end - begin;
  if (n == 1) {
    slope_of[e.index[begin]] = e.slope[begin];
    return 0;
  }
  return n <= kVector ? finish_group<kVector>(e, begin, n, slope_of) : finish_group<kSmall>(e, begin, n, slope_of);
}

// Deals elements begin..end of `from` into `to` by the digit at `shift`, an element of digit d to `next[d]`, which
// advances.
SURE_FAST_INLINE int64_t deal(const PairElements& from, const PairElements& to, int64_t begin, int64_t end, int shift,
                              const double (*sign)[kDigits], const Met& met, int64_t* next) {
  int64_t pairs = 0;
  Lanes number = Lanes::from(met.number), sum = Lanes::from(met.sum);
  while (begin < end) {
    const int64_t last = begin + kExact < end ? begin + kExact : end;
    double some = 0.0;
    for (int64_t i = begin; i < last; ++i) {
      const uint32_t rank = from.rank[i], digit = rank >> shift & (kDigits - 1);
      const double a = from.a[i], here = number.at(digit);
      const int64_t at = next[digit]++;
      to.rank[at] = rank;
      to.index[at] = from.index[i];
      to.a[at] = a;
      to.slope[at] = from.slope[i] + (a * here - sum.at(digit));
      some += here;
      number.add(sign[digit]);
      sum.add(sign[digit], a);
    }
    pairs += static_cast<int64_t>(some);
    begin = last;
  }
  return pairs;
}

// Per digit, how many elements and their sum of a.
SURE_FAST_INLINE void digit_totals(const PairElements& e, int64_t begin, int64_t end, int shift, double* number,
                                   double* sum) {
  for (int d = 0; d < kDigits; ++d) number[d] = sum[d] = 0.0;
  for (int64_t i = begin; i < end; ++i) {
    const int digit = static_cast<int>((e.rank[i] >> shift) & (kDigits - 1));
    number[digit] += 1.0;
    sum[digit] += e.a[i];
  }
}

void digit_signs(double (*sign)[kDigits]) {
  for (int e = 0; e < kDigits; ++e) {
    for (int d = 0; d < kDigits; ++d) sign[e][d] = d > e ? 1.0 : d < e ? -1.0 : 0.0;
  }
}

// What is met before the first element: of each digit, all that are greater.
void greater_ones(const double* number, const double* sum, Met& met) {
  double n = 0.0, s = 0.0;
  for (int d = kDigits - 1; d >= 0; --d) {
    met.number[d] = n;
    met.sum[d] = s;
    n += number[d];
    s += sum[d];
  }
}

// Elements begin..end of `from`, whose ranks agree above `shift + kDigitBits`. Returns twice the number of pairs.
int64_t sum_group(const PairElements& from, const PairElements& to, int64_t begin, int64_t end, int shift,
                  const double (*sign)[kDigits], double* slope_of) {
  if (end == begin) return 0;
  if (end - begin <= kSmall) return finish_small(from, begin, end, slope_of);
  if (shift < 0) {  // equal ranks
    for (int64_t i = begin; i < end; ++i) slope_of[from.index[i]] = from.slope[i];
    return 0;
  }
  alignas(64) double number[kDigits], sum[kDigits];
  digit_totals(from, begin, end, shift, number, sum);
  int64_t next[kDigits], first[kDigits + 1];
  first[0] = begin;
  for (int d = 0; d < kDigits; ++d) {
    next[d] = first[d];
    first[d + 1] = first[d] + static_cast<int64_t>(number[d]);
  }
  Met met;
  greater_ones(number, sum, met);
  int64_t pairs = deal(from, to, begin, end, shift, sign, met, next);
  for (int d = 0; d < kDigits; ++d) {
    pairs += sum_group(to, from, first[d], first[d + 1], next_shift(shift), sign, slope_of);
  }
  return pairs;
}

// Slope sum over partners of (a_i - a_j) of elements 0..n-1 of `from` (their slope 0) into slope_of[index], with ranks
// of `bits` bits; chunk_totals [pair_chunks(n), 2, kDigits]. Returns the number of pairs.
int64_t sum_partners(const PairElements& from, const PairElements& to, int64_t n, int bits, double* chunk_totals,
                     int threads, double* slope_of) {
  alignas(64) double sign[kDigits][kDigits];
  digit_signs(sign);
  const int shift = first_shift(bits);
  const int64_t chunks = pair_chunks(n);
  if (chunks <= 1 || shift < 0) return sum_group(from, to, 0, n, shift, sign, slope_of) / 2;
  // The first dealing in fixed chunks, side by side: each starts from the totals of those before it.
  parallel_tasks(chunks, threads, [&](int64_t c) {
    const int64_t last = (c + 1) * kPairChunk < n ? (c + 1) * kPairChunk : n;
    double* totals = chunk_totals + c * 2 * kDigits;
    digit_totals(from, c * kPairChunk, last, shift, totals, totals + kDigits);
  });
  double number[kDigits] = {}, sum[kDigits] = {};
  for (int64_t c = 0; c < chunks; ++c) {  // totals become what lies before the chunk
    for (int d = 0; d < kDigits; ++d) {
      double* totals = chunk_totals + c * 2 * kDigits;
      const double n_here = totals[d], s_here = totals[kDigits + d];
      totals[d] = number[d];
      totals[kDigits + d] = sum[d];
      number[d] += n_here;
      sum[d] += s_here;
    }
  }
  int64_t first[kDigits + 1] = {};
  for (int d = 0; d < kDigits; ++d) first[d + 1] = first[d] + static_cast<int64_t>(number[d]);
  Met start;
  greater_ones(number, sum, start);
  int64_t pairs = 0;
  parallel_tasks(chunks, threads, [&](int64_t c) {
    const int64_t last = (c + 1) * kPairChunk < n ? (c + 1) * kPairChunk : n;
    const double* before = chunk_totals + c * 2 * kDigits;
    Met met = start;
    int64_t next[kDigits];
    for (int e = 0; e < kDigits; ++e) {
      next[e] = first[e] + static_cast<int64_t>(before[e]);
      for (int d = 0; d < kDigits; ++d) {
        met.number[d] += sign[e][d] * before[e];
        met.sum[d] += sign[e][d] * before[kDigits + e];
      }
    }
    const int64_t counted = deal(from, to, c * kPairChunk, last, shift, sign, met, next);
    __atomic_fetch_add(&pairs, counted, __ATOMIC_RELAXED);
  });
  dynamic_tasks(kDigits, threads, [&](int64_t d) {
    const int64_t counted = sum_group(to, from, first[d], first[d + 1], next_shift(shift), sign, slope_of);
    __atomic_fetch_add(&pairs, counted, __ATOMIC_RELAXED);
  });
  return pairs / 2;
}

}  // namespace
}  // namespace SURE_FAST_NS
}  // namespace sure_fast
