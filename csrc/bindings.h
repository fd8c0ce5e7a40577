// The kernels' arguments as Python passes them, on every device: a tuple for each struct of kernels.h, its members in their
// order, or an empty one for no batch. Addresses are integers, 0 for none. A coefficient is two entries: its address and its number.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "kernels.h"

namespace ebgan __attribute__((visibility("hidden"))) {

using Address = std::uintptr_t;

inline void* at(Address address) { return reinterpret_cast<void*>(address); }

// The entries of a tuple, one after the other. Braces call the functions below from left to right.
class Entries {
 public:
  Entries(const pybind11::tuple& tuple, const char* name, std::size_t expected) : tuple_(tuple) {
    if (tuple.size() != expected)
      throw pybind11::value_error(std::string(name) + ": got " + std::to_string(tuple.size()) + " entries, expected " +
                                  std::to_string(expected));
  }

  void* address() { return at(next<Address>()); }
  std::int64_t size() { return next<std::int64_t>(); }
  Norm norm() { return Norm(next<int>()); }
  Coefficient coefficient() { return Coefficient{address(), next<double>()}; }

  Batch batch() {
    const auto entries = next<pybind11::tuple>();
    if (entries.empty()) return Batch{nullptr, nullptr, nullptr, nullptr, nullptr, 0, 0, 0, 0, 0, 1};
    Entries it(entries, "a batch", 11);
    return Batch{it.address(), it.address(), it.address(), it.address(), it.address(), it.size(),
                 it.size(),    it.size(),    it.size(),    it.size(),    it.size()};
  }

  Code code() {
    const auto entries = next<pybind11::tuple>();
    Entries it(entries, "a code", 4);
    return Code{it.address(), it.size(), it.size(), it.size()};
  }

 private:
  template <class T> T next() { return tuple_[next_++].cast<T>(); }

  const pybind11::tuple& tuple_;
  std::size_t next_ = 0;
};

inline Loss loss_of(const pybind11::tuple& tuple) {
  Entries it(tuple, "a loss", 8);
  return Loss{it.norm(), it.batch(), it.batch(), it.coefficient(), it.coefficient(), it.address()};
}

inline EnergyGradient energy_gradient_of(const pybind11::tuple& tuple) {
  Entries it(tuple, "an energy's gradient", 4);
  return EnergyGradient{it.norm(), it.batch(), it.address(), it.size()};
}

inline Hinge hinge_of(const pybind11::tuple& tuple) {
  Entries it(tuple, "a hinge", 9);
  return Hinge{it.address(), it.address(), it.address(),     it.address(),
               it.size(),    it.size(),    it.coefficient(), it.address()};
}

inline PullingAway pulling_away_of(const pybind11::tuple& tuple) {
  Entries it(tuple, "a pulling-away term", 7);
  return PullingAway{it.code(), it.address(), it.address(), it.address(), it.address(), it.coefficient()};
}

inline PullingAwayGradient pulling_away_gradient_of(const pybind11::tuple& tuple) {
  Entries it(tuple, "a pulling-away term's gradient", 7);
  return PullingAwayGradient{it.code(), it.address(), it.address(), it.coefficient(), it.address(), it.size()};
}

void bind_cuda(pybind11::module_& m);  // bindings_cuda.cpp, where it is built

}  // namespace ebgan
