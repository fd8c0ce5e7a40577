// Kernels for the energies, and for the losses with every gradient. Each sample is read once.
//
// Batches are [n, k]. Samples are a stride of elements apart, and the elements of a sample are adjacent. acc is Acc<T>,
// the type of differences, sums, energies and losses. Offsets of samples and chunks are 64-bit, and offsets within a
// tile are 32-bit.
#pragma once

#include "dtypes.cuh"
#include "reduce.cuh"

namespace ebgan::cuda {

// Elements of a thread, kept in 32 registers until the energy is known.
template <class T> constexpr int kPerThread = 128 / sizeof(Acc<T>);
constexpr int kMostThreads = 512;
constexpr int kChunkThreads = 256;
template <class T> constexpr int kLongestRow = kPerThread<T> * kMostThreads;
template <class T> constexpr int kChunk = kPerThread<T> * kChunkThreads;

// A batch of T as kernels take it.
template <class T> struct BatchOf {
  const T* p_recon;   // [n, k]
  const T* p_target;  // [n, k]
  T* p_grad_recon;    // [n, k] or null
  T* p_grad_target;   // [n, k] or null
  Acc<T>* p_energy;   // [n]
  int64_t recon_stride;
  int64_t target_stride;
  int64_t grad_recon_stride;
  int64_t grad_target_stride;
  int64_t n;
  int64_t k;

  __device__ bool wants_gradient() const { return p_grad_recon || p_grad_target; }
};

// Returns the derivative of upstream times the loss to an energy. It is upstream / n. For [margin - energy]+ it is
// -upstream / n, and 0 at and past the margin.
template <class A> __device__ A weight_of(A energy, int64_t n, A margin, A upstream, bool is_gated) {
  const A share = upstream / static_cast<A>(n);
  if (!is_gated) return share;
  return margin - energy <= 0 ? A{0} : -share;
}

// Returns the sum of the terms, added as a tree, so that its error grows only with the logarithm of their number.
template <class Terms, int kCount, class A> __device__ A tree_sum(const A* x) {
  if constexpr (kCount == 1) {
    return Terms::term(x[0]);
  } else {
    return tree_sum<Terms, kCount / 2>(x) + tree_sum<Terms, kCount / 2>(x + kCount / 2);
  }
}

// A thread's part of `threads * kPerThread<T>` neighboring elements. Its packets are `threads` apart, so that
// neighboring threads access neighboring memory. `count` elements exist. Terms is one of norm.h's.
template <class T, int kWidth, class Terms> struct Part {
  int thread;
  int threads;
  int count;

  template <class Visit> __device__ void each(const Visit& visit) const {
#pragma unroll
    for (int i = 0; i < kPerThread<T> / kWidth; ++i) {
      const int column = (i * threads + thread) * kWidth;
      visit(i * kWidth, column, column < count);
    }
  }

  __device__ void differences(const T* p_recon, const T* p_target, Acc<T>* difference) const {
    each([&](int first, int column, bool exists) {
      Packet<T, kWidth> recon{}, target{};
      if (exists) {
        recon = load<T, kWidth>(p_recon + column);
        target = load<T, kWidth>(p_target + column);
      }
#pragma unroll
      for (int j = 0; j < kWidth; ++j)
        difference[first + j] = exists ? widen(recon.values[j]) - widen(target.values[j]) : Acc<T>{0};
    });
  }

  // Stores the gradient for a slope, or exact zeros, even if the difference is infinite or NaN.
  __device__ void store_gradient(T* p_grad, const Acc<T>* difference, Acc<T> slope, bool is_zero) const {
    if (!p_grad) return;
    each([&](int first, int column, bool exists) {
      if (!exists) return;
      Packet<T, kWidth> gradient;
#pragma unroll
      for (int j = 0; j < kWidth; ++j)
        gradient.values[j] = narrow<T>(is_zero ? Acc<T>{0} : Terms::gradient(difference[first + j], slope));
      store<T, kWidth>(p_grad + column, gradient);
    });
  }
};

// Returns the mean energy, or the mean of [margin - energy]+, in every thread; 0 for no samples, NaN for NaN.
template <class A> __device__ A mean_of(const A* p_energy, int64_t n, A margin, bool is_hinge) {
  A total = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const A energy = p_energy[i], gap = margin - energy;
    total += !is_hinge ? energy : gap <= 0 ? A{0} : gap;
  }
  return sum_of_block(total) / static_cast<A>(n > 0 ? n : 1);
}

template <class A>
__device__ void store_loss(A* p_loss, const A* p_real, int64_t n_real, const A* p_fake, int64_t n_fake, A margin) {
  const A real = mean_of(p_real, n_real, margin, false), fake = mean_of(p_fake, n_fake, margin, true);
  if (threadIdx.x == 0) *p_loss = real + fake;
}

// Computes mean(E_real) + mean([margin - E_fake]+) and its gradients for samples of up to kLongestRow<T> elements.
// Every batch is read once and every gradient written once. `warps` warps take a sample. The last block to finish adds
// up the energies in their order.
template <class T, int kWidth, class Terms>
__global__ void __launch_bounds__(kMostThreads)
    loss_by_rows(BatchOf<T> real,          //
                 BatchOf<T> fake,          // n may be 0
                 Scalar<Acc<T>> margin,    //
                 Scalar<Acc<T>> upstream,  // of the loss
                 Acc<T>* p_loss,           // [], or null for energies alone
                 int32_t* p_counter,       // [1]
                 unsigned blocks_of_real,  //
                 int warps,                // of a sample
                 Norm norm) {
  using A = Acc<T>;
  __shared__ A sums[kMostThreads / kWarp];
  const bool is_fake = blockIdx.x >= blocks_of_real;
  const BatchOf<T> batch = is_fake ? fake : real;
  const int threads = warps * kWarp, slot = threadIdx.x / threads, thread = threadIdx.x % threads;
  const int64_t block = is_fake ? blockIdx.x - blocks_of_real : blockIdx.x;
  const int64_t sample = block * (blockDim.x / threads) + slot;
  const bool exists = sample < batch.n;
  const A wide_margin = margin.get();

  A difference[kPerThread<T>];
  const Part<T, kWidth, Terms> part{thread, threads, exists ? static_cast<int>(batch.k) : 0};
  part.differences(batch.p_recon + sample * batch.recon_stride, batch.p_target + sample * batch.target_stride,
                   difference);
  A sum = sum_of_warp(tree_sum<Terms, kPerThread<T>>(difference));
  if (warps > 1) {
    if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = sum;
    __syncthreads();
    sum = 0;
    for (int warp = 0; warp < warps; ++warp) sum += sums[slot * warps + warp];
  }
  const A energy = energy_of(norm, sum, batch.k);
  if (exists && thread == 0) batch.p_energy[sample] = energy;
  if (exists && batch.wants_gradient()) {
    const A weight = weight_of(energy, batch.n, wide_margin, upstream.get(), is_fake);
    const A slope = slope_of(norm, energy, weight, batch.k);
    T* const p_recon = batch.p_grad_recon ? batch.p_grad_recon + sample * batch.grad_recon_stride : nullptr;
    T* const p_target = batch.p_grad_target ? batch.p_grad_target + sample * batch.grad_target_stride : nullptr;
    part.store_gradient(p_recon, difference, slope, weight == 0);
    part.store_gradient(p_target, difference, -slope, weight == 0);
  }
  if (p_loss && arrives_last(p_counter, gridDim.x))
    store_loss(p_loss, real.p_energy, real.n, fake.p_energy, fake.n, wide_margin);
}

// Overwrites a sample's gradient with zeros, with all threads of the block.
template <class T, int kWidth> __device__ void store_zeros(T* p_grad, int64_t k) {
  if (!p_grad) return;
  const Packet<T, kWidth> zeros{};
  for (int64_t i = int64_t{threadIdx.x} * kWidth; i < k; i += int64_t{blockDim.x} * kWidth)
    store<T, kWidth>(p_grad + i, zeros);
}

// In the last block of a sample: computes its energy from the chunks' sums, and overwrites its gradient with zeros if
// the hinge is closed or upstream is 0.
template <class T, int kWidth>
__device__ void finish_sample(const BatchOf<T>& batch, int64_t sample, const Acc<T>* p_partials, int64_t chunks,
                              Acc<T> margin, Acc<T> upstream, bool is_fake, Norm norm) {
  using A = Acc<T>;
  A total = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += blockDim.x) total += p_partials[i];
  const A energy = energy_of(norm, sum_of_block(total), batch.k);
  if (threadIdx.x == 0) batch.p_energy[sample] = energy;
  if (upstream != 0 && (!is_fake || !(margin - energy <= 0))) return;
  if (batch.p_grad_recon) store_zeros<T, kWidth>(batch.p_grad_recon + sample * batch.grad_recon_stride, batch.k);
  if (batch.p_grad_target) store_zeros<T, kWidth>(batch.p_grad_target + sample * batch.grad_target_stride, batch.k);
}

// Computes the same as `loss_by_rows` for samples of any length, with a block for each chunk. The hinge is known only
// when a sample's last chunk is done. So every chunk writes its gradient as if the hinge were open, and every batch is
// still read once. Not for a norm whose slope needs the finished energy. Only the last chunk checks the hinge and the
// upstream: a check in every chunk took registers, and float64 and the 16-bit types had one block fewer on a
// multiprocessor.
template <class T, int kWidth, class Terms>
__global__ void __launch_bounds__(kChunkThreads)
    loss_by_chunks(BatchOf<T> real,          //
                   BatchOf<T> fake,          // n may be 0
                   Scalar<Acc<T>> margin,    //
                   Scalar<Acc<T>> upstream,  // of the loss
                   Acc<T>* p_loss,          // [], or null for energies alone
                   Acc<T>* p_partials,      // [n_real, chunks_real] and then [n_fake, chunks_fake]
                   int32_t* p_counters,     // [1 + n_real + n_fake]: one for all samples, then one for each sample
                   int64_t chunks_of_real,  // of one sample
                   int64_t chunks_of_fake,  //
                   Norm norm) {
  using A = Acc<T>;
  const int64_t blocks_of_real = real.n * chunks_of_real;
  const bool is_fake = blockIdx.x >= blocks_of_real;
  const BatchOf<T> batch = is_fake ? fake : real;
  const int64_t chunks = is_fake ? chunks_of_fake : chunks_of_real;
  const int64_t block = is_fake ? blockIdx.x - blocks_of_real : blockIdx.x;
  const int64_t sample = block / chunks, chunk = block % chunks, start = chunk * kChunk<T>;
  const int64_t left = batch.k - start;
  const A wide_upstream = upstream.get();

  A difference[kPerThread<T>];
  const Part<T, kWidth, Terms> part{static_cast<int>(threadIdx.x), kChunkThreads,
                                    static_cast<int>(left < kChunk<T> ? left : kChunk<T>)};
  part.differences(batch.p_recon + (sample * batch.recon_stride + start),
                   batch.p_target + (sample * batch.target_stride + start), difference);
  if (batch.wants_gradient()) {
    const A share = wide_upstream / static_cast<A>(batch.n);
    const A slope = slope_of(norm, A{1}, is_fake ? -share : share, batch.k);
    const int64_t to_recon = sample * batch.grad_recon_stride + start;
    const int64_t to_target = sample * batch.grad_target_stride + start;
    part.store_gradient(batch.p_grad_recon ? batch.p_grad_recon + to_recon : nullptr, difference, slope, false);
    part.store_gradient(batch.p_grad_target ? batch.p_grad_target + to_target : nullptr, difference, -slope, false);
  }
  const A sum = sum_of_block(tree_sum<Terms, kPerThread<T>>(difference));
  A* const p_sums = p_partials + (is_fake ? blocks_of_real : 0) + sample * chunks;
  if (threadIdx.x == 0) p_sums[chunk] = sum;
  int32_t* const p_chunks_done = p_counters + 1 + (is_fake ? real.n : 0) + sample;
  if (!arrives_last(p_chunks_done, static_cast<unsigned>(chunks))) return;
  const A wide_margin = margin.get();
  finish_sample<T, kWidth>(batch, sample, p_sums, chunks, wide_margin, wide_upstream, is_fake, norm);
  if (p_loss && arrives_last(p_counters, static_cast<unsigned>(real.n + fake.n)))
    store_loss(p_loss, real.p_energy, real.n, fake.p_energy, fake.n, wide_margin);
}

// Computes the gradients of the energies for given upstream gradients. A sample whose upstream is 0 is not read.
template <class T, int kWidth, class Terms>
__global__ void __launch_bounds__(kChunkThreads, sizeof(T) == 8 ? 1 : 0)  // with 0, float64 spilled to fit more (sm_90)
    energy_gradients(BatchOf<T> batch,          // p_energy is read
                     const Acc<T>* p_upstream,  // [n]
                     int64_t upstream_stride,   //
                     int64_t chunks,            // of one sample
                     Norm norm) {
  using A = Acc<T>;
  const int64_t sample = blockIdx.x / chunks, start = blockIdx.x % chunks * kChunk<T>, left = batch.k - start;
  const A upstream = p_upstream[sample * upstream_stride];
  const bool is_zero = upstream == 0;
  A difference[kPerThread<T>] = {};
  const Part<T, kWidth, Terms> part{static_cast<int>(threadIdx.x), kChunkThreads,
                                    static_cast<int>(left < kChunk<T> ? left : kChunk<T>)};
  if (!is_zero)
    part.differences(batch.p_recon + (sample * batch.recon_stride + start),
                     batch.p_target + (sample * batch.target_stride + start), difference);
  const A slope = is_zero ? A{0} : slope_of(norm, batch.p_energy[sample], upstream, batch.k);
  const int64_t to_recon = sample * batch.grad_recon_stride + start;
  const int64_t to_target = sample * batch.grad_target_stride + start;
  part.store_gradient(batch.p_grad_recon ? batch.p_grad_recon + to_recon : nullptr, difference, slope, is_zero);
  part.store_gradient(batch.p_grad_target ? batch.p_grad_target + to_target : nullptr, difference, -slope, is_zero);
}

// Computes mean(E_real) + mean([margin - E_fake]+) of given energies, and both gradients. The kernel runs as one block.
template <class A>
__global__ void __launch_bounds__(kChunkThreads)
    hinge_loss(const A* p_energy_real,  // [n_real]
               const A* p_energy_fake,  // [n_fake]
               A* p_grad_real,          // [n_real]
               A* p_grad_fake,          // [n_fake]
               A* p_loss,               // []
               int64_t n_real,          //
               int64_t n_fake,          //
               Scalar<A> margin,        //
               Scalar<A> upstream) {
  const A wide_margin = margin.get(), wide_upstream = upstream.get();
  store_loss(p_loss, p_energy_real, n_real, p_energy_fake, n_fake, wide_margin);
  for (int64_t i = threadIdx.x; i < n_real; i += blockDim.x)
    p_grad_real[i] = weight_of(A{0}, n_real, wide_margin, wide_upstream, false);
  for (int64_t i = threadIdx.x; i < n_fake; i += blockDim.x)
    p_grad_fake[i] = weight_of(p_energy_fake[i], n_fake, wide_margin, wide_upstream, true);
}

}  // namespace ebgan::cuda
