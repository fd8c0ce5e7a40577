#pragma once

#include "kernels.h"

namespace EBGAN_ISA {

void energy_forward(ebgan::DType, ebgan::Norm, const ebgan::Pair&, void* energy, int threads);

void energy_backward(ebgan::DType, ebgan::Norm, const ebgan::Pair&, const void* energy, const void* upstream,
                     int64_t upstream_stride, const ebgan::PairGradient&, int threads);

// Energies, and their gradients with the coefficient `weight` per sample. With a margin, a sample whose energy has
// reached it gets coefficient 0: that is the hinge.
void energy_with_gradient(ebgan::DType, ebgan::Norm, const ebgan::Pair&, double weight, const double* margin,
                          void* energy, const ebgan::PairGradient&, int threads);

}  // namespace EBGAN_ISA
