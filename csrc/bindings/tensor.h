// Tensors and named choices as they come from Python. A torch.Tensor is read here and nowhere else: it becomes one
// object of pointer, dtype, sizes and strides, and what is made of it keeps it alive.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <type_traits>

#include "args/tensor.h"

namespace sure_fast {

// Whose memory the module's kernels work on, "cpu" or "cuda"; each module defines it.
extern const char* const kDevice;

struct TensorArgument : Tensor {
  pybind11::object owner;
  int64_t elements() const;
};

using OptionalTensor = std::optional<TensorArgument>;

// False where the object is no tensor; throws where its memory is not of kDevice.
bool read_tensor(pybind11::handle object, TensorArgument& out);

// The data of a contiguous tensor of one of these dtypes with so many elements; throws an error that names it.
void* memory(const TensorArgument& t, const char* name, std::initializer_list<DType> dtypes, int64_t elements);

// Scratch of at least so many bytes.
void* scratch_memory(const TensorArgument& t, int64_t bytes);

template <typename T>
constexpr DType dtype_of() {  // torch's unsigned 16 and 32 bits are few: their memory comes as signed
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (sizeof(T) == 1) return DType::u8;
  if constexpr (sizeof(T) == 2) return DType::i16;
  if constexpr (std::is_integral_v<T> && sizeof(T) == 4) return DType::i32;
  return DType::i64;
}

template <typename T>
T* data(const TensorArgument& t, const char* name, int64_t elements) {
  if constexpr (sizeof(T) == 1) return static_cast<T*>(memory(t, name, {DType::u8, DType::boolean}, elements));
  return static_cast<T*>(memory(t, name, {dtype_of<T>()}, elements));
}

template <typename T>
T* data(const OptionalTensor& t, const char* name, int64_t elements) {
  return t ? data<T>(*t, name, elements) : nullptr;
}

inline void* memory(const OptionalTensor& t, const char* name, std::initializer_list<DType> dtypes, int64_t elements) {
  return t ? memory(*t, name, dtypes, elements) : nullptr;
}

LabelMap labels(const TensorArgument& t, const char* name, int64_t elements);
Labels labels(const TensorArgument& t, const char* name, int64_t elements, int64_t classes,
              std::optional<int64_t> ignore);

// Whether the axes behind [N, C] step by one stride, and the view that they then make.
bool has_one_stride(const TensorArgument& t);
View view(const TensorArgument& t, const char* name);

// The same of a tensor that must have the sizes and the dtype of another, such as a gradient.
View view_like(const View& other, const TensorArgument& t, const char* name);

// A tensor [N, *S] or, with leading = 2, [N, K, *S] as sizes of which 2D images have D = 1.
void read_sizes(const TensorArgument& t, const char* name, int leading, int64_t* size);

// Numbers along D, H, W of which 2D images give two: `first` along D.
template <typename T>
void read_axes(const pybind11::tuple& numbers, T first, T* out) {
  const size_t given = numbers.size();
  if (given < 2 || given > 3) throw std::invalid_argument("expected 2 or 3 numbers, one an axis");
  out[0] = first;
  for (size_t i = 0; i < given; ++i) out[3 - given + i] = numbers[i].cast<T>();
}

// A choice of csrc/math/enums.h by its name.
template <typename Enum, size_t count>
Enum by_name(const char* const (&names)[count], const std::string& name) {
  for (size_t i = 0; i < count; ++i) {
    if (name == names[i]) return static_cast<Enum>(i);
  }
  std::string all = names[0];
  for (size_t i = 1; i < count; ++i) all += std::string(", ") + names[i];
  throw std::invalid_argument("expected one of " + all + ", got " + name);
}

}  // namespace sure_fast

namespace pybind11::detail {

template <>
struct type_caster<sure_fast::TensorArgument> {
  PYBIND11_TYPE_CASTER(sure_fast::TensorArgument, const_name("torch.Tensor"));
  bool load(handle source, bool) { return sure_fast::read_tensor(source, value); }
};

template <typename Enum>
struct caster_by_name {
  PYBIND11_TYPE_CASTER(Enum, const_name("str"));
  template <size_t count>
  bool load_name(handle source, const char* const (&names)[count]) {
    if (!isinstance<str>(source)) return false;
    value = sure_fast::by_name<Enum>(names, source.cast<std::string>());
    return true;
  }
};

template <>
struct type_caster<sure_fast::Evidence> : caster_by_name<sure_fast::Evidence> {
  bool load(handle source, bool) { return load_name(source, sure_fast::kEvidence); }
};

template <>
struct type_caster<sure_fast::Kind> : caster_by_name<sure_fast::Kind> {
  bool load(handle source, bool) { return load_name(source, sure_fast::kKinds); }
};

template <>
struct type_caster<sure_fast::Special> : caster_by_name<sure_fast::Special> {
  bool load(handle source, bool) { return load_name(source, sure_fast::kSpecial); }
};

}  // namespace pybind11::detail
