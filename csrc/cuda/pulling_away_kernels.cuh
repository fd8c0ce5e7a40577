// Kernels for the pulling-away term's value, over the smaller of the two Gram matrices. acc is Acc<T>.
//
// Primal, n <= d: K = S S^T, G = K / (norms norms^T) with a zero diagonal, r_i = sum_j G_ij^2;
//     value = sum_i r_i / (n(n-1)); gram is G - diag r.
// Dual, d < n: E = U^T U - (n'/d) I with U = S / norms, n' the number of nonzero rows, the trace of U^T U;
//     value = (n'(n'-d)/d + sum E^2) / (n(n-1)); gram is E.
// A row of zeros has 1/norm := 0. Counters are zeros, left as zeros.
#pragma once

#include "tiles.cuh"

namespace ebgan::cuda {

constexpr int kGroup = 8;  // partial sums that one block adds up: two levels read 16 tiles in place of 64

// Where the value goes.
template <class A> struct Ending {
  A* p_value;  // []
  A* p_loss;   // [], to which weight * value is added, or null
  Scalar<A> weight;
  int64_t n;

  // By one thread, from the sum over ordered pairs.
  __device__ void store(A sum) const {
    const A pairs = static_cast<A>(n) * static_cast<A>(n - 1);
    const A value = sum / pairs;
    *p_value = value;
    if (p_loss) *p_loss += weight.get() * value;
  }
};

// A Gram matrix in tiles: one triangle of them, each cut along its depth.
struct Cut {
  int64_t side;         // of the matrix
  int64_t depth;        // of the sums
  int64_t split_depth;  // a multiple of the tiles' depth
  int splits;
  int groups;  // of up to kGroup splits
  int tiles;   // on and below the diagonal
};

// Sides of 64 or 128; the numbers that a tile holds at a time in the type that the products take.
template <class T, int kBlock_, bool kDual_> struct GramTile {
  static constexpr bool kDual = kDual_;
  static constexpr int kBlock = kBlock_;
  using S = std::conditional_t<kDual_, Acc<T>, T>;
  static constexpr int kDepth = 128 / sizeof(S);
  using Share = Shares<Acc<T>, kBlock_, kBlock_>;
  using Memory = std::conditional_t<kDual_, Tile<S, kDepth, kBlock_, false>, Tile<S, kBlock_, kDepth, true>>;
  using Fetch = Fetched<T, Memory, Share::kThreads, kDual_>;
};

// [kBlock, depth] of S, or dual of U^T, at matrix row `row`.
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

// The product of rows i.. and j.. over one split's depth.
template <class G, class T>
__device__ void multiply_split(typename G::Share::Part& sums, const Lines<T>& code, int64_t i, int64_t j, int64_t begin,
                               int64_t end, bool is_exact) {
  __shared__ __align__(16) unsigned char memory[2][G::Memory::kSize * sizeof(typename G::S)];
  using S = typename G::S;
  const bool is_diagonal = i == j;  // both factors are the same
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
    __syncthreads();  // the tile before has been read
    next_left.put(left.p_numbers);
    if (!is_diagonal) next_right.put(right.p_numbers);
    __syncthreads();
    if (k + G::kDepth < end) fetch(k + G::kDepth);
    add_product(sums, left.factor().from(G::Share::row()), right.factor().from(G::Share::column()), G::kDepth, is_exact);
  }
}

// Sums that `count` blocks left in slots `step` apart, added in their order.
template <class Part, class A, int kThreads> __device__ void add_slots(Part& sums, const A* p_slots, int step, int count) {
  constexpr int kNumbers = sizeof(Part) / sizeof(A);
  A* const mine = &sums.values[0][0][0];
  sums.clear();
  for (int slot = 0; slot < count; ++slot) {
    const A* const p_from = p_slots + int64_t{slot} * step * (kNumbers * kThreads) + threadIdx.x;
#pragma unroll
    for (int e = 0; e < kNumbers; ++e) mine[e] += p_from[e * kThreads];
  }
}

template <class Part, class A, int kThreads> __device__ void store_slot(const Part& sums, A* p_slot) {
  constexpr int kNumbers = sizeof(Part) / sizeof(A);
  const A* const mine = &sums.values[0][0][0];
#pragma unroll
  for (int e = 0; e < kNumbers; ++e) p_slot[e * kThreads + threadIdx.x] = mine[e];
}

// Adds up the splits of a tile, by groups. True for the block that then holds the whole tile.
template <class Part, class A, int kThreads>
__device__ bool gather_splits(Part& sums, A* p_slots, int32_t* p_groups, int32_t* p_tile, int split, const Cut& cut) {
  constexpr int kSlot = sizeof(Part) / sizeof(A) * kThreads;
  if (cut.splits == 1) return true;
  const int group = split / kGroup, first = group * kGroup;
  const int members = cut.splits - first < kGroup ? cut.splits - first : kGroup;
  store_slot<Part, A, kThreads>(sums, p_slots + int64_t{split} * kSlot);
  if (!arrives_last(p_groups + group, members)) return false;
  add_slots<Part, A, kThreads>(sums, p_slots + int64_t{first} * kSlot, 1, members);
  if (cut.groups == 1) return true;
  store_slot<Part, A, kThreads>(sums, p_slots + int64_t{first} * kSlot);
  if (!arrives_last(p_tile, cut.groups)) return false;
  add_slots<Part, A, kThreads>(sums, p_slots, kGroup, cut.groups);
  return true;
}

// A row of K divided by its norms: returns r, and leaves the row of gram. By a whole warp.
template <class A> __device__ A finish_row(A* p_row, const A* p_norms, int64_t row, int64_t n) {
  const int lane = threadIdx.x % kWarp;
  const A mine = inverse_of(p_norms[row]);
  A sum = 0;
  for (int64_t column = lane; column < n; column += kWarp) {
    const A cosine = column == row ? A{0} : p_row[column] * mine * inverse_of(p_norms[column]);
    sum += cosine * cosine;
    if (column != row) p_row[column] = cosine;
  }
  sum = sum_of_warp(sum);
  if (lane == row % kWarp) p_row[row] = -sum;
  return sum;
}

// Rows first, first + step, ... by each warp in turn; the sum of their r in every thread.
template <class A> __device__ A finish_rows_of_block(A* p_gram, const A* p_norms, int64_t first, int64_t last, int64_t n) {
  const int warps = blockDim.x / kWarp;
  A sum = 0;
  for (int64_t row = first + threadIdx.x / kWarp; row < last; row += warps)
    sum += finish_row(p_gram + row * n, p_norms, row, n);
  return sum_of_block(threadIdx.x % kWarp == 0 ? sum : A{0});
}

// How many norms are not zero; in every thread.
template <class A> __device__ A nonzero_of(const A* p_norms, int64_t n) {
  A count = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) count += p_norms[i] == 0 ? A{0} : A{1};
  return sum_of_block(count);
}

// The values of a tile at rows i.. and columns j.. of the matrix, and off the diagonal tiles their mirror image.
template <class Share, class A>
__device__ void store_mirrored(typename Share::Part& sums, A* p_gram, int64_t side, int64_t i, int64_t j) {
  sums.each([&](int row, int column, A& value) {
    const int64_t r = i + Share::row() + row, c = j + Share::column() + column;
    if (r >= side || c >= side) return;
    p_gram[r * side + c] = value;
    if (i != j) p_gram[c * side + r] = value;
  });
}

template <class Share, class A>
__device__ void finish_primal_tile(typename Share::Part& sums, A* p_norms, A* p_gram, int64_t i, int64_t j, int64_t n) {
  store_mirrored<Share>(sums, p_gram, n, i, j);
  sums.each([&](int row, int column, A& value) {
    const int64_t r = i + Share::row() + row, c = j + Share::column() + column;
    if (r == c && r < n) p_norms[r] = sqrt(value);
  });
}

// From U^T U to E; returns the sum of its squares, mirror image included, in every thread.
template <class Share, class A>
__device__ A finish_dual_tile(typename Share::Part& sums, A* p_gram, A share, int64_t i, int64_t j, int64_t d) {
  A squares = 0;
  sums.each([&](int row, int column, A& value) {
    const int64_t r = i + Share::row() + row, c = j + Share::column() + column;
    if (r == c && r < d) value -= share;
    squares += value * value;
  });
  store_mirrored<Share>(sums, p_gram, d, i, j);
  const A sum = sum_of_block(squares);
  return i == j ? sum : 2 * sum;
}

// The row of the tile-th tile, counted row by row on and below the diagonal.
__device__ inline int row_of_triangle(int tile) {
  int row = static_cast<int>((sqrtf(8.0f * static_cast<float>(tile) + 1.0f) - 1.0f) / 2.0f);
  while (int64_t{row} * (row + 1) / 2 > tile) --row;  // the root may round either way
  while (int64_t{row + 1} * (row + 2) / 2 <= tile) ++row;
  return row;
}

// One triangle of S S^T or U^T U, sums added in a fixed order; the last block of a tile finishes it. For a single tile
// and for the dual form that is all: norms, gram and value are done in this launch. A primal matrix of many tiles is
// left as K, with the norms, for finish_rows.
template <class T, int kBlock, bool kDual>
__global__ void __launch_bounds__(Shares<Acc<T>, kBlock, kBlock>::kThreads, 1)
    gram_matrix(Lines<T> code,          // [n, d]; dual with the norms
                Acc<T>* p_norms,        // [n]: written (primal) or read (dual)
                Acc<T>* p_gram,         // [side, side]
                Acc<T>* p_partials,     // [tiles, splits, kBlock, kBlock] and dual [tiles]
                int32_t* p_counters,    // [tiles * groups + tiles + 1]
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
  A* const p_slots = p_partials + int64_t{tile} * cut.splits * (kBlock * kBlock);
  if (!gather_splits<typename Share::Part, A, Share::kThreads>(sums, p_slots, p_counters + tile * cut.groups,
                                                               p_counters + cut.tiles * cut.groups + tile, split, cut))
    return;
  if constexpr (kDual) {
    const A trace = nonzero_of(p_norms, ending.n), side = static_cast<A>(cut.side);
    const A squares = finish_dual_tile<Share>(sums, p_gram, trace / side, i, j, cut.side);
    A* const p_tile_sums = p_partials + int64_t{cut.tiles} * cut.splits * (kBlock * kBlock);
    if (threadIdx.x == 0) p_tile_sums[tile] = squares;
    if (!arrives_last(p_counters + cut.tiles * cut.groups + cut.tiles, cut.tiles)) return;
    A sum = 0;
    for (int t = threadIdx.x; t < cut.tiles; t += blockDim.x) sum += p_tile_sums[t];
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) ending.store(trace * (trace - side) / side + sum);
  } else {
    finish_primal_tile<Share>(sums, p_norms, p_gram, i, j, cut.side);
    if (cut.tiles > 1) return;
    __syncthreads();  // all of K and the norms, before they are read
    const A sum = finish_rows_of_block(p_gram, p_norms, 0, cut.side, cut.side);
    if (threadIdx.x == 0) ending.store(sum);
  }
}

constexpr int kRowsOfBlock = 8;
constexpr int kFinishThreads = kRowsOfBlock * kWarp;

// The end of the primal form: from K and the norms to gram and value, a warp for each row.
template <class A>
__global__ void __launch_bounds__(kFinishThreads)
    finish_rows(const A* p_norms,     // [n]
                A* p_gram,            // [n, n]: K, overwritten with G - diag r
                A* p_block_sums,      // [blocks]
                int32_t* p_counter,   // [1]
                int64_t n,            //
                Ending<A> ending) {
  const int64_t first = int64_t{blockIdx.x} * kRowsOfBlock, last = first + kRowsOfBlock < n ? first + kRowsOfBlock : n;
  const A mine = finish_rows_of_block(p_gram, p_norms, first, last, n);
  if (threadIdx.x == 0) p_block_sums[blockIdx.x] = mine;
  if (!arrives_last(p_counter, gridDim.x)) return;
  A sum = 0;
  for (unsigned block = threadIdx.x; block < gridDim.x; block += blockDim.x) sum += p_block_sums[block];
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) ending.store(sum);
}

// The lengths of the codes, a warp for each.
template <class T>
__global__ void __launch_bounds__(kFinishThreads)
    row_norms(Lines<T> code,  // [n, d]
              Acc<T>* p_norms) {
  const int64_t row = int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.x / kWarp;
  if (row >= code.lines) return;
  const T* const p_row = code.p_first + row * code.step;
  Acc<T> squares = 0;
  for (int64_t column = threadIdx.x % kWarp; column < code.columns; column += kWarp) {
    const Acc<T> value = widen(p_row[column]);
    squares += value * value;
  }
  squares = sum_of_warp(squares);
  if (threadIdx.x % kWarp == 0) p_norms[row] = sqrt(squares);
}

}  // namespace ebgan::cuda
