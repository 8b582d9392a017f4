// The digamma family for x >= 1, where a Dirichlet parameter lives: psi, psi', and
//   entropic(x) = (x - 1) psi(x) - lnGamma(x) - x,
// the only combination of lnGamma that KL(Dir(alpha) || Dir(1)) needs: its terms in x ln x and x cancel on paper rather
// than in floating point, and it grows like ln x. Each function is a shift by N, written as one rational term, plus
// the asymptotic series at y >= N + 1 (Abramowitz & Stegun 6.1.41, 6.3.18, 6.4.12). One copy for host and device.
#pragma once

#include "math/elementary.h"

namespace sure_fast {
namespace math {

constexpr double kHalfLogTwoPi = 0.91893853320467274178;

// psi(x) with relative error near 1e-7 (absolute near its root at 1.4616), for float x >= 1.
// N = 4: with t = x^2 + 3x the shift product is P = x(x+1)(x+2)(x+3) = t (t + 2).
SURE_FAST_INLINE float digamma(float x) {
  const bool large = x >= 5.0f;
  const float s = large ? 1.0f : x;
  const float y = large ? x : x + 4.0f;
  const float t = s * (s + 3.0f);
  const float shift = large ? 0.0f : (2.0f * s + 3.0f) * (2.0f * t + 2.0f) / (t * (t + 2.0f));
  const float i = 1.0f / y;
  const float w = i * i;
  return logarithm(y) - 0.5f * i - w * (0.0833333333f - w * (0.00833333333f - w * 0.00396825397f)) - shift;
}

// psi(x) and entropic(x) together: they share the logarithm, the shift and the reciprocal.
SURE_FAST_INLINE float digamma_entropic(float x, float& entropic) {
  const bool large = x >= 5.0f;
  const float s = large ? 1.0f : x;
  const float y = large ? x : x + 4.0f;
  const float t = s * (s + 3.0f);
  const float product = t * (t + 2.0f);
  const float shift = large ? 0.0f : (2.0f * s + 3.0f) * (2.0f * t + 2.0f) / product;
  const float i = 1.0f / y;
  const float w = i * i;
  const float tail = 0.5f * i + w * (0.0833333333f - w * (0.00833333333f - w * 0.00396825397f));
  const float gamma_tail = i * (0.0833333333f - w * (0.00277777778f - w * 0.000793650794f));
  const float log_y = logarithm(y);
  // ln(P / y^4) for the shifted, 0 for the others
  const float y2 = w * w;
  const float log_ratio = logarithm(large ? 1.0f : product * y2);
  entropic = (log_ratio - 0.5f * log_y) + ((large ? 0.0f : 4.0f) - static_cast<float>(kHalfLogTwoPi)) - gamma_tail -
             (x - 1.0f) * (tail + shift);
  return log_y - tail - shift;
}

// psi'(x), relative error near 3e-7, and entropic'(x) = (x - 1) psi'(x) - 1, which is near -1/(2x) for large x and is
// computed there without its leading 1.
SURE_FAST_INLINE float trigamma_entropic(float x, float& entropic_slope) {
  const bool large = x >= 5.0f;
  const float s = large ? 1.0f : x;
  const float y = large ? x : x + 4.0f;
  const float t = s * (s + 3.0f);
  const float p = t * (t + 2.0f);
  // sum of 1/(s+k)^2 over k = 0..3, paired as (s, s+3) and (s+1, s+2): ((2t + 9) (t+2)^2 + (2t + 5) t^2) / P^2
  const float u = t + 2.0f;
  const float shift = large ? 0.0f : ((2.0f * t + 9.0f) * u * u + (2.0f * t + 5.0f) * t * t) / (p * p);
  const float i = 1.0f / y;
  const float w = i * i;
  const float rest = 0.5f * w + i * w * (0.166666667f - w * (0.0333333333f - w * (0.0238095238f - w * 0.0333333333f)));
  const float value = i + rest + shift;
  entropic_slope = large ? (x - 1.0f) * rest - i : (x - 1.0f) * value - 1.0f;
  return value;
}

SURE_FAST_INLINE float trigamma(float x) {
  float unused;
  return trigamma_entropic(x, unused);
}

// float64: shift by ten, series to y^-14; relative error near 1e-14.
SURE_FAST_INLINE double digamma_entropic(double x, double& entropic) {
  double shift = 0.0;
  double log_ratio = 0.0;
  double moved = 0.0;
  double y = x;
  if (x < 11.0) {
    moved = 10.0;
    y = x + moved;
    double ratio = 1.0;
    for (int k = 0; k < 10; ++k) {
      shift += 1.0 / (x + k);
      ratio *= (x + k) / y;
    }
    log_ratio = log(ratio);
  }
  const double i = 1.0 / y;
  const double w = i * i;
  const double tail =
      0.5 * i +
      w * (1.0 / 12 - w * (1.0 / 120 -
                           w * (1.0 / 252 - w * (1.0 / 240 - w * (1.0 / 132 - w * (691.0 / 32760 - w * (1.0 / 12)))))));
  const double gamma_tail =
      i * (1.0 / 12 -
           w * (1.0 / 360 - w * (1.0 / 1260 - w * (1.0 / 1680 - w * (1.0 / 1188 - w * (691.0 / 360360 - w / 156))))));
  const double log_y = log(y);
  entropic = (log_ratio - 0.5 * log_y) + (moved - kHalfLogTwoPi) - gamma_tail - (x - 1.0) * (tail + shift);
  return log_y - tail - shift;
}

SURE_FAST_INLINE double digamma(double x) {
  double unused;
  return digamma_entropic(x, unused);
}

SURE_FAST_INLINE double trigamma_entropic(double x, double& entropic_slope) {
  double shift = 0.0;
  double y = x;
  if (x < 11.0) {
    y = x + 10.0;
    for (int k = 0; k < 10; ++k) {
      shift += 1.0 / ((x + k) * (x + k));
    }
  }
  const double i = 1.0 / y;
  const double w = i * i;
  const double series =
      1.0 / 6 - w * (1.0 / 30 - w * (1.0 / 42 - w * (1.0 / 30 - w * (5.0 / 66 - w * (691.0 / 2730 - w * (7.0 / 6))))));
  const double rest = 0.5 * w + i * w * series;
  const double value = i + rest + shift;
  entropic_slope = x < 11.0 ? (x - 1.0) * value - 1.0 : (x - 1.0) * rest - i;
  return value;
}

SURE_FAST_INLINE double trigamma(double x) {
  double unused;
  return trigamma_entropic(x, unused);
}

}  // namespace math
}  // namespace sure_fast
