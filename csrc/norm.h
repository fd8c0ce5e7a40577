// The norms: the energy of a sample's differences, and its gradient. One source for g++, nvcc and the simulator.
//
// An energy is energy_of(sum of term(difference)). Its gradient to the reconstruction is gradient(difference, slope),
// and its gradient to the target is the negative of that. ebgan_fast/ops/reference.py is the definition.
#pragma once

#include <cstdint>

namespace ebgan {

enum class Norm : int { kMse = 0, kSse = 1, kL2 = 2, kL1 = 3 };

// True if the slope depends on the sample's own energy, so that it is known only after the whole sample has been read.
constexpr bool slope_needs_energy(Norm norm) { return norm == Norm::kL2; }

}  // namespace ebgan

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define EBGAN_ANYWHERE __host__ __device__
#define EBGAN_SQRT(x) sqrt(x)
#else
#define EBGAN_ANYWHERE
#define EBGAN_SQRT(x) __builtin_sqrt(x)
#endif

// A namespace for each instruction set. Otherwise the linker would keep one copy of an inline function, perhaps the
// AVX2 one.
#if defined(EBGAN_ISA)
namespace EBGAN_ISA {
#else
namespace ebgan::cuda {
#endif

// The terms of a sum, and their gradients. X is a number, or a vector type of the compiler.
struct Squares {
  template <class X> EBGAN_ANYWHERE static X term(X difference) { return difference * difference; }
  template <class X> EBGAN_ANYWHERE static X gradient(X difference, X slope) { return slope * difference; }
};

struct Sizes {
  template <class X> EBGAN_ANYWHERE static X term(X difference) { return difference < X{} ? -difference : difference; }
  // The gradient is 0 at a difference of 0, and at NaN, as in plain torch.
  template <class X> EBGAN_ANYWHERE static X gradient(X difference, X slope) {
    const X below = difference < X{} ? -slope : X{};
    return difference > X{} ? slope : below;
  }
};

// Calls run with the terms of a norm, on the host. When each GPU kernel held both kinds of terms, the kernels for long
// samples needed more registers, and a multiprocessor held one block fewer for float32 and float64.
template <class Run> auto with_terms(ebgan::Norm norm, const Run& run) {
  return norm == ebgan::Norm::kL1 ? run(Sizes{}) : run(Squares{});
}

// The energy of a sample of k elements. A is the type in which the device sums.
template <class A> EBGAN_ANYWHERE A energy_of(ebgan::Norm norm, A sum, int64_t k) {
  if (norm == ebgan::Norm::kMse) return sum / static_cast<A>(k);
  if (norm == ebgan::Norm::kSse || norm == ebgan::Norm::kL1) return sum;
  return static_cast<A>(EBGAN_SQRT(sum));
}

// The slope of a sample's gradient, for an upstream gradient `weight`. 0 for l2 at E = 0.
template <class A> EBGAN_ANYWHERE A slope_of(ebgan::Norm norm, A energy, A weight, int64_t k) {
  if (norm == ebgan::Norm::kMse) return weight * 2 / static_cast<A>(k);
  if (norm == ebgan::Norm::kSse) return weight * 2;
  if (norm == ebgan::Norm::kL1) return weight;
  return energy == 0 ? A{0} : weight / energy;
}

}  // namespace EBGAN_ISA or ebgan::cuda
