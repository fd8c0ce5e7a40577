// The launches of energies and losses on a GPU: the choice of kernel and of the number of threads.
#include "energy_kernels.cuh"
#include "kernels.h"

#include <type_traits>

namespace ebgan::cuda {

namespace {

constexpr int kRowsThreads = 128;  // threads of a block that takes several short samples

// Returns a grid of no blocks if there are more blocks than a grid can have: the launch then returns an error.
dim3 grid_of(int64_t blocks) { return dim3(blocks > INT32_MAX ? 0 : static_cast<unsigned>(blocks)); }

int64_t longest(const Batch& real, const Batch& fake) { return fake.n && fake.k > real.k ? fake.k : real.k; }

template <class T> bool fits_rows(const Batch& real, const Batch& fake) {
  return longest(real, fake) <= kLongestRow<T> || real.n + fake.n == 0;
}

template <class T> BatchOf<T> on_device(const Batch& batch) {
  return {static_cast<const T*>(batch.recon),
          static_cast<const T*>(batch.target),
          static_cast<T*>(batch.grad_recon),
          static_cast<T*>(batch.grad_target),
          static_cast<Acc<T>*>(batch.energy),
          batch.recon_stride,
          batch.target_stride,
          batch.grad_recon_stride,
          batch.grad_target_stride,
          batch.n,
          batch.k};
}

template <class T> bool is_wide(const Batch& batch) {
  const auto holds = [&](const void* pointer, int64_t stride) {
    return rows_are_wide<T>(pointer, stride, batch.n, batch.k);
  };
  return batch.n == 0 || (holds(batch.recon, batch.recon_stride) && holds(batch.target, batch.target_stride) &&
                          (!batch.grad_recon || holds(batch.grad_recon, batch.grad_recon_stride)) &&
                          (!batch.grad_target || holds(batch.grad_target, batch.grad_target_stride)));
}

void forget_gradients(Batch& batch) { batch.grad_recon = batch.grad_target = nullptr; }

// The arguments of a loss, prepared for a kernel.
struct Call {
  Loss it;
  Workspace workspace;
  cudaStream_t stream;

  template <class T> bool is_wide() const { return cuda::is_wide<T>(it.real) && cuda::is_wide<T>(it.fake); }
};

template <class T, int kWidth> cudaError_t run_rows(const Call& call) {
  const Loss& it = call.it;
  int warps = 1;
  while (int64_t{warps} * kWarp * kPerThread<T> < longest(it.real, it.fake)) warps *= 2;
  const int threads = warps * kWarp > kRowsThreads ? warps * kWarp : kRowsThreads;
  const int64_t samples = threads / (warps * kWarp);
  const int64_t of_real = ceil_div(it.real.n, samples), of_fake = ceil_div(it.fake.n, samples);
  // Without any samples, one block still writes the loss.
  const int64_t blocks = of_real + of_fake > 0 ? of_real + of_fake : 1;
  return with_terms(it.norm, [&](auto terms) {
    return gpu::launch(loss_by_rows<T, kWidth, decltype(terms)>, grid_of(blocks), dim3(threads), 0, call.stream,
                       on_device<T>(it.real), on_device<T>(it.fake), scalar_of<Acc<T>>(it.margin),
                       scalar_of<Acc<T>>(it.upstream), static_cast<Acc<T>*>(it.value), call.workspace.counters,
                       static_cast<unsigned>(of_real), warps, it.norm);
  });
}

template <class T, int kWidth> cudaError_t run_chunks(const Call& call) {
  const Loss& it = call.it;
  const int64_t of_real = ceil_div(it.real.k, kChunk<T>), of_fake = ceil_div(it.fake.k, kChunk<T>);
  const int64_t blocks = it.real.n * of_real + it.fake.n * of_fake;
  return with_terms(it.norm, [&](auto terms) {
    return gpu::launch(loss_by_chunks<T, kWidth, decltype(terms)>, grid_of(blocks), dim3(kChunkThreads), 0, call.stream,
                       on_device<T>(it.real), on_device<T>(it.fake), scalar_of<Acc<T>>(it.margin),
                       scalar_of<Acc<T>>(it.upstream), static_cast<Acc<T>*>(it.value),
                       static_cast<Acc<T>*>(call.workspace.partials), call.workspace.counters, of_real, of_fake, it.norm);
  });
}

template <class T> cudaError_t run_gradient(const EnergyGradient& it, cudaStream_t stream) {
  const Batch& batch = it.batch;
  if (batch.n == 0 || !batch.wants_gradient()) return cudaSuccess;
  const auto launch = [&](auto kernel) {
    const int64_t chunks = ceil_div(batch.k, kChunk<T>);
    return gpu::launch(kernel, grid_of(batch.n * chunks), dim3(kChunkThreads), 0, stream, on_device<T>(batch),
                       static_cast<const Acc<T>*>(it.upstream), it.upstream_stride, chunks, it.norm);
  };
  return with_terms(it.norm, [&](auto terms) {
    using Terms = decltype(terms);
    return is_wide<T>(batch) ? launch(energy_gradients<T, kWide<T>, Terms>) : launch(energy_gradients<T, 1, Terms>);
  });
}

template <class A> cudaError_t run_hinge(const Hinge& it, Coefficient upstream, cudaStream_t stream) {
  return gpu::launch(hinge_loss<A>, dim3(1), dim3(kChunkThreads), 0, stream, static_cast<const A*>(it.energy_real),
                     static_cast<const A*>(it.energy_fake), static_cast<A*>(it.grad_real), static_cast<A*>(it.grad_fake),
                     static_cast<A*>(it.value), it.n_real, it.n_fake, scalar_of<A>(it.margin), scalar_of<A>(upstream));
}

template <class T> int64_t chunk_sums(const Batch& real, const Batch& fake) {
  return real.n * ceil_div(real.k, kChunk<T>) + fake.n * ceil_div(fake.k, kChunk<T>);
}

// Computes the loss of samples too long for a block, for a norm whose slope needs the finished energy. The samples are
// read twice: there is one launch for the energies, one for the loss, and one for each batch's gradients.
template <class T> cudaError_t run_in_two_reads(const Call& call) {
  const Loss& it = call.it;
  Call energies = call;
  energies.it.value = nullptr;
  forget_gradients(energies.it.real);
  forget_gradients(energies.it.fake);
  cudaError_t error = energies.is_wide<T>() ? run_chunks<T, kWide<T>>(energies) : run_chunks<T, 1>(energies);
  Acc<T>* const upstream_real = static_cast<Acc<T>*>(call.workspace.partials) + chunk_sums<T>(it.real, it.fake);
  Acc<T>* const upstream_fake = upstream_real + it.real.n;
  const Hinge hinge{it.real.energy, it.fake.energy, upstream_real, upstream_fake,
                    it.real.n,      it.fake.n,      it.margin,     it.value};
  if (error == cudaSuccess) error = run_hinge<Acc<T>>(hinge, it.upstream, call.stream);
  if (error == cudaSuccess) error = run_gradient<T>({it.norm, it.real, upstream_real, 1}, call.stream);
  if (error == cudaSuccess) error = run_gradient<T>({it.norm, it.fake, upstream_fake, 1}, call.stream);
  return error;
}

template <class T> cudaError_t run_loss(Call call) {
  Loss& it = call.it;
  if (!it.value) {
    forget_gradients(it.real);
    forget_gradients(it.fake);
  }
  const bool is_wide = call.is_wide<T>();
  if (fits_rows<T>(it.real, it.fake)) return is_wide ? run_rows<T, kWide<T>>(call) : run_rows<T, 1>(call);
  if (slope_needs_energy(it.norm) && (it.real.wants_gradient() || it.fake.wants_gradient()))
    return run_in_two_reads<T>(call);
  return is_wide ? run_chunks<T, kWide<T>>(call) : run_chunks<T, 1>(call);
}

}  // namespace

WorkspaceSize loss_workspace(DType dtype, const Loss& it) {
  const auto size = [&](auto* type) -> WorkspaceSize {
    using T = std::remove_pointer_t<decltype(type)>;
    if (fits_rows<T>(it.real, it.fake)) return {0, 1};
    const int64_t samples = it.real.n + it.fake.n;
    return {chunk_sums<T>(it.real, it.fake) + (slope_needs_energy(it.norm) ? samples : 0), 1 + samples};
  };
  // The sizes depend only on the accumulation type.
  return dtype == DType::kFloat64 ? size(static_cast<double*>(nullptr)) : size(static_cast<float*>(nullptr));
}

cudaError_t loss(DType dtype, const Loss& it, Workspace workspace, cudaStream_t stream) {
  return dispatch(dtype, [&](auto* type) { return run_loss<std::remove_pointer_t<decltype(type)>>({it, workspace, stream}); });
}

cudaError_t energy_gradient(DType dtype, const EnergyGradient& it, cudaStream_t stream) {
  return dispatch(dtype, [&](auto* type) { return run_gradient<std::remove_pointer_t<decltype(type)>>(it, stream); });
}

cudaError_t hinge(DType acc, const Hinge& it, cudaStream_t stream) {
  const Coefficient one{nullptr, 1};
  return acc == DType::kFloat64 ? run_hinge<double>(it, one, stream) : run_hinge<float>(it, one, stream);
}

}  // namespace ebgan::cuda
