// The list of bindings, which fills itself as the library is loaded.
#include "bindings/registrar.h"

namespace sure_fast {
namespace {

std::vector<Registrar::Bind>& registered() {
  static std::vector<Registrar::Bind> binds;
  return binds;
}

}  // namespace

Registrar::Registrar(Bind bind) { registered().push_back(bind); }

void Registrar::run(pybind11::module_& m) {
  for (Bind bind : registered()) bind(m);
}

}  // namespace sure_fast
