// What makes a binding: it registers itself, and its arguments keep the tensors alive whose memory they name.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

#include "bindings/tensor.h"

namespace sure_fast {

// A file of bindings has one of these; the module runs them all.
class Registrar {
 public:
  using Bind = void (*)(pybind11::module_&);
  explicit Registrar(Bind bind);
  static void run(pybind11::module_& m);
};

// Threads to use when `wanted` are allowed; each module defines it.
int usable_threads(int wanted);

// A kernel's arguments as Python holds them.
template <typename Args>
struct Held : Args {
  std::vector<pybind11::object> owners;

  void keep(const TensorArgument& t) { owners.push_back(t.owner); }
  void keep(const OptionalTensor& t) {
    if (t) keep(*t);
  }
  template <typename Other>
  void keep(const Held<Other>& other) {
    owners.insert(owners.end(), other.owners.begin(), other.owners.end());
  }
  template <typename Other>
  void keep(const Other&) {}
};

// The class Args whose constructor is `make`, with these names; everything that holds memory is kept.
template <typename Args, typename... Parameters, typename... Names>
void bind_args(pybind11::module_& m, const char* name, Args (*make)(Parameters...), const Names&... names) {
  static_assert(sizeof...(Parameters) == sizeof...(Names), "every argument has a name");
  pybind11::class_<Held<Args>>(m, name, pybind11::module_local())
      .def(pybind11::init([make](Parameters... given) {
             Held<Args> held{make(given...), {}};
             (held.keep(given), ...);
             return held;
           }),
           names...);
}

}  // namespace sure_fast
