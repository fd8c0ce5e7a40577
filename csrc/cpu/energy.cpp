// Reconstruction energy: mean, sum, or root of the sum over a sample of (recon - target)^2, and its gradients.
#include "energy.h"

#include "dispatch_dtype.h"
#include "parallel.h"
#include "sums.h"

namespace EBGAN_ISA {
namespace {

using ebgan::Norm;
using ebgan::Pair;
using ebgan::PairGradient;

constexpr int64_t kChunk = 16384;  // elements of one task: fixed, so that every sum has one order at any thread count

template <class T> struct Rows {
  const T* recon;
  const T* target;
};

template <class T> Rows<T> rows(const Pair& pair, int64_t sample) {
  return {static_cast<const T*>(pair.recon) + sample * pair.recon_stride,
          static_cast<const T*>(pair.target) + sample * pair.target_stride};
}

template <class T> double chunk_sum(Rows<T> sample, int64_t first, int64_t last) {
  return sum_of_squares<Accumulator<T>>(last - first, [&](int64_t k, int64_t left) {
    return load_up_to(sample.recon + first + k, left) - load_up_to(sample.target + first + k, left);
  });
}

template <class A> A to_energy(Norm norm, double squares, int64_t k) {
  if (norm == Norm::kMse) return static_cast<A>(squares / static_cast<double>(k));
  return static_cast<A>(norm == Norm::kSse ? squares : __builtin_sqrt(squares));
}

// dE/d(recon - target) = factor * (recon - target), times the coefficient of the sample; 0 for l2 at E = 0.
double gradient_factor(Norm norm, double coefficient, double energy, int64_t k) {
  if (coefficient == 0) return 0;
  if (norm == Norm::kMse) return 2 * coefficient / static_cast<double>(k);
  if (norm == Norm::kSse) return 2 * coefficient;
  return energy == 0 ? 0 : coefficient / energy;
}

template <class T, bool kRecon, bool kTarget>
void write_scaled(Rows<T> in, T* grad_recon, T* grad_target, Accumulator<T> factor, int64_t first, int64_t last) {
  constexpr int64_t lanes = kLanes<Accumulator<T>>;
  const Accumulators<T> factors = broadcast(factor);
  const auto write = [&](int64_t k, int64_t left) {
    const Accumulators<T> value =
        (load_up_to(in.recon + k, left) - load_up_to(in.target + k, left)) * factors;
    if (kRecon) store_up_to(grad_recon + k, value, left);
    if (kTarget) store_up_to(grad_target + k, -value, left);
  };
  int64_t k = first;
  for (; k + lanes <= last; k += lanes) write(k, lanes);
  if (k < last) write(k, last - k);
}

template <class T>
void write_gradient(const Pair& pair, const PairGradient& grad, int64_t sample, double factor, int64_t first,
                    int64_t last) {
  T* const recon = grad.recon ? static_cast<T*>(grad.recon) + sample * grad.recon_stride : nullptr;
  T* const target = grad.target ? static_cast<T*>(grad.target) + sample * grad.target_stride : nullptr;
  const size_t bytes = static_cast<size_t>(last - first) * sizeof(T);
  const auto narrow = static_cast<Accumulator<T>>(factor);
  if (factor == 0) {  // exact zeros without a read: a closed hinge passes nothing on, not even NaN
    if (recon) __builtin_memset(recon + first, 0, bytes);
    if (target) __builtin_memset(target + first, 0, bytes);
  } else if (recon && target) {
    write_scaled<T, true, true>(rows<T>(pair, sample), recon, target, narrow, first, last);
  } else if (recon) {
    write_scaled<T, true, false>(rows<T>(pair, sample), recon, target, narrow, first, last);
  } else if (target) {
    write_scaled<T, false, true>(rows<T>(pair, sample), recon, target, narrow, first, last);
  }
}

template <class T> int64_t traffic(const Pair& pair) { return 2 * pair.n * pair.k * static_cast<int64_t>(sizeof(T)); }

template <class T> double sample_sum(const Pair& pair, int64_t sample) {
  double squares = 0;
  for (int64_t first = 0; first < pair.k; first += kChunk)
    squares += chunk_sum(rows<T>(pair, sample), first, smaller(pair.k, first + kChunk));
  return squares;
}

template <class T> void forward(Norm norm, const Pair& pair, Accumulator<T>* energy, int threads) {
  const int64_t chunks = ceil_div(pair.k, kChunk);
  if (pair.n >= threads || chunks <= 1) {
    parallel(pair.n, team_size(threads, pair.n, traffic<T>(pair)), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        energy[i] = to_energy<Accumulator<T>>(norm, sample_sum<T>(pair, i), pair.k);
    });
    return;
  }
  const int64_t tasks = pair.n * chunks;
  Buffer<double> partial(tasks);
  parallel(tasks, team_size(threads, tasks, traffic<T>(pair)), [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % chunks * kChunk;
      partial.data()[task] = chunk_sum(rows<T>(pair, task / chunks), first, smaller(pair.k, first + kChunk));
    }
  });
  for (int64_t i = 0; i < pair.n; ++i) {
    double squares = 0;
    for (int64_t c = 0; c < chunks; ++c) squares += partial.data()[i * chunks + c];
    energy[i] = to_energy<Accumulator<T>>(norm, squares, pair.k);
  }
}

// coefficient(i): the upstream gradient of sample i.
template <class T, class Coefficient>
void backward(Norm norm, const Pair& pair, const Accumulator<T>* energy, const Coefficient& coefficient,
              const PairGradient& grad, int threads) {
  const int64_t chunks = ceil_div(pair.k, kChunk), tasks = pair.n * chunks;
  parallel(tasks, team_size(threads, tasks, 2 * traffic<T>(pair)), [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i = task / chunks, first = task % chunks * kChunk;
      write_gradient<T>(pair, grad, i, gradient_factor(norm, coefficient(i), energy[i], pair.k), first,
                        smaller(pair.k, first + kChunk));
    }
  });
}

// A thread sums a sample and writes its gradient at once, while the sample is still in cache; when there are fewer
// samples than threads, energies come first and every thread helps with every sample. Both give the same bits.
template <class T, class Coefficient>
void with_gradient(Norm norm, const Pair& pair, const Coefficient& coefficient, Accumulator<T>* energy,
                   const PairGradient& grad, int threads) {
  if (!grad.recon && !grad.target) {
    forward<T>(norm, pair, energy, threads);
    return;
  }
  if (pair.n < threads) {
    forward<T>(norm, pair, energy, threads);
    backward<T>(norm, pair, energy, [&](int64_t i) { return coefficient(energy[i]); }, grad, threads);
    return;
  }
  parallel(pair.n, team_size(threads, pair.n, 2 * traffic<T>(pair)), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      energy[i] = to_energy<Accumulator<T>>(norm, sample_sum<T>(pair, i), pair.k);
      write_gradient<T>(pair, grad, i, gradient_factor(norm, coefficient(energy[i]), energy[i], pair.k), 0, pair.k);
    }
  });
}

}  // namespace

void energy_forward(ebgan::DType dtype, Norm norm, const Pair& pair, void* energy, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    forward<T>(norm, pair, static_cast<Accumulator<T>*>(energy), threads);
  });
}

void energy_backward(ebgan::DType dtype, Norm norm, const Pair& pair, const void* energy, const void* upstream,
                     int64_t upstream_stride, const PairGradient& grad, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    const A* const coefficients = static_cast<const A*>(upstream);
    const auto coefficient = [&](int64_t i) { return static_cast<double>(coefficients[i * upstream_stride]); };
    backward<T>(norm, pair, static_cast<const A*>(energy), coefficient, grad, threads);
  });
}

void energy_with_gradient(ebgan::DType dtype, Norm norm, const Pair& pair, double weight, const double* margin,
                          void* energy, const PairGradient& grad, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    // A NaN energy leaves the gate open, as relu does, so that its gradient is NaN too.
    const auto coefficient = [&](A e) { return margin && *margin - static_cast<double>(e) <= 0 ? 0.0 : weight; };
    with_gradient<T>(norm, pair, coefficient, static_cast<A*>(energy), grad, threads);
  });
}

}  // namespace EBGAN_ISA
