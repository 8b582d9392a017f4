// The choices that cross from Python, and their names there, in the order of their numbers: this is where Python reads
// them. Triton kernels take the names.
#pragma once

namespace sure_fast {

enum class DType : int { f32, f64, bf16, f16, u8, i8, i16, i32, i64, boolean };
constexpr const char* kDTypes[] = {"float32", "float64", "bfloat16", "float16", "uint8",
                                   "int8",    "int16",   "int32",    "int64",   "bool"};

// e(z), of which alpha = e(z) + 1.
enum class Evidence : int { softplus, relu, exp };
constexpr const char* kEvidence[] = {"softplus", "relu", "exp"};

// The data term of the evidential loss.
enum class Kind : int { digamma, log, mse };
constexpr const char* kKinds[] = {"digamma", "log", "mse"};

// The scalar functions of csrc/math that tests hold against SciPy.
enum class Special : int {
  exponential,
  logarithm,
  log_one_plus,
  softplus,
  sigmoid,
  digamma,
  trigamma,
  entropic,
  entropic_slope
};
constexpr const char* kSpecial[] = {"exponential", "logarithm", "log_one_plus", "softplus",      "sigmoid",
                                    "digamma",     "trigamma",  "entropic",     "entropic_slope"};

}  // namespace sure_fast
