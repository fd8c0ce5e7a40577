// What the bindings of every device share: addresses as integers, and a pair of tensors as a tuple.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "tensors.h"

namespace ebgan {

using Address = std::uintptr_t;

inline void* at(Address address) { return reinterpret_cast<void*>(address); }

// A pair of tensors, and the gradients to write, as Python passes them: (recon, target, recon_stride, target_stride,
// n, k, grad_recon, grad_target, grad_recon_stride, grad_target_stride), with address 0 for no gradient.
struct PairArguments {
  Pair pair;
  PairGradient grad;
};

inline PairArguments pair_arguments(const pybind11::tuple& t) {
  if (t.size() != 10)
    throw pybind11::value_error("a pair: got " + std::to_string(t.size()) + " entries, expected 10");
  const auto address = [&](int i) { return at(t[i].cast<Address>()); };
  const auto size = [&](int i) { return t[i].cast<std::int64_t>(); };
  return {{address(0), address(1), size(2), size(3), size(4), size(5)}, {address(6), address(7), size(8), size(9)}};
}

void bind_cuda(pybind11::module_& m);  // bindings_cuda.cpp, where it is built

}  // namespace ebgan
