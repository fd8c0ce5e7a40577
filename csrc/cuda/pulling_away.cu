// The launches of the pulling-away term on a GPU: the choice of form, kernels and tiles.
#include "kernels.h"
#include "pulling_away_gradient_kernels.cuh"
#include "pulling_away_kernels.cuh"

#include <type_traits>

namespace ebgan::cuda {

namespace {

// The number of blocks into which a matrix of fewer tiles is cut. Primal: one on each multiprocessor of an H100. Dual:
// two on each, because its tiles are small and have little in flight.
constexpr int kBlocks = 132, kDualBlocks = 264;
constexpr int kFewestSteps = 4;  // the fewest steps of a split, so that it writes not much more than it reads

bool is_dual(const Code& code) { return code.d < code.n; }

// Dual matrices are small. In tiles of 128, a matrix of 128 elements would be one tile, and 16 blocks at N = 2048.
template <class T> int block_of(const Code& code) {
  return sizeof(T) == 8 || is_dual(code) || code.n <= 64 ? 64 : 128;
}

template <class T> Cut cut_of(const Code& code) {
  const int64_t side = is_dual(code) ? code.d : code.n, depth = is_dual(code) ? code.n : code.d;
  const int64_t per_side = ceil_div(side, block_of<T>(code)), tiles = per_side * (per_side + 1) / 2;
  const int64_t step = 128 / (is_dual(code) ? sizeof(Acc<T>) : sizeof(T)), steps = ceil_div(depth, step);
  int64_t wanted = (is_dual(code) ? kDualBlocks : kBlocks) / tiles;
  if (wanted > steps / kFewestSteps) wanted = steps / kFewestSteps;
  if (wanted < 1) wanted = 1;
  const int64_t split_depth = ceil_div(steps, wanted) * step, splits = ceil_div(depth, split_depth);
  return {side, depth, split_depth, static_cast<int>(splits), static_cast<int>(tiles)};
}

// The number of elements that gram_matrix writes to scratch memory. With one split, its products are in residual.
int64_t products_of(const Cut& cut) { return cut.splits > 1 ? cut.splits * cut.side * cut.side : 0; }
int64_t squares_of(const Cut& cut, const Code& code) { return cut.splits * (is_dual(code) ? 1 : code.n); }

template <class T> WorkspaceSize workspace_of(const Code& code) {
  const Cut cut = cut_of<T>(code);
  return {products_of(cut) + squares_of(cut, code) + cut.side, cut.is_alone() ? 0 : 1};
}

template <class T> Lines<T> lines_of(const Code& code, const void* lengths) {
  const auto* const p_lengths = static_cast<const Acc<T>*>(lengths);
  return {static_cast<const T*>(code.data),
          code.stride,
          code.n,
          code.d,
          p_lengths,
          p_lengths ? p_lengths + code.n : nullptr,
          rows_are_wide<T>(code.data, code.stride, code.n, code.d)};
}

template <class T, int kBlock, bool kDual>
cudaError_t run_forward(const Code& code, const Cut& cut, bool is_exact, const Matrix<Acc<T>>& to,
                        const Ending<Acc<T>>& ending, int32_t* p_counter, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  if constexpr (kDual)
    error = gpu::launch(row_lengths<T>, dim3(static_cast<unsigned>(ceil_div(code.n, kRowsOfBlock))), dim3(kFinishThreads),
                        0, stream, lines_of<T>(code, nullptr), to.p_lengths);
  if (error != cudaSuccess) return error;
  const unsigned blocks = static_cast<unsigned>(cut.tiles) * cut.splits;
  error = gpu::launch(gram_matrix<T, kBlock, kDual>, dim3(blocks), dim3(Shares<Acc<T>, kBlock, kBlock>::kThreads), 0,
                      stream, lines_of<T>(code, kDual ? to.p_lengths : nullptr), to, cut, ending, is_exact);
  if (error != cudaSuccess || cut.is_alone()) return error;
  using Rows = std::conditional_t<kDual, Acc<T>, T>;
  Lines<Rows> rows{};
  if constexpr (!kDual) rows = lines_of<T>(code, nullptr);
  return gpu::launch(finish_rows<Rows, kDual>, dim3(static_cast<unsigned>(ceil_div(cut.side, kFinishedRows))),
                     dim3(kFinishThreads), 0, stream, rows, to, p_counter, ending);
}

template <class T> cudaError_t run_gradient(const PullingAwayGradient& it, bool is_exact, cudaStream_t stream) {
  using A = Acc<T>;
  const Code& code = it.code;
  const int64_t side = is_dual(code) ? code.d : code.n;
  const Lines<A> matrix{static_cast<const A*>(it.residual), side, side, side, nullptr, nullptr,
                        rows_are_wide<A>(it.residual, side, side, side)};
  const Output<T> output{static_cast<T*>(it.grad), it.grad_stride, code.n, code.d,
                         rows_are_wide<T>(it.grad, it.grad_stride, code.n, code.d), scalar_of<A>(it.upstream)};
  const auto lines = lines_of<T>(code, it.lengths);
  if (is_dual(code)) {
    using G = GradientTile<T, kDualRows>;
    return gpu::launch(dual_gradient<T>, dim3(static_cast<unsigned>(ceil_div(code.n, kDualRows))),
                       dim3(G::Share::kThreads), 0, stream, matrix, lines, output, is_exact);
  }
  using G = GradientTile<T, kPrimalRows<T>>;
  const int64_t columns = ceil_div(code.d, G::kColumns);
  return gpu::launch(primal_gradient<T>, dim3(static_cast<unsigned>(ceil_div(code.n, G::kRows) * columns)),
                     dim3(G::Share::kThreads), 0, stream, matrix, lines, output, columns, is_exact);
}

}  // namespace

WorkspaceSize pulling_away_workspace(DType dtype, const Code& code) {
  WorkspaceSize size{};
  dispatch(dtype, [&](auto* type) {
    size = workspace_of<std::remove_pointer_t<decltype(type)>>(code);
    return cudaSuccess;
  });
  return size;
}

cudaError_t pulling_away(DType dtype, const PullingAway& it, Float32Products products, Workspace workspace,
                         cudaStream_t stream) {
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using A = Acc<T>;
    const Code& code = it.code;
    const Ending<A> ending{static_cast<A*>(it.value), static_cast<A*>(it.loss), scalar_of<A>(it.weight), code.n};
    const Cut cut = cut_of<T>(code);
    A *const p_residual = static_cast<A*>(it.residual), *const p_scratch = static_cast<A*>(workspace.partials);
    A *const p_squares = p_scratch + products_of(cut), *const p_row_sums = p_squares + squares_of(cut, code);
    const Matrix<A> to{cut.splits > 1 ? p_scratch : p_residual, p_squares, static_cast<A*>(it.lengths), p_residual,
                       p_row_sums,                              cut.side,  cut.splits};
    const bool is_exact = products == Float32Products::kExact;
    const auto run = [&](auto forward) { return forward(code, cut, is_exact, to, ending, workspace.counters, stream); };
    if (is_dual(code)) return run(run_forward<T, 64, true>);
    if constexpr (sizeof(T) < 8)
      if (block_of<T>(code) == 128) return run(run_forward<T, 128, false>);
    return run(run_forward<T, 64, false>);
  });
}

cudaError_t pulling_away_gradient(DType dtype, const PullingAwayGradient& it, Float32Products products,
                                  cudaStream_t stream) {
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    // A 16-bit gradient keeps at most 11 bits, the number that tf32 keeps of its factors.
    const bool is_exact = sizeof(T) > 2 && products == Float32Products::kExact;
    return run_gradient<T>(it, is_exact, stream);
  });
}

}  // namespace ebgan::cuda
