// The conversion of the kernels' arguments from Python, for every device. Python passes a tuple for each struct of
// kernels.h, with its members in their order, or an empty tuple for no batch. Addresses are integers, 0 for none. A
// coefficient is two entries: its address and its number.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "kernels.h"

namespace ebgan __attribute__((visibility("hidden"))) {

// Reads the entries of a tuple one after the other. Braces call the functions below from left to right. These call
// Python's C functions directly: pybind11's casts take 0.2 us more for a loss.
class Entries {
 public:
  Entries(PyObject* tuple, const char* name, Py_ssize_t expected) : tuple_(tuple) {
    if (PyTuple_GET_SIZE(tuple) != expected)
      throw pybind11::value_error(std::string(name) + ": got " + std::to_string(PyTuple_GET_SIZE(tuple)) +
                                  " entries, expected " + std::to_string(expected));
  }

  void* address() { return checked<void*>(PyLong_AsVoidPtr(next()), nullptr); }
  std::int64_t size() { return checked<std::int64_t>(PyLong_AsLongLong(next()), -1); }
  double number() { return checked(PyFloat_AsDouble(next()), -1.0); }
  Norm norm() { return Norm(size()); }
  Coefficient coefficient() { return Coefficient{address(), number()}; }

  Batch batch() {
    PyObject* const entries = tuple();
    if (PyTuple_GET_SIZE(entries) == 0)
      return Batch{nullptr, nullptr, nullptr, nullptr, nullptr, 0, 0, 0, 0, 0, 1};
    Entries it(entries, "a batch", 11);
    return Batch{it.address(), it.address(), it.address(), it.address(), it.address(), it.size(),
                 it.size(),    it.size(),    it.size(),    it.size(),    it.size()};
  }

  Code code() {
    Entries it(tuple(), "a code", 4);
    return Code{it.address(), it.size(), it.size(), it.size()};
  }

 private:
  // A borrowed reference: the tuple outlives this object.
  PyObject* next() { return PyTuple_GET_ITEM(tuple_, next_++); }

  PyObject* tuple() {
    PyObject* const entry = next();
    if (!PyTuple_Check(entry)) throw pybind11::type_error("got an entry that is no tuple, expected one for a struct");
    return entry;
  }

  // Python's conversions return `failed` after an error, but also for a value equal to it.
  template <class T> static T checked(T value, T failed) {
    if (value == failed && PyErr_Occurred()) throw pybind11::error_already_set();
    return value;
  }

  PyObject* const tuple_;
  Py_ssize_t next_ = 0;
};

inline Loss loss_of(const pybind11::tuple& tuple) {
  Entries it(tuple.ptr(), "a loss", 8);
  return Loss{it.norm(), it.batch(), it.batch(), it.coefficient(), it.coefficient(), it.address()};
}

inline EnergyGradient energy_gradient_of(const pybind11::tuple& tuple) {
  Entries it(tuple.ptr(), "an energy's gradient", 4);
  return EnergyGradient{it.norm(), it.batch(), it.address(), it.size()};
}

inline Hinge hinge_of(const pybind11::tuple& tuple) {
  Entries it(tuple.ptr(), "a hinge", 9);
  return Hinge{it.address(), it.address(), it.address(),     it.address(),
               it.size(),    it.size(),    it.coefficient(), it.address()};
}

inline PullingAway pulling_away_of(const pybind11::tuple& tuple) {
  Entries it(tuple.ptr(), "a pulling-away term", 7);
  return PullingAway{it.code(), it.address(), it.address(), it.address(), it.address(), it.coefficient()};
}

inline PullingAwayGradient pulling_away_gradient_of(const pybind11::tuple& tuple) {
  Entries it(tuple.ptr(), "a pulling-away term's gradient", 7);
  return PullingAwayGradient{it.code(), it.address(), it.address(), it.coefficient(), it.address(), it.size()};
}

void bind_cuda(pybind11::module_& m);  // in bindings_cuda.cpp, if CUDA is built

}  // namespace ebgan
