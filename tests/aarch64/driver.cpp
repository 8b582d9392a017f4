// Runs kernels of csrc/cpu on made inputs and writes what they give to standard output, as float64: a program of its
// own, so that another instruction set than this machine's can be tried in an emulator of its processor, without
// Python.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "cpu/evidential_loss.h"
#include "cpu/pair_concordance.h"
#include "cpu/spearman.h"
#include "cpu/special_functions.h"

using namespace sure_fast;

namespace {

std::vector<double> results;

// The same numbers on every machine.
struct Draw {
  uint64_t state = 1;
  double operator()() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<double>(state >> 11) / 9007199254740992.0;
  }
};

template <typename T>
void keep(const std::vector<T>& values) {
  for (const T& value : values) results.push_back(static_cast<double>(value));
}

template <typename T>
void special(DType dtype) {
  const int count = 3001;
  for (int which = 0; which <= static_cast<int>(Special::entropic_slope); ++which) {
    std::vector<T> x(count), out(count);
    for (int i = 0; i < count; ++i) {
      // exp and the sigmoids on both sides of 0, the others from 1 on, as alpha is
      const bool both = which == static_cast<int>(Special::exponential) ||
                        which == static_cast<int>(Special::softplus) || which == static_cast<int>(Special::sigmoid);
      const double t = static_cast<double>(i) / (count - 1);
      x[i] = static_cast<T>(both ? -30 + 60 * t : 1 + 500 * t * t * t);
    }
    baseline::special_function(static_cast<Special>(which), dtype, x.data(), count, out.data());
    keep(out);
  }
}

// Logits are stored as Storage and computed with as T.
template <typename Storage, typename T>
void evidential(DType dtype, Evidence evidence, Kind kind, bool regions, int threads) {
  const int64_t batch = 2, channels = 4, voxels = 5003;
  Draw draw;
  std::vector<Storage> logits(batch * channels * voxels), gradient(logits.size());
  for (Storage& z : logits) narrow(static_cast<T>(12 * draw() - 6), z);
  std::vector<int64_t> label(batch * voxels * (regions ? channels : 1));
  for (int64_t& y : label) y = static_cast<int64_t>(draw() * (regions ? 2 : channels));
  label[7] = 9;
  EvidentialArgs args{};
  args.logits = {logits.data(), dtype, batch, channels, voxels, channels * voxels, voxels, 1};
  args.target.data = label.data();
  args.target.dtype = DType::i64;
  args.target.classes = regions ? 2 : channels;
  args.target.has_ignore = true;
  args.target.ignore = 9;
  args.evidence = evidence;
  args.kind = kind;
  args.regions = regions;
  args.threads = threads;
  const int64_t width = evidential_sums_size(evidential_classes(args)), groups = evidential_groups(args);
  const int64_t chunks = evidential_chunks(args), maps = evidential_maps(args);
  std::vector<double> partials(width * maps * chunks), coefficients(groups * width);
  std::vector<T> u(maps * voxels);
  baseline::evidential_loss_forward(args, partials.data(), {u.data(), nullptr, nullptr, 1.0});
  for (double& c : coefficients) c = draw();
  View to = args.logits;
  to.data = gradient.data();
  baseline::evidential_loss_backward(args, coefficients.data(), {nullptr, nullptr, nullptr, 1.0}, to);
  keep(partials);
  keep(u);
  for (const Storage& slope : gradient) results.push_back(static_cast<double>(widen(slope)));
}

template <typename T>
void rankings(DType dtype, int threads) {
  const int64_t rows = 3, n = 20011;
  Draw draw;
  std::vector<T> a(rows * n), b(rows * n);
  std::vector<uint8_t> mask(rows * n);
  for (int64_t i = 0; i < rows * n; ++i) {
    a[i] = static_cast<T>(static_cast<int>(draw() * 500)) / 8;  // with ties
    b[i] = a[i] + static_cast<T>(draw() * 40);
    mask[i] = draw() < 0.8;
  }
  RowPairArgs args{a.data(), b.data(), dtype, mask.data(), rows, n, n, threads};
  std::vector<int64_t> counts(6 * rows);
  std::vector<double> correlation(rows);
  std::vector<char> scratch(baseline::pair_concordance_workspace(args) + baseline::spearman_workspace(args) + 128);
  char* aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64);
  baseline::pair_concordance_forward(args, 0.01, aligned, counts.data());
  baseline::spearman_forward(args, aligned, correlation.data());
  keep(counts);
  keep(correlation);
}

}  // namespace

template <typename Storage, typename T>
void losses(DType dtype) {
  for (const int threads : {1, 3}) {
    for (const Evidence evidence : {Evidence::softplus, Evidence::relu, Evidence::exp}) {
      for (const Kind kind : {Kind::digamma, Kind::log, Kind::mse}) {
        for (const bool regions : {false, true}) evidential<Storage, T>(dtype, evidence, kind, regions, threads);
      }
    }
  }
}

template <typename T>
void all(DType dtype) {
  special<T>(dtype);
  losses<T, T>(dtype);
  for (const int threads : {1, 3}) rankings<T>(dtype, threads);
}

// The argument is a dtype: f32, f64, f16 or bf16, of which the last two have losses alone.
int main(int count, char** arguments) {
  const char* dtype = count == 2 ? arguments[1] : "";
  if (std::strcmp(dtype, "f32") == 0) all<float>(DType::f32);
  if (std::strcmp(dtype, "f64") == 0) all<double>(DType::f64);
  if (std::strcmp(dtype, "f16") == 0) losses<half_t, float>(DType::f16);
  if (std::strcmp(dtype, "bf16") == 0) losses<bfloat16_t, float>(DType::bf16);
  return std::fwrite(results.data(), sizeof(double), results.size(), stdout) == results.size() ? 0 : 1;
}
