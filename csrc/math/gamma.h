// The digamma family for x >= 1, where a Dirichlet parameter lives: psi, psi', and
//   entropic(x) = (x - 1) psi(x) - lnGamma(x) - x,
// the only combination of lnGamma that KL(Dir(alpha) || Dir(1)) needs: its terms in x ln x and x cancel on paper rather
// than in floating point, and it grows like ln x. float: psi(x) - ln x, entropic(x) + ln(x) / 2, x psi'(x) and
// x entropic'(x) are smooth in 1/x on [0, 1], each a minimax polynomial there (Remez): no branch, one division. double:
// a shift by ten, then the asymptotic series (Abramowitz & Stegun 6.1.41, 6.3.18, 6.4.12). For the CPU: on a GPU only
// Triton's kernels need them, in float, with these coefficients.
#pragma once

#include "math/elementary.h"

namespace sure_fast {
namespace math {

constexpr double kHalfLogTwoPi = 0.91893853320467274178;

constexpr float kPsi[] = {0.000216583125f,  0.000118552445f, -0.00394201046f, 0.0100836661f,
                          -0.000400699035f, -0.0832901672f,  -0.50000155f};
constexpr float kEntropic[] = {-0.00102961576f, 0.0033731116f, -0.00116851192f, -0.0105542038f,
                               0.0117260674f,   0.0832545981f, 0.333337098f,    -1.41893852f};
constexpr float kTrigamma[] = {0.00277188001f,  -0.0106026102f, 0.0108598024f, 0.0125615196f, -0.0381858125f,
                               0.000948568806f, 0.166577622f,   0.500003159f,  1.0f};
constexpr float kEntropicSlope[] = {-0.00621528598f, 0.0285253264f, -0.0491602123f, 0.0255119372f, 0.035227228f,
                                    -0.0339605734f,  -0.166592076f, -0.333336413f,  -0.49999997f};

// psi(x) - ln x, for i = 1/x in (0, 1].
SURE_FAST_INLINE float psi_series(float i) { return polynomial(kPsi, i) * i; }

// entropic(x) + ln(x) / 2.
SURE_FAST_INLINE float entropic_series(float i) { return polynomial(kEntropic, i); }

// psi(x), relative error near 1e-7 (absolute near its root at 1.4616), for float x >= 1.
SURE_FAST_INLINE float digamma(float x) { return logarithm(x) + psi_series(1.0f / x); }

// psi(x) and entropic(x) together: they share the logarithm and the reciprocal.
SURE_FAST_INLINE float digamma_entropic(float x, float& entropic) {
  const float log_x = logarithm(x), i = 1.0f / x;
  entropic = entropic_series(i) - 0.5f * log_x;
  return log_x + psi_series(i);
}

// psi'(x), and entropic'(x) = (x - 1) psi'(x) - 1, which is near -1/(2x) for large x; relative error near 1e-7.
SURE_FAST_INLINE float trigamma_entropic(float x, float& entropic_slope) {
  const float i = 1.0f / x;
  entropic_slope = i * polynomial(kEntropicSlope, i);
  return i * polynomial(kTrigamma, i);
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
