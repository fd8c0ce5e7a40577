// The pulling-away term on a GPU: which form, which kernels, which tiles.
#include "kernels.h"
#include "pulling_away_gradient_kernels.cuh"
#include "pulling_away_kernels.cuh"

#include <type_traits>

namespace ebgan::cuda {

namespace {

constexpr int kPrograms = 64;  // splits of one tile: each pays a tile of partial sums
constexpr int kFewestSteps = 4;  // of a split, so that partial sums stay fewer than what they add up

bool is_dual(const Code& code) { return code.d < code.n; }

template <class T> int block_of(int64_t side) { return sizeof(T) == 8 || side <= 64 ? 64 : 128; }

template <class T> Cut cut_of(const Code& code) {
  const int64_t side = is_dual(code) ? code.d : code.n, depth = is_dual(code) ? code.n : code.d;
  const int64_t per_side = ceil_div(side, block_of<T>(side)), tiles = per_side * (per_side + 1) / 2;
  const int64_t step = 128 / (is_dual(code) ? sizeof(Acc<T>) : sizeof(T)), steps = ceil_div(depth, step);
  int64_t wanted = kPrograms / tiles;
  if (wanted > steps / kFewestSteps) wanted = steps / kFewestSteps;
  if (wanted < 1) wanted = 1;
  const int64_t split_depth = ceil_div(steps, wanted) * step, splits = ceil_div(depth, split_depth);
  return {side,
          depth,
          split_depth,
          static_cast<int>(splits),
          static_cast<int>(ceil_div(splits, kGroup)),
          static_cast<int>(tiles)};
}

int64_t finishing_blocks(int64_t n) { return ceil_div(n, kRowsOfBlock); }

template <class T> WorkspaceSize workspace_of(const Code& code) {
  const Cut cut = cut_of<T>(code);
  const int64_t block = block_of<T>(cut.side);
  const int64_t slots = cut.splits > 1 || is_dual(code) ? int64_t{cut.tiles} * cut.splits * block * block : 0;
  const int64_t sums = is_dual(code) ? cut.tiles : cut.tiles > 1 ? finishing_blocks(code.n) : 0;
  return {slots + sums, int64_t{cut.tiles} * cut.groups + cut.tiles + 1};
}

template <class T> Lines<T> lines_of(const Code& code, const void* norms) {
  return {static_cast<const T*>(code.data),
          code.stride,
          code.n,
          code.d,
          static_cast<const Acc<T>*>(norms),
          rows_are_wide<T>(code.data, code.stride, code.n, code.d)};
}

// What the forward writes.
template <class A> struct Results {
  A* norms;
  A* gram;
  Ending<A> ending;
  A* partials;
  int32_t* counters;
  cudaStream_t stream;
};

template <class T, int kBlock, bool kDual>
cudaError_t run_gram(const Code& code, const Cut& cut, bool is_exact, const Results<Acc<T>>& to) {
  const auto lines = lines_of<T>(code, kDual ? to.norms : nullptr);
  const unsigned blocks = static_cast<unsigned>(cut.tiles) * cut.splits;
  return gpu::launch(gram_matrix<T, kBlock, kDual>, dim3(blocks), dim3(Shares<Acc<T>, kBlock, kBlock>::kThreads), 0,
                     to.stream, lines, to.norms, to.gram, to.partials, to.counters, cut, to.ending, is_exact);
}

template <class T, int kBlock>
cudaError_t run_forward(const Code& code, const Cut& cut, bool is_exact, const Results<Acc<T>>& to) {
  const dim3 finishing(static_cast<unsigned>(finishing_blocks(code.n)));
  if (is_dual(code)) {
    const cudaError_t error = gpu::launch(row_norms<T>, finishing, dim3(kFinishThreads), 0, to.stream,
                                          lines_of<T>(code, nullptr), to.norms);
    return error == cudaSuccess ? run_gram<T, kBlock, true>(code, cut, is_exact, to) : error;
  }
  const cudaError_t error = run_gram<T, kBlock, false>(code, cut, is_exact, to);
  if (error != cudaSuccess || cut.tiles == 1) return error;
  Acc<T>* const sums = to.partials + (cut.splits > 1 ? int64_t{cut.tiles} * cut.splits * kBlock * kBlock : 0);
  int32_t* const counter = to.counters + (int64_t{cut.tiles} * cut.groups + cut.tiles);
  return gpu::launch(finish_rows<Acc<T>>, finishing, dim3(kFinishThreads), 0, to.stream,
                     static_cast<const Acc<T>*>(to.norms), to.gram, sums, counter, code.n, to.ending);
}

template <class T>
cudaError_t run_backward(const Code& code, bool is_exact, const void* norms, const void* gram, Coefficient upstream,
                         void* grad, int64_t grad_stride, cudaStream_t stream) {
  using A = Acc<T>;
  const int64_t side = is_dual(code) ? code.d : code.n;
  const Lines<A> matrix{static_cast<const A*>(gram), side, side, side, nullptr,
                        rows_are_wide<A>(gram, side, side, side)};
  const Output<T> output{static_cast<T*>(grad), grad_stride, code.n, code.d,
                         rows_are_wide<T>(grad, grad_stride, code.n, code.d), scalar_of<A>(upstream)};
  const auto lines = lines_of<T>(code, norms);
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

cudaError_t pulling_away_forward(DType dtype, const Code& code, Float32Products products, void* norms, void* gram,
                                 void* value, void* loss, Coefficient weight, Workspace workspace,
                                 cudaStream_t stream) {
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using A = Acc<T>;
    const Ending<A> ending{static_cast<A*>(value), static_cast<A*>(loss), scalar_of<A>(weight), code.n};
    const Results<A> to{static_cast<A*>(norms), static_cast<A*>(gram), ending, static_cast<A*>(workspace.partials),
                        workspace.counters, stream};
    const Cut cut = cut_of<T>(code);
    const bool is_exact = products == Float32Products::kExact;
    if constexpr (sizeof(T) < 8)
      if (block_of<T>(cut.side) == 128) return run_forward<T, 128>(code, cut, is_exact, to);
    return run_forward<T, 64>(code, cut, is_exact, to);
  });
}

cudaError_t pulling_away_backward(DType dtype, const Code& code, Float32Products products, const void* norms,
                                  const void* gram, Coefficient upstream, void* grad, int64_t grad_stride,
                                  cudaStream_t stream) {
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    // A 16-bit gradient keeps 11 bits at most: what tf32 keeps of its factors.
    const bool is_exact = sizeof(T) > 2 && products == Float32Products::kExact;
    return run_backward<T>(code, is_exact, norms, gram, upstream, grad, grad_stride, stream);
  });
}

}  // namespace ebgan::cuda
