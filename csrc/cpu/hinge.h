#pragma once

#include "kernels.h"

namespace EBGAN_ISA {

void hinge(ebgan::DType acc, const void* energy_real, int64_t n_real, const void* energy_fake, int64_t n_fake,
           double margin, void* loss, void* grad_real, void* grad_fake);

// The same without gradients.
void hinge_value(ebgan::DType acc, const void* energy_real, int64_t n_real, const void* energy_fake, int64_t n_fake,
                 double margin, void* loss);

double mean(ebgan::DType acc, const void* values, int64_t n);

}  // namespace EBGAN_ISA
