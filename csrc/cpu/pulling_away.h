#pragma once

#include "kernels.h"

namespace EBGAN_ISA {

double pulling_away_forward(ebgan::DType, const ebgan::Code&, void* norms, void* gram, int threads);

void pulling_away_backward(ebgan::DType, const ebgan::Code&, const void* norms, const void* gram, double upstream,
                           void* grad, int64_t grad_stride, int threads);

}  // namespace EBGAN_ISA
