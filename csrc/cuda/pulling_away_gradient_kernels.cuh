// Kernels for the gradient of the pulling-away term, computed from gram_matrix's results: see pulling_away_kernels.cuh.
//
// Primal: grad_i = 4 / (n(n-1) length_i) ((G - diag r) U)_i. Dual: grad_i = 4 / (n(n-1) length_i) (E u_i - (u_i^T E
// u_i) u_i). Both are multiplied by the upstream gradient, and by the row's scale, because length_i is that of the
// scaled row. A row of zeros gets zeros.
#pragma once

#include "tiles.cuh"

namespace ebgan::cuda {

// A block's part of the gradient, and the tiles of the factors in shared memory. The result is written through the same
// shared memory, in packets.
template <class T, int kRows_> struct GradientTile {
  using A = Acc<T>;
  static constexpr int kRows = kRows_, kColumns = 64;
  static constexpr int kDepth = 128 / sizeof(A);
  using Share = Shares<A, kRows, kColumns>;
  using Left = Tile<A, kRows, kDepth, true>;
  using Right = Tile<A, kDepth, kColumns, false>;
  static constexpr int kWidth = kWide<T>;
  static constexpr int kStep = kColumns + kWidth;
  static constexpr size_t kFactors = (Left::kSize + Right::kSize) * sizeof(A);
  static constexpr size_t kResult = kRows * kStep * sizeof(T);
  static constexpr size_t kMemory = kFactors > kResult ? kFactors : kResult;
};

// The destination of a gradient.
template <class T> struct Output {
  T* p_grad;  // [n, d]
  int64_t step;
  int64_t n;
  int64_t d;
  bool is_wide;
  Scalar<Acc<T>> upstream;

  // Returns 4 upstream / (n(n-1)), which the caller divides by the row's length.
  __device__ Acc<T> scale() const {
    return 4 * upstream.get() / (static_cast<Acc<T>>(n) * static_cast<Acc<T>>(n - 1));
  }
};

// Computes sums = left[row.., :] right[:, column..]. One of the two is divided by its lengths.
template <class G, bool kLeftIsScaled, class L, class R>
__device__ void multiply_lines(typename G::Share::Part& sums, unsigned char* memory, const Lines<L>& left, int64_t row,
                               const Lines<R>& right, int64_t column, bool is_exact) {
  using A = typename G::A;
  constexpr int kThreads = G::Share::kThreads;
  const typename G::Left left_tile{reinterpret_cast<A*>(memory)};
  const typename G::Right right_tile{left_tile.p_numbers + G::Left::kSize};
  Fetched<L, typename G::Left, kThreads, kLeftIsScaled> next_left;
  Fetched<R, typename G::Right, kThreads, !kLeftIsScaled> next_right;
  const int64_t depth = right.lines;
  const auto fetch = [&](int64_t k) {
    next_left.fetch(left, row, k, depth);
    next_right.fetch(right, k, column, right.columns);
  };
  sums.clear();
  fetch(0);
  for (int64_t k = 0; k < depth; k += G::kDepth) {
    __syncthreads();  // the previous tile must have been read
    next_left.put(left_tile.p_numbers, left, row);
    next_right.put(right_tile.p_numbers, right, k);
    __syncthreads();
    if (k + G::kDepth < depth) fetch(k + G::kDepth);
    add_product(sums, left_tile.factor().from(G::Share::row()), right_tile.factor().from(G::Share::column()), G::kDepth,
                is_exact);
  }
}

// Copies shared memory to the rows i.. and columns c.. of the gradient. Neighboring threads copy neighboring numbers.
template <class G, int kWidth, class T>
__device__ void copy_result(const T* p_result, const Output<T>& output, int64_t i, int64_t c) {
  constexpr int kPerLine = G::kColumns / kWidth;
#pragma unroll 1  // unrolled, float64 spilled
  for (int number = threadIdx.x; number < G::kRows * kPerLine; number += G::Share::kThreads) {
    const int line = number / kPerLine, column = number % kPerLine * kWidth;
    if (i + line < output.n && c + column < output.d)
      store<T, kWidth>(output.p_grad + ((i + line) * output.step + c + column),
                       load<T, kWidth>(p_result + (line * G::kStep + column)));
  }
}

// Stores the result of visit(row, column, value) as the gradient, for each number of the block's tile.
template <class G, class T, class Visit>
__device__ void store_result(typename G::Share::Part& sums, unsigned char* memory, const Output<T>& output, int64_t i,
                             int64_t c, const Visit& visit) {
  T* const p_result = reinterpret_cast<T*>(memory);
  __syncthreads();  // the factors must have been read
  sums.each([&](int row, int column, Acc<T>& value) {
    const int r = G::Share::row() + row, k = G::Share::column() + column;
    p_result[r * G::kStep + k] = narrow<T>(visit(r, k, value));
  });
  __syncthreads();
  // Two loops: from two branches in one loop, nvcc made stores of single numbers.
  if (output.is_wide) {
    copy_result<G, G::kWidth>(p_result, output, i, c);
  } else {
    copy_result<G, 1>(p_result, output, i, c);
  }
}

template <class T> constexpr int kPrimalRows = sizeof(T) == 8 ? 64 : 128;

// A block takes kPrimalRows rows and 64 columns, so that up to 128 codes are read once.
template <class T>
__global__ void __launch_bounds__(GradientTile<T, kPrimalRows<T>>::Share::kThreads, 1)
    primal_gradient(Lines<Acc<T>> residual,    // [n, n]: G - diag r
                    Lines<T> code,         // [n, d] with the lengths
                    Output<T> output,      //
                    int64_t column_tiles,  //
                    bool is_exact) {
  using G = GradientTile<T, kPrimalRows<T>>;
  __shared__ __align__(16) unsigned char memory[G::kMemory];
  const int64_t i = blockIdx.x / column_tiles * G::kRows, c = blockIdx.x % column_tiles * G::kColumns;
  typename G::Share::Part sums;
  multiply_lines<G, false>(sums, memory, residual, i, code, c, is_exact);
  const Acc<T> scale = output.scale();
  store_result<G>(sums, memory, output, i, c, [&](int row, int, Acc<T> value) {
    const int64_t r = i + row;
    return r < output.n ? scale * inverse_of(code.p_lengths[r]) * value * code.p_scales[r] : Acc<T>{0};
  });
}

constexpr int kDualRows = 64;

// The factors of the block's rows, in shared memory.
template <class A> struct RowFactors {
  A radial[kDualRows];  // u_i^T E u_i times the scale; it multiplies u_i / scale
  A scale[kDualRows];
};

// Computes the factors from the lanes' parts of u_i^T E u_i / scale: adds the lanes of a row, then the two warps that
// share the row.
template <class G, class T, class A>
__device__ void sum_rows(const A* mine, A (*p_halves)[kDualRows], const Lines<T>& code, int64_t i, RowFactors<A>& to) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    A sum = mine[part];
    sum += __shfl_xor_sync(kEveryLane, sum, 1);
    sum += __shfl_xor_sync(kEveryLane, sum, 2);
    const int row = G::Share::row() + part / 2 * 16 + part % 2 * 8 + lane / 4;
    if (lane % 4 == 0) p_halves[threadIdx.x / kWarp % 2][row] = sum;
  }
  __syncthreads();
  for (int row = threadIdx.x; row < kDualRows; row += blockDim.x) {
    const A scale = i + row < code.lines ? code.p_scales[i + row] : A{1};
    to.scale[row] = scale;
    to.radial[row] = (p_halves[0][row] + p_halves[1][row]) * scale * scale;
  }
  __syncthreads();
}

// A block takes 64 rows and all columns. If the columns are more than one tile, U E is computed twice, the first time
// for u_i^T E u_i.
template <class T>
__global__ void __launch_bounds__(GradientTile<T, kDualRows>::Share::kThreads, 1)
    dual_gradient(Lines<Acc<T>> residual,  // [d, d]: E
                  Lines<T> code,       // [n, d] with the lengths
                  Output<T> output,    //
                  bool is_exact) {
  using A = Acc<T>;
  using G = GradientTile<T, kDualRows>;
  __shared__ __align__(16) unsigned char memory[G::kMemory];
  __shared__ A halves[2][kDualRows];
  __shared__ RowFactors<A> factors;
  const int64_t i = int64_t{blockIdx.x} * kDualRows;
  const auto unit = [&](int row, int64_t column) -> A {  // divided by the scale
    const int64_t r = i + row;
    if (r >= code.lines || column >= code.columns) return 0;
    return widen(code.p_first[r * code.step + column]) * inverse_of(code.p_lengths[r]);
  };
  typename G::Share::Part sums;
  const int lane = threadIdx.x % kWarp;
  A mine[4] = {};  // one sum for each row in which the lane has numbers
  for (int64_t c = 0; c < code.columns; c += G::kColumns) {
    multiply_lines<G, true>(sums, memory, code, i, residual, c, is_exact);
#pragma unroll
    for (int part = 0; part < 4; ++part)
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const int row = G::Share::row() + part / 2 * 16 + part % 2 * 8 + lane / 4;
        const int column = G::Share::column() + n / 2 * 8 + lane % 4 * 2 + n % 2;
        mine[part] += sums.values[part / 2][n / 2][part % 2 * 2 + n % 2] * unit(row, c + column);
      }
  }
  sum_rows<G>(mine, halves, code, i, factors);
  const A scale = output.scale();
  for (int64_t c = 0; c < code.columns; c += G::kColumns) {
    if (code.columns > G::kColumns) multiply_lines<G, true>(sums, memory, code, i, residual, c, is_exact);
    store_result<G>(sums, memory, output, i, c, [&](int row, int column, A value) {
      const A factor = i + row < code.lines ? scale * inverse_of(code.p_lengths[i + row]) : A{0};
      return factor * (value - factors.radial[row] * unit(row, c + column)) * factors.scale[row];
    });
  }
}

}  // namespace ebgan::cuda
