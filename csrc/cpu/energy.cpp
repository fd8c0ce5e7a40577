// Reconstruction energy: mean, sum, or root of the sum over a sample of (recon - target)^2, and its gradients.
#include "energy.h"

#include "dispatch_dtype.h"
#include "parallel.h"
#include "stream.h"
#include "sums.h"

namespace EBGAN_ISA {
namespace {

using ebgan::Norm;
using ebgan::Pair;
using ebgan::PairGradient;

// Elements of one task: fixed, so that every sum has one order at any thread count. After each task a sweep looks whether
// the sample is past the margin. Tasks of 16,384 elements see that later, which cost up to 8 %.
constexpr int64_t kChunk = 4096;

template <class T> struct Rows {
  const T* recon;
  const T* target;
};

template <class T> Rows<T> rows(const Pair& pair, int64_t sample) {
  return {static_cast<const T*>(pair.recon) + sample * pair.recon_stride,
          static_cast<const T*>(pair.target) + sample * pair.target_stride};
}

template <class T> double chunk_sum(Rows<T> sample, int64_t first, int64_t last) {
  const T* const recon = sample.recon + first;
  const T* const target = sample.target + first;
  return sum_of_squares<Accumulator<T>>(last - first, [=](int64_t k, int64_t left) {
    return load_up_to(recon + k, left) - load_up_to(target + k, left);
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

// Where the gradients of one sample go; a null pointer is a gradient nobody asked for.
template <class T> struct Gradients {
  T* recon;
  T* target;
};

template <class T> Gradients<T> gradients(const PairGradient& grad, int64_t sample) {
  return {grad.recon ? static_cast<T*>(grad.recon) + sample * grad.recon_stride : nullptr,
          grad.target ? static_cast<T*>(grad.target) + sample * grad.target_stride : nullptr};
}

// What a sweep does beside reading: it sums the squares of the differences, writes the gradients, or zeros in their place.
enum class Does { kGradient, kGradientAndSum, kZerosAndSum };

// Elements [first, last) of one sample. The gradients are +-factor times the differences.
template <class T> struct Sweep {
  using A = Accumulator<T>;
  Rows<T> in;
  Gradients<T> out;
  A factor;
  int64_t first;
  int64_t last;

  void write(bool stream) const { choose_gradients<Does::kGradient>(stream); }
  double write_and_sum(bool stream) const { return choose_gradients<Does::kGradientAndSum>(stream); }
  double zero_and_sum(bool stream) const { return choose_gradients<Does::kZerosAndSum>(stream); }

 private:
  template <Does kDoes> double choose_gradients(bool stream) const {
    if (out.recon && out.target) return choose_stores<kDoes, true, true>(stream);
    return out.recon ? choose_stores<kDoes, true, false>(stream) : choose_stores<kDoes, false, true>(stream);
  }

  template <Does kDoes, bool kRecon, bool kTarget> double choose_stores(bool stream) const {
    const bool aligned = (!kRecon || can_stream(out.recon + first)) && (!kTarget || can_stream(out.target + first));
    return stream && aligned ? run<kDoes, kRecon, kTarget, true>() : run<kDoes, kRecon, kTarget, false>();
  }

  template <Does kDoes, bool kRecon, bool kTarget, bool kStream> double run() const {
    // Locals, captured by value: the stores might alias what lies behind a reference, which is then read again each time.
    const T* const recon = in.recon + first;
    const T* const target = in.target + first;
    T* const to_recon = kRecon ? out.recon + first : nullptr;
    T* const to_target = kTarget ? out.target + first : nullptr;
    const Vector<A> factors = broadcast(factor);
    const auto step = [=](int64_t k, int64_t left) {
      const Vector<A> difference = load_up_to(recon + k, left) - load_up_to(target + k, left);
      constexpr bool zeros = kDoes == Does::kZerosAndSum;
      const Vector<A> gradient = zeros ? Vector<A>{} : difference * factors;
      if (kRecon) put<kStream>(to_recon + k, gradient, left);
      if (kTarget) put<kStream>(to_target + k, zeros ? gradient : -gradient, left);
      return difference;
    };
    const int64_t count = last - first;
    if (kDoes != Does::kGradient) return sum_of_squares<A>(count, step);
    int64_t k = 0;
    for (; k + kLanes<A> <= count; k += kLanes<A>) step(k, kLanes<A>);
    if (k < count) step(k, count - k);
    return 0;
  }
};

// Exact zeros without a read: a closed hinge passes nothing on, not even NaN.
template <class T> void write_zeros(const Gradients<T>& out, int64_t first, int64_t last, bool stream) {
  if (out.recon) put_zeros(out.recon + first, last - first, stream);
  if (out.target) put_zeros(out.target + first, last - first, stream);
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

template <class T> bool streams(const Pair& pair, const PairGradient& grad, int threads) {
  const int tensors = 2 + (grad.recon != nullptr) + (grad.target != nullptr);
  return streams_rows(tensors * pair.n * pair.k * static_cast<int64_t>(sizeof(T)), threads);
}

// coefficient(i): the upstream gradient of sample i.
template <class T, class Coefficient>
void backward(Norm norm, const Pair& pair, const Accumulator<T>* energy, const Coefficient& coefficient,
              const PairGradient& grad, int threads) {
  if (!grad.recon && !grad.target) return;
  const int64_t chunks = ceil_div(pair.k, kChunk), tasks = pair.n * chunks;
  const int team = team_size(threads, tasks, 2 * traffic<T>(pair));
  const bool stream = streams<T>(pair, grad, team);
  parallel(tasks, team, [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i = task / chunks, first = task % chunks * kChunk, last = smaller(pair.k, first + kChunk);
      const auto factor = static_cast<Accumulator<T>>(gradient_factor(norm, coefficient(i), energy[i], pair.k));
      const Gradients<T> out = gradients<T>(grad, i);
      if (factor == 0) write_zeros(out, first, last, stream);
      else Sweep<T>{rows<T>(pair, i), out, factor, first, last}.write(stream);
    }
    end_stream();
  });
}

// One sample: its energy and its gradient. Where the factor does not depend on the energy, both come from one sweep,
// which takes the gate for open until the sum says that it is shut: squares only add to it. From there on it writes zeros,
// and at the end also where it had written a gradient. A NaN that comes later opens the gate again, and the sample is
// swept once more. l2 sweeps twice, over a row that is in cache by then.
template <class T, class Coefficient>
Accumulator<T> sample_with_gradient(Norm norm, const Pair& pair, int64_t i, double weight,
                                    const Coefficient& coefficient, const Gradients<T>& out, bool stream) {
  using A = Accumulator<T>;
  const bool two_sweeps = norm == Norm::kL2;
  double squares = 0;
  int64_t zeros_from = pair.k;  // the first element of those that hold zeros already
  if (two_sweeps) {
    squares = sample_sum<T>(pair, i);
  } else {
    const auto factor = static_cast<A>(gradient_factor(norm, weight, 1, pair.k));
    for (int64_t first = 0; first < pair.k; first += kChunk) {
      const Sweep<T> sweep{rows<T>(pair, i), out, factor, first, smaller(pair.k, first + kChunk)};
      if (zeros_from == pair.k && coefficient(to_energy<A>(norm, squares, pair.k)) == 0) zeros_from = first;
      squares += zeros_from < pair.k ? sweep.zero_and_sum(stream) : sweep.write_and_sum(stream);
    }
  }
  const A energy = to_energy<A>(norm, squares, pair.k);
  const auto factor = static_cast<A>(gradient_factor(norm, coefficient(energy), energy, pair.k));
  if (factor == 0) write_zeros(out, 0, zeros_from, stream);
  else if (two_sweeps || zeros_from < pair.k) Sweep<T>{rows<T>(pair, i), out, factor, 0, pair.k}.write(stream);
  return energy;
}

// `coefficient(energy)` is `weight` or, past the hinge, 0. With fewer samples than threads, energies come first and every
// thread helps with every sample. Both ways give the same bits.
template <class T, class Coefficient>
void with_gradient(Norm norm, const Pair& pair, double weight, const Coefficient& coefficient, Accumulator<T>* energy,
                   const PairGradient& grad, int threads) {
  if (pair.n < threads || (!grad.recon && !grad.target)) {
    forward<T>(norm, pair, energy, threads);
    backward<T>(norm, pair, energy, [&](int64_t i) { return coefficient(energy[i]); }, grad, threads);
    return;
  }
  const int team = team_size(threads, pair.n, 2 * traffic<T>(pair));
  const bool stream = streams<T>(pair, grad, team);
  parallel(pair.n, team, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      energy[i] = sample_with_gradient<T>(norm, pair, i, weight, coefficient, gradients<T>(grad, i), stream);
    end_stream();
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
    const double limit = margin ? static_cast<A>(*margin) : 0;
    const auto coefficient = [=](A e) { return margin && limit - static_cast<double>(e) <= 0 ? 0.0 : weight; };
    with_gradient<T>(norm, pair, weight, coefficient, static_cast<A*>(energy), grad, threads);
  });
}

}  // namespace EBGAN_ISA
