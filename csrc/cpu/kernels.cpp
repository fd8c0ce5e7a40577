// The table of kernels of one instruction set, and the losses that put an energy and a hinge together.
#include "kernels.h"

#include "energy.h"
#include "hinge.h"
#include "isa.h"
#include "pulling_away.h"

namespace EBGAN_ISA {
namespace {

using namespace ebgan;

DType accumulator_of(DType dtype) { return dtype == DType::kFloat64 ? dtype : DType::kFloat32; }

void discriminator_loss(DType dtype, Norm norm, const Pair& real, const Pair& fake, double margin, void* loss,
                        void* energy_real, void* energy_fake, const PairGradient& grad_real,
                        const PairGradient& grad_fake, int threads) {
  energy_with_gradient(dtype, norm, real, 1 / static_cast<double>(real.n), nullptr, energy_real, grad_real, threads);
  energy_with_gradient(dtype, norm, fake, -1 / static_cast<double>(fake.n), &margin, energy_fake, grad_fake, threads);
  hinge_value(accumulator_of(dtype), energy_real, real.n, energy_fake, fake.n, margin, loss);
}

double mean_energy(DType dtype, Norm norm, const Pair& pair, void* energy, const PairGradient& grad, int threads) {
  energy_with_gradient(dtype, norm, pair, 1 / static_cast<double>(pair.n), nullptr, energy, grad, threads);
  return mean(accumulator_of(dtype), energy, pair.n);
}

}  // namespace

extern const Kernels kKernels;
const Kernels kKernels = {EBGAN_ISA_NAME,       energy_forward,       energy_backward,      hinge,
                          discriminator_loss,   mean_energy,          pulling_away_forward, pulling_away_backward};

}  // namespace EBGAN_ISA
