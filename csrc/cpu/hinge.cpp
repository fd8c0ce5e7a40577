// Hinge margin loss over per-sample energies: mean(E_real) + mean([m - E_fake]+). Sums run in float64; the margin is first
// rounded to the type of the energies, so that E == m can hold.
#include "hinge.h"

#include "dispatch_dtype.h"

namespace EBGAN_ISA {
namespace {

// NaN does not close the gate, as it does not in relu: loss and gradient are to be NaN.
bool closed(double margin, double energy) { return margin - energy <= 0; }

// The mean of term(value) over a batch; a batch without samples contributes 0.
template <class A, class Term> double mean_of(const A* values, int64_t n, const Term& term) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += term(static_cast<double>(values[i]));
  return n > 0 ? sum / static_cast<double>(n) : 0;
}

template <class A>
double loss_value(const A* real, int64_t n_real, const A* fake, int64_t n_fake, A margin) {
  const double mean_real = mean_of(real, n_real, [](double e) { return e; });
  const double mean_hinge = mean_of(fake, n_fake, [&](double e) { return closed(margin, e) ? 0 : margin - e; });
  return mean_real + mean_hinge;
}

template <class Run> void on_accumulator(ebgan::DType acc, const Run& run) {
  if (acc == ebgan::DType::kFloat64) run(double{});
  else run(float{});
}

}  // namespace

void hinge_value(ebgan::DType acc, const void* energy_real, int64_t n_real, const void* energy_fake, int64_t n_fake,
                 double margin, void* loss) {
  on_accumulator(acc, [&](auto zero) {
    using A = decltype(zero);
    *static_cast<A*>(loss) = static_cast<A>(loss_value(static_cast<const A*>(energy_real), n_real,
                                                       static_cast<const A*>(energy_fake), n_fake,
                                                       static_cast<A>(margin)));
  });
}

void hinge(ebgan::DType acc, const void* energy_real, int64_t n_real, const void* energy_fake, int64_t n_fake,
           double margin, void* loss, void* grad_real, void* grad_fake) {
  hinge_value(acc, energy_real, n_real, energy_fake, n_fake, margin, loss);
  on_accumulator(acc, [&](auto zero) {
    using A = decltype(zero);
    const A* const fake = static_cast<const A*>(energy_fake);
    A* const to_real = static_cast<A*>(grad_real);
    A* const to_fake = static_cast<A*>(grad_fake);
    const A weight_real = static_cast<A>(1.0 / static_cast<double>(n_real));
    const A weight_fake = static_cast<A>(-1.0 / static_cast<double>(n_fake));
    for (int64_t i = 0; i < n_real; ++i) to_real[i] = weight_real;
    const A limit = static_cast<A>(margin);
    for (int64_t i = 0; i < n_fake; ++i) to_fake[i] = closed(limit, fake[i]) ? A{0} : weight_fake;
  });
}

double mean(ebgan::DType acc, const void* values, int64_t n) {
  double result = 0;
  on_accumulator(acc, [&](auto zero) {
    using A = decltype(zero);
    result = mean_of(static_cast<const A*>(values), n, [](double e) { return e; });
  });
  return result;
}

}  // namespace EBGAN_ISA
