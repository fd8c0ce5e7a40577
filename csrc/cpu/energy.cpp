// Reconstruction energies, the hinge margin loss over them, and all gradients. norm.h has the equations of a sample.
#include "processor.h"

namespace EBGAN_ISA {
namespace {

using namespace ebgan;

// The elements of one task. The number is fixed, so that every sum has one order at any number of threads. After each
// task a sweep checks if the sample is past the margin. With tasks of 16,384 elements it noticed that later, which cost
// up to 8 %.
constexpr int64_t kChunk = 4096;

// One sample, and the addresses of its gradients. A null pointer is a gradient that is not needed.
template <class T> struct Rows {
  const T* recon;
  const T* target;
  T* to_recon;
  T* to_target;

  Rows(const Batch& batch, int64_t sample)
      : recon(static_cast<const T*>(batch.recon) + sample * batch.recon_stride),
        target(static_cast<const T*>(batch.target) + sample * batch.target_stride),
        to_recon(batch.grad_recon ? static_cast<T*>(batch.grad_recon) + sample * batch.grad_recon_stride : nullptr),
        to_target(batch.grad_target ? static_cast<T*>(batch.grad_target) + sample * batch.grad_target_stride : nullptr) {}
};

template <class T, class Terms> double chunk_sum(const Rows<T>& sample, int64_t first, int64_t last) {
  const T* const recon = sample.recon + first;
  const T* const target = sample.target + first;
  return sum_of_terms<Accumulator<T>, Terms>(last - first, [=](int64_t k, int64_t left) {
    return load_up_to(recon + k, left) - load_up_to(target + k, left);
  });
}

template <class A> A to_energy(Norm norm, double sum, int64_t k) { return static_cast<A>(energy_of(norm, sum, k)); }

// True if the gradients must be exact zeros: the weight is 0, or the norm is l2 at E = 0. Not if only a slope is 0:
// times an infinite difference that is NaN, as in plain torch.
bool passes_nothing(Norm norm, double weight, double energy) {
  return weight == 0 || (slope_needs_energy(norm) && energy == 0);
}

// The work of a sweep: it writes gradients, or it writes gradients or zeros and also sums the terms of the differences.
enum class Does { kGradient, kGradientAndSum, kZerosAndSum };

// A sweep over elements [first, last) of one sample.
template <class T, class Terms> struct Sweep {
  using A = Accumulator<T>;
  Rows<T> sample;
  A slope;
  int64_t first;
  int64_t last;

  void write(bool stream) const { choose_gradients<Does::kGradient>(stream); }
  double write_and_sum(bool stream) const { return choose_gradients<Does::kGradientAndSum>(stream); }
  double zero_and_sum(bool stream) const { return choose_gradients<Does::kZerosAndSum>(stream); }

 private:
  template <Does kDoes> double choose_gradients(bool stream) const {
    if (sample.to_recon && sample.to_target) return choose_stores<kDoes, true, true>(stream);
    return sample.to_recon ? choose_stores<kDoes, true, false>(stream) : choose_stores<kDoes, false, true>(stream);
  }

  template <Does kDoes, bool kRecon, bool kTarget> double choose_stores(bool stream) const {
    const bool aligned = (!kRecon || can_stream(sample.to_recon + first)) && (!kTarget || can_stream(sample.to_target + first));
    return stream && aligned ? run<kDoes, kRecon, kTarget, true>() : run<kDoes, kRecon, kTarget, false>();
  }

  template <Does kDoes, bool kRecon, bool kTarget, bool kStream> double run() const {
    // Local copies, captured by value. Behind a reference they would be read again each time, because the stores might
    // alias them.
    const T* const recon = sample.recon + first;
    const T* const target = sample.target + first;
    T* const to_recon = kRecon ? sample.to_recon + first : nullptr;
    T* const to_target = kTarget ? sample.to_target + first : nullptr;
    const Vector<A> slopes = broadcast(slope);
    const auto step = [=](int64_t k, int64_t left) {
      const Vector<A> difference = load_up_to(recon + k, left) - load_up_to(target + k, left);
      constexpr bool zeros = kDoes == Does::kZerosAndSum;
      const Vector<A> gradient = zeros ? Vector<A>{} : Terms::gradient(difference, slopes);
      if (kRecon) put<kStream>(to_recon + k, gradient, left);
      if (kTarget) put<kStream>(to_target + k, zeros ? gradient : -gradient, left);
      return difference;
    };
    const int64_t count = last - first;
    if (kDoes != Does::kGradient) return sum_of_terms<A, Terms>(count, step);
    int64_t k = 0;
    for (; k + kLanes<A> <= count; k += kLanes<A>) step(k, kLanes<A>);
    if (k < count) step(k, count - k);
    return 0;
  }
};

// Writes exact zeros without reading the sample: a closed hinge passes no gradient, not even NaN.
template <class T> void write_zeros(const Rows<T>& sample, int64_t first, int64_t last, bool stream) {
  if (sample.to_recon) put_zeros(sample.to_recon + first, last - first, stream);
  if (sample.to_target) put_zeros(sample.to_target + first, last - first, stream);
}

template <class T> int64_t bytes_read(const Batch& batch) {
  return 2 * batch.n * batch.k * static_cast<int64_t>(sizeof(T));
}

template <class T, class Terms> double sample_sum(const Rows<T>& sample, int64_t k) {
  double sum = 0;
  for (int64_t first = 0; first < k; first += kChunk)
    sum += chunk_sum<T, Terms>(sample, first, smaller(k, first + kChunk));
  return sum;
}

template <class T, class Terms> void energies(Norm norm, const Batch& batch, int threads) {
  using A = Accumulator<T>;
  A* const energy = static_cast<A*>(batch.energy);
  const int64_t chunks = ceil_div(batch.k, kChunk);
  if (batch.n >= threads || chunks <= 1) {
    parallel(batch.n, team_size(threads, batch.n, bytes_read<T>(batch)), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        energy[i] = to_energy<A>(norm, sample_sum<T, Terms>(Rows<T>(batch, i), batch.k), batch.k);
    });
    return;
  }
  const int64_t tasks = batch.n * chunks;
  Buffer<double> partial(tasks);
  parallel(tasks, team_size(threads, tasks, bytes_read<T>(batch)), [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % chunks * kChunk;
      partial.data()[task] =
          chunk_sum<T, Terms>(Rows<T>(batch, task / chunks), first, smaller(batch.k, first + kChunk));
    }
  });
  for (int64_t i = 0; i < batch.n; ++i) {
    double sum = 0;
    for (int64_t c = 0; c < chunks; ++c) sum += partial.data()[i * chunks + c];
    energy[i] = to_energy<A>(norm, sum, batch.k);
  }
}

template <class T> bool streams(const Batch& batch, int threads) {
  const int tensors = 2 + (batch.grad_recon != nullptr) + (batch.grad_target != nullptr);
  return streams_rows(tensors * batch.n * batch.k * static_cast<int64_t>(sizeof(T)), threads);
}

// Writes the gradients for given energies. weight(i) is the upstream gradient of sample i.
template <class T, class Terms, class Weight>
void gradients(Norm norm, const Batch& batch, const Weight& weight, int threads) {
  using A = Accumulator<T>;
  if (!batch.wants_gradient()) return;
  const A* const energy = static_cast<const A*>(batch.energy);
  const int64_t chunks = ceil_div(batch.k, kChunk), tasks = batch.n * chunks;
  const int team = team_size(threads, tasks, 2 * bytes_read<T>(batch));
  const bool stream = streams<T>(batch, team);
  parallel(tasks, team, [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i = task / chunks, first = task % chunks * kChunk, last = smaller(batch.k, first + kChunk);
      const double mine = weight(i);
      const Rows<T> sample(batch, i);
      if (passes_nothing(norm, mine, energy[i])) {
        write_zeros(sample, first, last, stream);
        continue;
      }
      const auto slope = static_cast<A>(slope_of<double>(norm, energy[i], mine, batch.k));
      Sweep<T, Terms>{sample, slope, first, last}.write(stream);
    }
    end_stream();
  });
}

// A batch's part in the loss: its upstream gradient where the hinge is open, and the margin from which the hinge is
// closed.
struct Side {
  double weight;
  bool has_hinge;
  double margin;  // rounded to the energies' type, so that E == m can hold

  // A NaN energy leaves the hinge open, as relu does, so that its gradient is NaN too.
  bool is_closed(double energy) const { return has_hinge && margin - energy <= 0; }
  double weight_at(double energy) const { return is_closed(energy) ? 0 : weight; }
};

// Computes one sample's energy and gradient. If the slope does not depend on the energy, one sweep computes both. It
// assumes that the hinge is open until the sum shows that it is closed: terms only add to the sum. From there on it
// writes zeros, and at the end it also replaces the gradient written before by zeros. A NaN that comes later opens the
// hinge again, and then the sample is swept once more. l2 sweeps twice, the second time over a row that is in the
// cache.
template <class T, class Terms>
Accumulator<T> sample_with_gradient(Norm norm, int64_t elements, const Rows<T>& sample, const Side& side, bool stream) {
  using A = Accumulator<T>;
  const bool two_sweeps = slope_needs_energy(norm);
  double sum = 0;
  int64_t zeros_from = elements;  // the first element that already holds zeros
  if (two_sweeps) {
    sum = sample_sum<T, Terms>(sample, elements);
  } else {
    const auto slope = static_cast<A>(slope_of<double>(norm, 1, side.weight, elements));
    for (int64_t first = 0; first < elements; first += kChunk) {
      const Sweep<T, Terms> sweep{sample, slope, first, smaller(elements, first + kChunk)};
      if (zeros_from == elements && side.weight_at(to_energy<A>(norm, sum, elements)) == 0) zeros_from = first;
      sum += zeros_from < elements ? sweep.zero_and_sum(stream) : sweep.write_and_sum(stream);
    }
  }
  const A energy = to_energy<A>(norm, sum, elements);
  const double weight = side.weight_at(energy);
  if (passes_nothing(norm, weight, energy)) {
    write_zeros(sample, 0, zeros_from, stream);
  } else if (two_sweeps || zeros_from < elements) {
    const auto slope = static_cast<A>(slope_of<double>(norm, energy, weight, elements));
    Sweep<T, Terms>{sample, slope, 0, elements}.write(stream);
  }
  return energy;
}

// With fewer samples than threads, all energies are computed first, and every thread works on every sample. Both ways
// give the same bits.
template <class T, class Terms>
void energies_and_gradients(Norm norm, const Batch& batch, const Side& side, int threads) {
  using A = Accumulator<T>;
  A* const energy = static_cast<A*>(batch.energy);
  if (batch.n < threads || !batch.wants_gradient()) {
    energies<T, Terms>(norm, batch, threads);
    gradients<T, Terms>(norm, batch, [&](int64_t i) { return side.weight_at(energy[i]); }, threads);
    return;
  }
  const int team = team_size(threads, batch.n, 2 * bytes_read<T>(batch));
  const bool stream = streams<T>(batch, team);
  parallel(batch.n, team, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      energy[i] = sample_with_gradient<T, Terms>(norm, batch.k, Rows<T>(batch, i), side, stream);
    end_stream();
  });
}

// Returns the mean of term(energy) over a batch, in float64. A batch without samples contributes 0.
template <class A, class Term> double mean_of(const void* energies, int64_t n, const Term& term) {
  const A* const energy = static_cast<const A*>(energies);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += term(static_cast<double>(energy[i]));
  return n > 0 ? sum / static_cast<double>(n) : 0;
}

template <class A>
void write_loss(const void* real, int64_t n_real, const void* fake, int64_t n_fake, const Side& hinge, void* value) {
  const double mean_real = mean_of<A>(real, n_real, [](double e) { return e; });
  const double mean_hinge = mean_of<A>(fake, n_fake, [&](double e) { return hinge.is_closed(e) ? 0 : hinge.margin - e; });
  *static_cast<A*>(value) = static_cast<A>(mean_real + mean_hinge);
}

// Calls run with a value of the dtype's storage type and the norm's terms. Run reads the types with decltype.
template <class Run> void on_types(DType dtype, Norm norm, const Run& run) {
  dispatch(dtype, [&](auto zero) { with_terms(norm, [&](auto terms) { run(zero, terms); }); });
}

}  // namespace

void loss(DType dtype, const Loss& it, int threads) {
  on_types(dtype, it.norm, [&](auto zero, auto terms) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    using Terms = decltype(terms);
    if (!it.value) {
      energies<T, Terms>(it.norm, it.real, threads);
      if (it.fake.n) energies<T, Terms>(it.norm, it.fake, threads);
      return;
    }
    const double upstream = it.upstream.value;
    const Side real{upstream / static_cast<double>(it.real.n), false, 0};
    const Side fake{-upstream / static_cast<double>(it.fake.n), true, static_cast<A>(it.margin.value)};
    energies_and_gradients<T, Terms>(it.norm, it.real, real, threads);
    if (it.fake.n) energies_and_gradients<T, Terms>(it.norm, it.fake, fake, threads);
    write_loss<A>(it.real.energy, it.real.n, it.fake.energy, it.fake.n, fake, it.value);
  });
}

void energy_gradient(DType dtype, const EnergyGradient& it, int threads) {
  on_types(dtype, it.norm, [&](auto zero, auto terms) {
    using T = decltype(zero);
    const auto* const upstream = static_cast<const Accumulator<T>*>(it.upstream);
    const auto weight = [&](int64_t i) { return static_cast<double>(upstream[i * it.upstream_stride]); };
    gradients<T, decltype(terms)>(it.norm, it.batch, weight, threads);
  });
}

void hinge(DType acc, const Hinge& it) {
  const auto run = [&](auto zero) {
    using A = decltype(zero);
    const Side real{1 / static_cast<double>(it.n_real), false, 0};
    const Side fake{-1 / static_cast<double>(it.n_fake), true, static_cast<A>(it.margin.value)};
    write_loss<A>(it.energy_real, it.n_real, it.energy_fake, it.n_fake, fake, it.value);
    for (int64_t i = 0; i < it.n_real; ++i) static_cast<A*>(it.grad_real)[i] = static_cast<A>(real.weight);
    for (int64_t i = 0; i < it.n_fake; ++i)
      static_cast<A*>(it.grad_fake)[i] = static_cast<A>(fake.weight_at(static_cast<const A*>(it.energy_fake)[i]));
  };
  if (acc == DType::kFloat64) run(double{});
  else run(float{});
}

}  // namespace EBGAN_ISA
