// The energies and losses on a GPU: which kernel runs, with how many threads.
#include "energy_kernels.cuh"
#include "kernels.h"

#include <type_traits>

namespace ebgan::cuda {

namespace {

constexpr int kRowsThreads = 128;  // of a block of several short samples

// No blocks, and so an error of the launch, where there would be more than a grid has.
dim3 grid_of(int64_t blocks) { return dim3(blocks > INT32_MAX ? 0 : static_cast<unsigned>(blocks)); }

int64_t longest(const Pair& real, const Pair& fake) { return fake.n && fake.k > real.k ? fake.k : real.k; }

template <class T> bool fits_rows(const Pair& real, const Pair& fake) {
  return longest(real, fake) <= kLongestRow<T> || real.n + fake.n == 0;
}

bool wants_gradient(const PairGradient& grad) { return grad.recon || grad.target; }

template <class T> Batch<T> batch_of(const Pair& pair, const PairGradient& grad, void* energy) {
  return {static_cast<const T*>(pair.recon),
          static_cast<const T*>(pair.target),
          static_cast<T*>(grad.recon),
          static_cast<T*>(grad.target),
          static_cast<Acc<T>*>(energy),
          pair.recon_stride,
          pair.target_stride,
          grad.recon_stride,
          grad.target_stride,
          pair.n,
          pair.k};
}

template <class T> bool is_wide(const Pair& pair, const PairGradient& grad) {
  const auto holds = [&](const void* pointer, int64_t stride) {
    return rows_are_wide<T>(pointer, stride, pair.n, pair.k);
  };
  return pair.n == 0 || (holds(pair.recon, pair.recon_stride) && holds(pair.target, pair.target_stride) &&
                         (!grad.recon || holds(grad.recon, grad.recon_stride)) &&
                         (!grad.target || holds(grad.target, grad.target_stride)));
}

// What a loss is made of, for the functions below.
struct Loss {
  Norm norm;
  Pair real, fake;
  PairGradient grad_real, grad_fake;
  void *energy_real, *energy_fake;
  Coefficient margin;
  void* loss;
  Workspace workspace;
  cudaStream_t stream;
};

template <class T> bool is_wide(const Loss& it) {
  return is_wide<T>(it.real, it.grad_real) && is_wide<T>(it.fake, it.grad_fake);
}

template <class T, int kWidth> cudaError_t run_rows(const Loss& it) {
  int warps = 1;
  while (int64_t{warps} * kWarp * kPerThread<T> < longest(it.real, it.fake)) warps *= 2;
  const int threads = warps * kWarp > kRowsThreads ? warps * kWarp : kRowsThreads;
  const int64_t samples = threads / (warps * kWarp);
  const int64_t of_real = ceil_div(it.real.n, samples), of_fake = ceil_div(it.fake.n, samples);
  // A loss is due even for no samples.
  const int64_t blocks = of_real + of_fake > 0 ? of_real + of_fake : 1;
  return gpu::launch(loss_by_rows<T, kWidth>, grid_of(blocks), dim3(threads), 0, it.stream,
                     batch_of<T>(it.real, it.grad_real, it.energy_real),
                     batch_of<T>(it.fake, it.grad_fake, it.energy_fake), scalar_of<Acc<T>>(it.margin),
                     static_cast<Acc<T>*>(it.loss), it.workspace.counters, static_cast<unsigned>(of_real), warps,
                     it.norm);
}

template <class T, int kWidth> cudaError_t run_chunks(const Loss& it) {
  const int64_t of_real = ceil_div(it.real.k, kChunk<T>), of_fake = ceil_div(it.fake.k, kChunk<T>);
  const int64_t blocks = it.real.n * of_real + it.fake.n * of_fake;
  return gpu::launch(loss_by_chunks<T, kWidth>, grid_of(blocks), dim3(kChunkThreads), 0, it.stream,
                     batch_of<T>(it.real, it.grad_real, it.energy_real),
                     batch_of<T>(it.fake, it.grad_fake, it.energy_fake), scalar_of<Acc<T>>(it.margin),
                     static_cast<Acc<T>*>(it.loss), static_cast<Acc<T>*>(it.workspace.partials),
                     it.workspace.counters, of_real, of_fake, it.norm);
}

template <class T>
cudaError_t run_gradient(Norm norm, const Pair& pair, const PairGradient& grad, const void* energy,
                         const void* upstream, int64_t upstream_stride, cudaStream_t stream) {
  if (pair.n == 0 || !wants_gradient(grad)) return cudaSuccess;
  const auto launch = [&](auto kernel) {
    const int64_t chunks = ceil_div(pair.k, kChunk<T>);
    return gpu::launch(kernel, grid_of(pair.n * chunks), dim3(kChunkThreads), 0, stream,
                       batch_of<T>(pair, grad, const_cast<void*>(energy)), static_cast<const Acc<T>*>(upstream),
                       upstream_stride, chunks, norm);
  };
  return is_wide<T>(pair, grad) ? launch(energy_gradient<T, kWide<T>>) : launch(energy_gradient<T, 1>);
}

template <class A>
cudaError_t run_hinge(const void* energy_real, int64_t n_real, const void* energy_fake, int64_t n_fake,
                      Coefficient margin, void* loss, void* grad_real, void* grad_fake, cudaStream_t stream) {
  return gpu::launch(hinge_loss<A>, dim3(1), dim3(kChunkThreads), 0, stream, static_cast<const A*>(energy_real),
                     static_cast<const A*>(energy_fake), static_cast<A*>(grad_real), static_cast<A*>(grad_fake),
                     static_cast<A*>(loss), n_real, n_fake, scalar_of<A>(margin));
}

template <class T> int64_t chunk_sums(const Pair& real, const Pair& fake) {
  return real.n * ceil_div(real.k, kChunk<T>) + fake.n * ceil_div(fake.k, kChunk<T>);
}

// The l2 loss of samples too long for a block. Its gradient is the difference over the finished energy, so samples are
// read twice: a launch for the energies, one for the loss and one for each batch's gradients.
template <class T> cudaError_t run_long_l2(const Loss& it) {
  Loss energies = it;
  energies.loss = nullptr;
  energies.grad_real = energies.grad_fake = {};
  cudaError_t error = is_wide<T>(energies) ? run_chunks<T, kWide<T>>(energies) : run_chunks<T, 1>(energies);
  Acc<T>* const upstream_real = static_cast<Acc<T>*>(it.workspace.partials) + chunk_sums<T>(it.real, it.fake);
  Acc<T>* const upstream_fake = upstream_real + it.real.n;
  if (error == cudaSuccess)
    error = run_hinge<Acc<T>>(it.energy_real, it.real.n, it.energy_fake, it.fake.n, it.margin, it.loss, upstream_real,
                              upstream_fake, it.stream);
  if (error == cudaSuccess)
    error = run_gradient<T>(it.norm, it.real, it.grad_real, it.energy_real, upstream_real, 1, it.stream);
  if (error == cudaSuccess)
    error = run_gradient<T>(it.norm, it.fake, it.grad_fake, it.energy_fake, upstream_fake, 1, it.stream);
  return error;
}

template <class T> cudaError_t run_loss(Loss it) {
  if (!it.loss) it.grad_real = it.grad_fake = {};
  if (fits_rows<T>(it.real, it.fake)) return is_wide<T>(it) ? run_rows<T, kWide<T>>(it) : run_rows<T, 1>(it);
  if (it.norm == Norm::kL2 && (wants_gradient(it.grad_real) || wants_gradient(it.grad_fake))) return run_long_l2<T>(it);
  return is_wide<T>(it) ? run_chunks<T, kWide<T>>(it) : run_chunks<T, 1>(it);
}

}  // namespace

WorkspaceSize loss_workspace(DType dtype, Norm norm, const Pair& real, const Pair& fake) {
  const auto size = [&](auto* type) -> WorkspaceSize {
    using T = std::remove_pointer_t<decltype(type)>;
    if (fits_rows<T>(real, fake)) return {0, 1};
    const int64_t samples = real.n + fake.n;
    return {chunk_sums<T>(real, fake) + (norm == Norm::kL2 ? samples : 0), 1 + samples};
  };
  // The sizes depend on the dtype's accumulation alone.
  return dtype == DType::kFloat64 ? size(static_cast<double*>(nullptr)) : size(static_cast<float*>(nullptr));
}

cudaError_t loss(DType dtype, Norm norm, const Pair& real, const Pair& fake, Coefficient margin, void* loss,
                 void* energy_real, void* energy_fake, const PairGradient& grad_real, const PairGradient& grad_fake,
                 Workspace workspace, cudaStream_t stream) {
  const Loss it{norm, real, fake, grad_real, grad_fake, energy_real, energy_fake, margin, loss, workspace, stream};
  return dispatch(dtype, [&](auto* type) { return run_loss<std::remove_pointer_t<decltype(type)>>(it); });
}

cudaError_t energy_backward(DType dtype, Norm norm, const Pair& pair, const void* energy, const void* upstream,
                            int64_t upstream_stride, const PairGradient& grad, cudaStream_t stream) {
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return run_gradient<T>(norm, pair, grad, energy, upstream, upstream_stride, stream);
  });
}

cudaError_t hinge(DType acc, const void* energy_real, int64_t n_real, const void* energy_fake, int64_t n_fake,
                  Coefficient margin, void* loss, void* grad_real, void* grad_fake, cudaStream_t stream) {
  const auto run = acc == DType::kFloat64 ? run_hinge<double> : run_hinge<float>;
  return run(energy_real, n_real, energy_fake, n_fake, margin, loss, grad_real, grad_fake, stream);
}

}  // namespace ebgan::cuda
