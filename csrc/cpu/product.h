// Register-tiled products over packed panels: C[i][j] = sum_k left[i][k] right[k][j].
#pragma once

#include "pack.h"

namespace EBGAN_ISA {

// A tile of 3 kRowStep rows x 2 vectors leaves room for the operands: it fills 12 of the 16 vector registers of SSE2
// and AVX2, or 24 of the 32 of AVX-512 and NEON. Fewer rows use a tile of 1 or 2 kRowStep.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRowStep = 4;
#else
constexpr int kRowStep = 2;
#endif

// The number of products that are added in one chain. If every sum rounds the same way (codes of one repeated number),
// the error grows with the chain: 60 units in the last place for 256, 15 for 64, at a cost of 3 %.
constexpr int64_t kChain = 64;

// Left operands: row(i)[k * kNext] is element (i, k).
template <class A> struct StripRows {  // the columns of a panel
  const A* panel;
  int64_t depth;
  static constexpr int64_t kNext = kStrip<A>;
  const A* row(int64_t i) const { return panel + i / kStrip<A> * kStrip<A> * depth + i % kStrip<A>; }
};

template <class A> struct PlainRows {
  const A* data;
  int64_t stride;
  static constexpr int64_t kNext = 1;
  const A* row(int64_t i) const { return data + i * stride; }
};

// A block of the result, in A, or in float64 for sums over many depths.
template <class C> struct BlockOf {
  C* data;
  int64_t stride;
  bool add;  // true: add to the block; false: overwrite it

  template <class V> void write(int64_t i, int64_t j, V sum) const {
    C* const to = data + i * stride + j;
    if (add) add_to(to, sum);
    else put_to(to, sum);
  }
};

// Computes rows [i, i + kRows) x the kVectors vectors of columns at `right`, which are columns j of the block. A row
// past `last` repeats row `last`.
template <class Lane, class A, int kRows, int kVectors, class Left, class C>
inline void tile(const Left& left, int64_t i, int64_t last, const A* right, int64_t depth, const BlockOf<C>& c,
                 int64_t j) {
  constexpr int64_t lanes = kLanes<A>;
  const A* row[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) row[r] = left.row(smaller(i + r, last));
  Vector<A> total[kRows][kVectors] = {};
  for (int64_t first = 0; first < depth; first += kChain) {
    const int64_t end = smaller(depth, first + kChain);
    Vector<A> sum[kRows][kVectors] = {};
    for (int64_t k = first; k < end; ++k) {
      Vector<A> b[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) b[v] = load(right + k * kStrip<A> + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const A a = row[r][k * Left::kNext];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) Lane::multiply_add(sum[r][v], a, b[v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) total[r][v] += sum[r][v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    if (i + r > last) break;
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) c.write(i + r, j + v * lanes, total[r][v]);
  }
}

// Computes rows [first, end) of the left operand x one strip (or its half) of the right operand.
template <class Lane, class A, int kVectors, class Left, class C>
inline void tile_column(const Left& left, int64_t first, int64_t end, const A* right, int64_t depth,
                        const BlockOf<C>& c, int64_t j) {
  int64_t i = first;
  for (; end - i > 2 * kRowStep; i += 3 * kRowStep)
    tile<Lane, A, 3 * kRowStep, kVectors>(left, i, end - 1, right, depth, c, j);
  if (end - i > kRowStep) tile<Lane, A, 2 * kRowStep, kVectors>(left, i, end - 1, right, depth, c, j);
  else if (end > i) tile<Lane, A, kRowStep, kVectors>(left, i, end - 1, right, depth, c, j);
}

// Computes rows x cols of C over one depth. `right` is a panel of `cols` columns. C is written in whole strips, so its
// columns beyond `cols` get undefined numbers.
template <class Lane, class A, class Left, class C>
void panel_product(const Left& left, int64_t rows, const A* right, int64_t cols, int64_t depth,
                   const BlockOf<C>& block) {
  for (int64_t j = 0; j < cols; j += kStrip<A>)
    tile_column<Lane, A, 2>(left, 0, rows, right + j * depth, depth, block, j);
}

// Computes the product of a panel with itself. Only elements on and above the diagonal are sure to be written. The
// square of a strip is computed with 2 vectors beside its upper half and 1 beside its lower half: 3/4 of the square,
// where 1/2 is needed.
template <class Lane, class A, class C>
void triangle_product(const A* panel, int64_t cols, int64_t depth, const BlockOf<C>& block) {
  constexpr int64_t lanes = kLanes<A>;
  const StripRows<A> left{panel, depth};
  for (int64_t j = 0; j < cols; j += kStrip<A>) {
    const A* const right = panel + j * depth;
    tile_column<Lane, A, 2>(left, 0, smaller(cols, j + lanes), right, depth, block, j);
    if (j + lanes < cols) tile<Lane, A, lanes, 1>(left, j + lanes, cols - 1, right + lanes, depth, block, j + lanes);
  }
}

}  // namespace EBGAN_ISA
