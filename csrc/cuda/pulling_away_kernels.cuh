// Kernels for the value of the pulling-away term, computed from the smaller of the two Gram matrices. acc is Acc<T>.
//
// Primal, n <= d: K = S S^T, G = K / (lengths lengths^T) with a zero diagonal, r_i = sum_j G_ij^2;
//     value = sum_i r_i / (n(n-1)); residual is G - diag r.
// Dual, d < n: E = U^T U - (n'/d) I with U = S / lengths, n' the number of nonzero rows, the trace of U^T U;
//     value = (n'(n'-d)/d + sum E^2) / (n(n-1)); residual is E.
// A row of zeros has 1/length := 0. Counters are zeros, and a kernel leaves them as zeros. Rows whose squares leave the
// range of acc are first multiplied by a power of two (../row_scale.h). In the dual form, row_lengths chooses
// the power. For the primal form, see out_of_range.cuh.
#pragma once

#include "out_of_range.cuh"

namespace ebgan::cuda {

// The destination of the value.
template <class A> struct Ending {
  A* p_value;  // []
  A* p_loss;   // [], to which weight * value is added, or null
  Scalar<A> weight;
  int64_t n;

  // Stores the value, given the sum over ordered pairs. One thread calls this.
  __device__ void store(A sum) const {
    const A pairs = static_cast<A>(n) * static_cast<A>(n - 1);
    const A value = sum / pairs;
    *p_value = value;
    if (p_loss) *p_loss += weight.get() * value;
  }
};

// The cut of a Gram matrix into one triangle of tiles, each cut along its depth.
struct Cut {
  int64_t side;         // of the matrix
  int64_t depth;        // of the sums
  int64_t split_depth;  // a multiple of the tiles' depth
  int splits;
  int tiles;  // on and below the diagonal

  __host__ __device__ bool is_alone() const { return tiles == 1 && splits == 1; }  // one block computes it all
};

// The results of gram_matrix for finish_rows, and the results of finish_rows.
template <class A> struct Matrix {
  A* p_products;  // [splits, side, side]: each split's part of the Gram matrix; with one split, p_residual
  A* p_squares;   // primal [splits, n]: squares of the lengths; dual [splits]: the numbers of nonzero lengths
  A* p_lengths;   // [2, n], lengths of the scaled rows, and the scales: written (primal) or read (dual)
  A* p_residual;  // [side, side]
  A* p_row_sums;  // [side], sums of the squares of residual
  int64_t side;
  int splits;
};

// The tiles of a Gram matrix, with sides of 64 or 128. They hold numbers in the type that the products take.
template <class T, int kBlock_, bool kDual_> struct GramTile {
  static constexpr bool kDual = kDual_;
  static constexpr int kBlock = kBlock_;
  using S = std::conditional_t<kDual_, Acc<T>, T>;
  static constexpr int kDepth = 128 / sizeof(S);
  using Share = Shares<Acc<T>, kBlock_, kBlock_>;
  using Memory = std::conditional_t<kDual_, Tile<S, kDepth, kBlock_, false>, Tile<S, kBlock_, kDepth, true>>;
  using Fetch = Fetched<T, Memory, Share::kThreads, kDual_>;
};

// Fetches [kBlock, depth] of S, or in dual of U^T, from row `row` of the matrix on.
template <class G, class T>
__device__ void fetch_factor(typename G::Fetch& fetched, const Lines<T>& code, int64_t row, int64_t k, int64_t end) {
  if constexpr (G::kDual) {
    Lines<T> samples = code;
    samples.lines = end;
    fetched.fetch(samples, k, row, code.columns);
  } else {
    fetched.fetch(code, row, k, end);
  }
}

template <class G, class T>
__device__ void put_factor(const typename G::Fetch& fetched, const typename G::Memory& to, const Lines<T>& code,
                           int64_t row, int64_t k) {
  fetched.put(to.p_numbers, code, G::kDual ? k : row);
}

// Computes the product of rows i.. and j.. over one split's depth.
template <class G, class T>
__device__ void multiply_split(typename G::Share::Part& sums, const Lines<T>& code, int64_t i, int64_t j, int64_t begin,
                               int64_t end, bool is_exact) {
  __shared__ __align__(16) unsigned char memory[2][G::Memory::kSize * sizeof(typename G::S)];
  using S = typename G::S;
  const bool is_diagonal = i == j;  // both factors are then equal
  const typename G::Memory left{reinterpret_cast<S*>(memory[0])};
  const typename G::Memory right{is_diagonal ? left.p_numbers : reinterpret_cast<S*>(memory[1])};
  typename G::Fetch next_left, next_right;
  const auto fetch = [&](int64_t k) {
    fetch_factor<G>(next_left, code, i, k, end);
    if (!is_diagonal) fetch_factor<G>(next_right, code, j, k, end);
  };
  sums.clear();
  fetch(begin);
  for (int64_t k = begin; k < end; k += G::kDepth) {
    __syncthreads();  // the previous tile must have been read
    put_factor<G>(next_left, left, code, i, k);
    if (!is_diagonal) put_factor<G>(next_right, right, code, j, k);
    __syncthreads();
    if (k + G::kDepth < end) fetch(k + G::kDepth);
    add_product(sums, left.factor().from(G::Share::row()), right.factor().from(G::Share::column()), G::kDepth, is_exact);
  }
}

// Returns the number of lengths that are not zero, in every thread.
template <class A> __device__ A nonzero_of(const A* p_lengths, int64_t n) {
  A count = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) count += p_lengths[i] == 0 ? A{0} : A{1};
  return sum_of_block(count);
}

// Stores a tile at rows i.. and columns j.. of the matrix, and its mirror image. A tile on the diagonal equals its
// mirror image, and only the mirror image is stored: eight lanes then fill each memory sector. In the tile's own order,
// four lanes would write every other number of a sector.
template <class Share, class A>
__device__ void store_mirrored(typename Share::Part& sums, A* p_matrix, int64_t side, int64_t i, int64_t j) {
  sums.each([&](int row, int column, A& value) {
    const int64_t r = i + Share::row() + row, c = j + Share::column() + column;
    if (r >= side || c >= side) return;
    p_matrix[c * side + r] = value;
    if (i != j) p_matrix[r * side + c] = value;
  });
}

// Stores the squares of the lengths, from a tile on the diagonal. Returns true if one of the warp's squares is 0.
template <class Share, class A>
__device__ bool store_squares(typename Share::Part& sums, A* p_squares, int64_t side, int64_t i) {
  bool has_zero = false;
  sums.each([&](int row, int column, A& value) {
    const int r = Share::row() + row, c = Share::column() + column;
    if (r != c || i + r >= side) return;
    p_squares[i + r] = value;
    has_zero |= value == 0;
  });
  return __any_sync(kEveryLane, has_zero);
}

// Returns the row of tile number `tile`. Tiles on and below the diagonal are numbered row by row.
__device__ inline int row_of_triangle(int tile) {
  int row = static_cast<int>((sqrtf(8.0f * static_cast<float>(tile) + 1.0f) - 1.0f) / 2.0f);
  while (int64_t{row} * (row + 1) / 2 > tile) --row;  // the root may be rounded up or down
  while (int64_t{row + 1} * (row + 2) / 2 <= tile) ++row;
  return row;
}

constexpr int kPerLane = 4;
constexpr int kChunk = kPerLane * kWarp;  // columns finished at a time

// Adds the results of every `stride`-th split from `split` on, at a warp's columns. The columns of a lane are kWarp
// apart.
template <class A>
__device__ void add_splits(A (&sums)[kPerLane], const A* p_first, int64_t step, int split, int stride, int splits,
                           int64_t columns) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll 8
  for (; split < splits; split += stride) {
    const A* const p = p_first + split * step;
#pragma unroll
    for (int e = 0; e < kPerLane; ++e)
      if (lane + e * kWarp < columns) sums[e] += p[lane + e * kWarp];
  }
}

// Returns the sum of all splits at one place, in every lane.
template <class A> __device__ A sum_of_splits(const A* p_first, int64_t step, int splits) {
  A sum = 0;
  for (int split = threadIdx.x % kWarp; split < splits; split += kWarp) sum += p_first[split * step];
  return sum_of_warp(sum);
}

// Replaces the row's products with the rows c.. by cosines where a row is out of range (are_apart). A warp calls this.
template <class T>
__device__ void put_cosines(Acc<T>* p_products, const Lines<T>& code, int64_t row, int64_t c, Acc<T> mine,
                            const Acc<T>* p_inverses) {
#pragma unroll 1
  for (int k = 0; k < kChunk && c + k < code.lines; ++k) {
    if (c + k == row || !are_apart(mine, p_inverses[k])) continue;
    const double value = cosine(code, row, c + k);
    if (threadIdx.x % kWarp == 0) p_products[k] = static_cast<Acc<T>>(value);
  }
  __syncwarp();  // all cosines must be stored before others read them
}

// Finishes kRows rows of residual from row `first` on, with their lengths and the sums of their squares. kWarps / kRows
// warps share the splits of a row. The sums of all splits are added in a fixed order. In dual, the code is not read.
template <int kWarps, int kRows, bool kDual, class T, class A>
__device__ void finish_rows_of_block(const Lines<T>& code, const Matrix<A>& to, int64_t first) {
  constexpr int kShares = kWarps / kRows;
  __shared__ A products[kWarps][kChunk], squares[kDual ? 1 : kWarps][kChunk], inverses[kDual ? 1 : kChunk];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, share = warp % kShares;
  const int64_t row = first + warp / kShares, side = to.side;
  const bool is_inside = row < side;
  A mine = 0, isotropic = 0;
  if constexpr (kDual) {
    isotropic = sum_of_splits(to.p_squares, 1, to.splits) / static_cast<A>(side);
  } else if (is_inside) {
    A length = sqrt(sum_of_splits(to.p_squares + row, side, to.splits)), scale = 1;
    mine = inverse_in_range(length);
    if (mine < 0) {
      const ScaledLength it = scaled_length(code, row);
      length = static_cast<A>(it.length), scale = static_cast<A>(it.scale);
      if (length != length) mine = length;
    }
    if (share == 0 && lane == 0) {
      to.p_lengths[row] = length;
      to.p_lengths[side + row] = scale;
    }
  }
  A row_sum = 0;
  for (int64_t c = 0; c < side; c += kChunk) {
    const int64_t columns = side - c;
    A product[kPerLane] = {}, square[kPerLane] = {};
    if (is_inside) add_splits(product, to.p_products + row * side + c, side * side, share, kShares, to.splits, columns);
    if constexpr (!kDual) add_splits(square, to.p_squares + c, side, warp, kWarps, to.splits, columns);
    __syncthreads();  // the previous chunk must have been read
#pragma unroll
    for (int e = 0; e < kPerLane; ++e) {
      products[warp][lane + e * kWarp] = product[e];
      if constexpr (!kDual) squares[warp][lane + e * kWarp] = square[e];
    }
    __syncthreads();
    if constexpr (!kDual) {
      for (int k = threadIdx.x; k < kChunk; k += blockDim.x) {
        A sum = 0;
        for (int w = 0; w < kWarps; ++w) sum += squares[w][k];
        const A length = sqrt(sum);  // limits the root to A's range: in C++ it is a float64
        inverses[k] = inverse_in_range(length);
      }
      __syncthreads();
    }
    if (share > 0 || !is_inside) continue;
    if constexpr (!kDual) {
      bool is_apart = false;
#pragma unroll
      for (int e = 0; e < kPerLane; ++e) is_apart |= are_apart(mine, inverses[lane + e * kWarp]);
      if (__any_sync(kEveryLane, is_apart)) put_cosines(products[warp], code, row, c, mine, inverses);
    }
#pragma unroll
    for (int e = 0; e < kPerLane; ++e) {
      const int k = lane + e * kWarp;
      if (k >= columns) continue;
      A value = 0;
      for (int s = 0; s < kShares; ++s) value += products[warp + s][k];
      const bool is_diagonal = c + k == row;
      if constexpr (kDual) {
        if (is_diagonal) value -= isotropic;
      } else {
        value = are_apart(mine, inverses[k]) ? products[warp][k] : value * mine * inverses[k];
        if (is_diagonal) value = 0;
      }
      row_sum += value * value;
      if (kDual || !is_diagonal) to.p_residual[row * side + c + k] = value;
    }
  }
  if (share > 0 || !is_inside) return;
  row_sum = sum_of_warp(row_sum);
  if (lane > 0) return;
  to.p_row_sums[row] = row_sum;
  if (!kDual) to.p_residual[row * side + row] = -row_sum;
}

// Computes and stores the value from the sums of all rows. A whole block calls this.
template <bool kDual, class A> __device__ void store_value(const Matrix<A>& from, const Ending<A>& ending) {
  A sum = 0;
  for (int64_t row = threadIdx.x; row < from.side; row += blockDim.x) sum += from.p_row_sums[row];
  sum = sum_of_block(sum);
  if constexpr (kDual) {
    const A trace = sum_of_splits(from.p_squares, 1, from.splits), side = static_cast<A>(from.side);
    sum += trace * (trace - side) / side;
  }
  if (threadIdx.x == 0) ending.store(sum);
}

// Computes a tile of S S^T or U^T U for one split of its depth, and stores it in the split's own matrix. Only one
// triangle of tiles is computed, and then mirrored. finish_rows adds up the splits and does the rest. A block that is
// alone computes the whole matrix and finishes it itself: a second launch would take longer than its work for so few
// numbers.
template <class T, int kBlock, bool kDual>
__global__ void __launch_bounds__(Shares<Acc<T>, kBlock, kBlock>::kThreads, 1)
    gram_matrix(Lines<T> code,          // [n, d]; dual with the lengths
                Matrix<Acc<T>> to,      //
                Cut cut,                //
                Ending<Acc<T>> ending,  //
                bool is_exact) {
  using A = Acc<T>;
  using G = GramTile<T, kBlock, kDual>;
  using Share = typename G::Share;
  const int tile = blockIdx.x / cut.splits, split = blockIdx.x % cut.splits, row = row_of_triangle(tile);
  const int64_t i = int64_t{row} * kBlock, j = (tile - int64_t{row} * (row + 1) / 2) * kBlock;
  const int64_t begin = split * cut.split_depth;
  const int64_t end = begin + cut.split_depth < cut.depth ? begin + cut.split_depth : cut.depth;
  typename Share::Part sums;
  multiply_split<G>(sums, code, i, j, begin, end, is_exact);
  store_mirrored<Share>(sums, to.p_products + split * cut.side * cut.side, cut.side, i, j);
  if constexpr (kDual) {
    if (tile == 0) {
      const A nonzero = nonzero_of(to.p_lengths + begin, end - begin);
      if (threadIdx.x == 0) to.p_squares[split] = nonzero;
    }
  } else if (i == j) {
    A* const p_squares = to.p_squares + split * cut.side;
    if (store_squares<Share>(sums, p_squares, cut.side, i)) {
      const int64_t first = (end - 1) / cut.split_depth * cut.split_depth;  // `begin` again; to keep it costs registers
      tell_vanished(code, i + Share::row(), Share::kWarpRows, first, end, p_squares);
    }
  }
  if (!cut.is_alone()) return;
  constexpr int kWarps = Share::kThreads / kWarp;
  __syncthreads();  // the whole matrix must be stored before it is read
  for (int64_t first = 0; first < cut.side; first += kWarps)
    finish_rows_of_block<kWarps, kWarps, kDual>(code, to, first);
  __syncthreads();  // every row's sum must be stored before it is read
  store_value<kDual>(to, ending);
}

constexpr int kRowsOfBlock = 8;
constexpr int kFinishThreads = kRowsOfBlock * kWarp;
constexpr int kFinishedRows = 2;  // with fewer rows, more blocks read all the lengths

// Finishes residual and the lengths, kFinishedRows rows per block. The last block to finish computes the value. With
// kDual the code is not read, and T is acc.
template <class T, bool kDual>
__global__ void __launch_bounds__(kFinishThreads, 2)  // without the 2, nvcc spilled to have 64 registers
    finish_rows(Lines<T> code,       // [n, d]
                Matrix<Acc<T>> to,   //
                int32_t* p_counter,  // [1]
                Ending<Acc<T>> ending) {
  constexpr int kWarps = kFinishThreads / kWarp;
  finish_rows_of_block<kWarps, kFinishedRows, kDual>(code, to, int64_t{blockIdx.x} * kFinishedRows);
  if (arrives_last(p_counter, gridDim.x)) store_value<kDual>(to, ending);
}

// Returns the length of a row times `scale`. A warp calls this.
template <class T> __device__ Acc<T> length_of_row(const T* p_row, int64_t columns, Acc<T> scale) {
  Acc<T> squares = 0;
  for (int64_t column = threadIdx.x % kWarp; column < columns; column += kWarp) {
    const Acc<T> value = widen(p_row[column]) * scale;
    squares += value * value;
  }
  return sqrt(sum_of_warp(squares));
}

// Computes the lengths of the scaled codes, and the scales, with a warp for each code. A row that is out of range, or
// zeros, is read twice.
template <class T>
__global__ void __launch_bounds__(kFinishThreads)
    row_lengths(Lines<T> code,  // [n, d]
                Acc<T>* p_lengths) {  // [2, n]
  const int64_t row = int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.x / kWarp;
  if (row >= code.lines) return;
  const T* const p_row = code.p_first + row * code.step;
  Acc<T> length = length_of_row(p_row, code.columns, Acc<T>{1});
  const Acc<T> scale = scale_of(length);
  if (scale != 1) length = length_of_row(p_row, code.columns, scale);
  if (threadIdx.x % kWarp > 0) return;
  p_lengths[row] = length;
  p_lengths[code.lines + row] = length == 0 ? Acc<T>{1} : scale;  // for a row of zeros 1 saves Fetched a second load
}

}  // namespace ebgan::cuda
