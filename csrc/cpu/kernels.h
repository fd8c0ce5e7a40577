// The kernels as a table of functions, one table per instruction set.
#pragma once

#include <cstdint>

#include "../tensors.h"

namespace ebgan {

// "acc" below is float64 for float64 and float32 for every other dtype; it is the type of energies and losses.
struct Kernels {
  const char* isa;

  // energy: acc [n]
  void (*energy_forward)(DType, Norm, const Pair&, void* energy, int threads);

  // energy: acc [n] from the forward; upstream: acc [n] with any stride
  void (*energy_backward)(DType, Norm, const Pair&, const void* energy, const void* upstream, int64_t upstream_stride,
                          const PairGradient&, int threads);

  // energies and their gradients: acc [n_real], acc [n_fake]; loss: acc scalar
  void (*hinge)(DType acc, const void* energy_real, int64_t n_real, const void* energy_fake, int64_t n_fake,
                double margin, void* loss, void* grad_real, void* grad_fake);

  void (*discriminator_loss)(DType, Norm, const Pair& real, const Pair& fake, double margin, void* loss,
                             void* energy_real, void* energy_fake, const PairGradient& grad_real,
                             const PairGradient& grad_fake, int threads);

  // mean over the batch of the energies, with gradients for upstream 1
  double (*mean_energy)(DType, Norm, const Pair&, void* energy, const PairGradient&, int threads);

  // norms: acc [n]; gram: acc [m, m] with m = min(n, d), see pulling_away.cpp
  double (*pulling_away_forward)(DType, const Code&, void* norms, void* gram, int threads);

  // grad: the code's dtype, rows grad_stride apart
  void (*pulling_away_backward)(DType, const Code&, const void* norms, const void* gram, double upstream, void* grad,
                                int64_t grad_stride, int threads);
};

}  // namespace ebgan
