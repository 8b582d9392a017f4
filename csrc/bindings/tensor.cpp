// How a torch.Tensor is read: through its Python attributes, so that the modules need no torch to be built.
#include "bindings/tensor.h"

namespace py = pybind11;

namespace sure_fast {
namespace {

constexpr int kDTypeCount = sizeof(kDTypes) / sizeof(kDTypes[0]);

py::str interned(const std::string& name) {
  return py::reinterpret_steal<py::str>(PyUnicode_InternFromString(name.c_str()));
}

// What is asked of torch, looked up once. It is never freed: at exit there may be no interpreter to do so.
struct Torch {
  py::object tensor, dtypes[kDTypeCount];
  py::str data_ptr = interned("data_ptr"), dtype = interned("dtype"), shape = interned("shape");
  py::str stride = interned("stride"), device = interned("device");
  py::str is_here = interned(std::string("is_") + kDevice);

  Torch() {
    const py::module_ torch = py::module_::import("torch");
    tensor = torch.attr("Tensor");
    for (int i = 0; i < kDTypeCount; ++i) dtypes[i] = torch.attr(kDTypes[i]);
  }
};

const Torch& torch() {
  static const Torch* const names = new Torch;
  return *names;
}

py::object attribute(py::handle object, const py::str& name) {
  PyObject* value = PyObject_GetAttr(object.ptr(), name.ptr());
  if (value == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(value);
}

py::object called(py::handle object, const py::str& name) {
  PyObject* value = PyObject_CallMethodNoArgs(object.ptr(), name.ptr());
  if (value == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(value);
}

void read_integers(const py::object& numbers, int axes, int64_t* out) {
  for (int i = 0; i < axes; ++i) {
    out[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(numbers.ptr(), i));
    if (out[i] == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  }
}

DType read_dtype(const Torch& names, const py::object& dtype) {
  for (int i = 0; i < kDTypeCount; ++i) {
    if (dtype.is(names.dtypes[i])) return static_cast<DType>(i);
  }
  throw py::value_error("no kernel reads a tensor of " + std::string(py::str(dtype)));
}

std::string shape_text(const Tensor& t) {
  std::string text = "[";
  for (int i = 0; i < t.axes; ++i) text += (i == 0 ? "" : ", ") + std::to_string(t.size[i]);
  return text + "]";
}

bool is_contiguous(const TensorArgument& t) {
  int64_t expected = 1;
  if (t.elements() == 0) return true;
  for (int i = t.axes - 1; i >= 0; --i) {
    if (t.size[i] != 1 && t.stride[i] != expected) return false;
    expected *= t.size[i];
  }
  return true;
}

}  // namespace

int64_t TensorArgument::elements() const {
  int64_t product = 1;
  for (int i = 0; i < axes; ++i) product *= size[i];
  return product;
}

bool read_tensor(py::handle object, TensorArgument& out) {
  const Torch& names = torch();
  if (!PyObject_TypeCheck(object.ptr(), reinterpret_cast<PyTypeObject*>(names.tensor.ptr()))) return false;
  if (attribute(object, names.is_here).ptr() != Py_True) {
    const std::string device = kDevice[1] == 'p' ? "the CPU" : "a CUDA device";
    throw py::value_error("expected a tensor on " + device + " for its kernels, got one on " +
                          std::string(py::str(attribute(object, names.device))));
  }
  const py::object shape = attribute(object, names.shape), strides = called(object, names.stride);
  out.axes = static_cast<int>(PyTuple_GET_SIZE(shape.ptr()));
  if (out.axes > kMostAxes) throw py::value_error("a kernel's tensor has " + std::to_string(out.axes) + " axes");
  read_integers(shape, out.axes, out.size);
  read_integers(strides, out.axes, out.stride);
  out.dtype = read_dtype(names, attribute(object, names.dtype));
  out.data = PyLong_AsVoidPtr(called(object, names.data_ptr).ptr());
  if (out.data == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
  out.owner = py::reinterpret_borrow<py::object>(object);
  return true;
}

void* memory(const TensorArgument& t, const char* name, std::initializer_list<DType> dtypes, int64_t elements) {
  std::string expected;
  bool fits = false;
  for (DType dtype : dtypes) fits |= t.dtype == dtype;
  if (fits && t.elements() == elements && is_contiguous(t)) return t.data;
  for (DType dtype : dtypes) {
    expected += (expected.empty() ? "" : " or ") + std::string(kDTypes[static_cast<int>(dtype)]);
  }
  throw std::invalid_argument(std::string(name) + ": the kernel expects " + std::to_string(elements) +
                              " contiguous elements of " + expected + ", got " + kDTypes[static_cast<int>(t.dtype)] +
                              " " + shape_text(t));
}

void* scratch_memory(const TensorArgument& t, int64_t bytes) {
  const int64_t given = t.elements();
  return memory(t, "scratch", {DType::u8}, given < bytes ? bytes : given);
}

LabelMap labels(const TensorArgument& t, const char* name, int64_t elements) {
  return {memory(t, name, {DType::u8, DType::i8, DType::i16, DType::i32, DType::i64}, elements), t.dtype};
}

Labels labels(const TensorArgument& t, const char* name, int64_t elements, int64_t classes,
              std::optional<int64_t> ignore) {
  return {labels(t, name, elements), classes, ignore.has_value(), ignore.value_or(0)};
}

bool has_one_stride(const TensorArgument& t) {
  int64_t expected = 0;
  bool first = true;
  for (int i = t.axes - 1; i >= 2; --i) {
    if (t.size[i] == 1) continue;
    if (!first && t.stride[i] != expected) return false;
    expected = t.stride[i] * t.size[i];
    first = false;
  }
  return true;
}

View view(const TensorArgument& t, const char* name) {
  if (t.axes < 3 || !has_one_stride(t)) {
    throw std::invalid_argument(std::string(name) + ": the kernel expects [N, C, *S] of one stride, got " +
                                shape_text(t));
  }
  int64_t voxels = t.size[0] == 0 || t.size[1] == 0 ? 0 : 1, stride = 1;
  for (int i = 2; i < t.axes; ++i) {
    voxels *= t.size[i];
    if (t.size[i] != 1) stride = t.stride[i];
  }
  return {t.data, t.dtype, t.size[0], t.size[1], voxels, t.stride[0], t.stride[1], stride};
}

View view_like(const View& other, const TensorArgument& t, const char* name) {
  const View v = view(t, name);
  if (v.dtype != other.dtype || v.batch != other.batch || v.channels != other.channels || v.voxels != other.voxels) {
    throw std::invalid_argument(std::string(name) + ": the kernel expects sizes and dtype of the logits, got " +
                                kDTypes[static_cast<int>(t.dtype)] + " " + shape_text(t));
  }
  return v;
}

void read_sizes(const TensorArgument& t, const char* name, int leading, int64_t* size) {
  const int missing = leading + 3 - t.axes;
  if (missing < 0 || missing > 1) {
    throw std::invalid_argument(std::string(name) + ": the kernel expects 2 or 3 spatial axes, got " + shape_text(t));
  }
  for (int i = 0; i < leading; ++i) size[i] = t.size[i];
  if (missing == 1) size[leading] = 1;
  for (int i = leading; i < t.axes; ++i) size[i + missing] = t.size[i];
}

}  // namespace sure_fast
