// Register-tiled product over packed panels: C[i][j] = sum_k L[k][i] R[k][j].
#pragma once

#include "convert.h"

namespace EBGAN_ISA {

// 6 rows x 2 vectors fill 12 of the 16 vector registers of SSE2 and AVX2 and leave room for the operands.
constexpr int kTileRows = 6;
template <class A> constexpr int kTileCols = 2 * kLanes<A>;
constexpr int64_t kBlock = 96;   // a multiple of every tile side; a block of C is 96 x 96
constexpr int64_t kDepth = 128;  // products added in A before they move to float64, which bounds the rounding error

// An operand is read through one of these: strip() writes out[k][c] = operand(k0 + k, c0 + c) for k < depth and
// c < width, with 0 for columns beyond the operand's end.

// Row-major rows of T seen with k along the rows: operand(k, c) = data[k][c] * scale[k]; no scale means 1.
template <class T> struct RowsAsDepth {
  using A = Accumulator<T>;
  const T* data;
  int64_t stride;
  int64_t cols;
  const A* scale;

  void strip(A* out, int width, int64_t k0, int64_t depth, int64_t c0) const {
    constexpr int64_t lanes = kLanes<A>;
    for (int64_t k = 0; k < depth; ++k) {
      const T* const from = data + (k0 + k) * stride + c0;
      const Vector<A> factor = broadcast(scale ? scale[k0 + k] : A{1});
      // Whole vectors, though they may run past `width` into the next k, whose turn comes later (see Workspace).
      for (int64_t c = 0; c < width; c += lanes) {
        const int64_t left = cols - c0 - c;
        store(out + k * width + c, (left > 0 ? load_up_to(from + c, left) : Vector<A>{}) * factor);
      }
    }
  }
};

// Row-major rows of T seen with k along their elements: operand(k, c) = data[c][k] * scale[c]; no scale means 1.
template <class T> struct RowsAsColumns {
  using A = Accumulator<T>;
  const T* data;
  int64_t stride;
  int64_t rows;
  const A* scale;

  void strip(A* out, int width, int64_t k0, int64_t depth, int64_t c0) const {
    constexpr int64_t lanes = kLanes<A>;
    for (int64_t c = 0; c < width; ++c) {
      A* const to = out + c;
      if (c0 + c >= rows) {
        for (int64_t k = 0; k < depth; ++k) to[k * width] = 0;
        continue;
      }
      const T* const from = data + (c0 + c) * stride + k0;
      const Vector<A> factor = broadcast(scale ? scale[c0 + c] : A{1});
      int64_t k = 0;
      for (; k + lanes <= depth; k += lanes) {
        const Vector<A> v = load(from + k) * factor;
        for (int64_t l = 0; l < lanes; ++l) to[(k + l) * width] = v[l];
      }
      if (k < depth) {
        const Vector<A> v = load_partial(from + k, depth - k) * factor;
        for (int64_t l = 0; k + l < depth; ++l) to[(k + l) * width] = v[l];
      }
    }
  }
};

// One thread's scratch: packed panels of both operands, each with room for a last vector that runs over, and a block of
// C in float64.
template <class A> struct Workspace {
  static constexpr int64_t kPanel = kDepth * kBlock + 64;

  explicit Workspace(int members) : panels_(2 * kPanel * members), blocks_(kBlock * kBlock * members) {}
  A* left(int member) const { return panels_.data() + 2 * kPanel * member; }
  A* right(int member) const { return left(member) + kPanel; }
  double* block(int member) const { return blocks_.data() + kBlock * kBlock * member; }

 private:
  Buffer<A> panels_;
  Buffer<double> blocks_;
};

template <class A> inline void add_to(double* to, Vector<A> v) {
  for (int l = 0; l < kLanes<A>; ++l) to[l] += static_cast<double>(v[l]);
}

// c[6][tile cols] += left strip . right strip; the rows of c are kBlock apart.
template <class A> inline void tile(const A* left, const A* right, int64_t depth, double* c) {
  constexpr int lanes = kLanes<A>;
  Vector<A> sum[kTileRows][2] = {};
  for (int64_t k = 0; k < depth; ++k) {
    const Vector<A> right0 = load(right), right1 = load(right + lanes);
#pragma GCC unroll 6
    for (int i = 0; i < kTileRows; ++i) {
      sum[i][0] += left[i] * right0;
      sum[i][1] += left[i] * right1;
    }
    left += kTileRows;
    right += kTileCols<A>;
  }
#pragma GCC unroll 6
  for (int i = 0; i < kTileRows; ++i) {
    add_to<A>(c + i * kBlock, sum[i][0]);
    add_to<A>(c + i * kBlock + lanes, sum[i][1]);
  }
}

// c[kBlock][kBlock] = the block of C at (i0, j0), rows x cols of it valid, summed over k in [k0, k1).
// With upper_only, tiles wholly below the diagonal of the block are left 0.
template <class A, class Left, class Right>
void block_product(const Left& left, int64_t i0, int64_t rows, const Right& right, int64_t j0, int64_t cols,
                   int64_t k0, int64_t k1, bool upper_only, A* left_panel, A* right_panel, double* c) {
  constexpr int tile_cols = kTileCols<A>;
  for (int64_t e = 0; e < kBlock * kBlock; ++e) c[e] = 0;
  for (int64_t k = k0; k < k1; k += kDepth) {
    const int64_t depth = smaller(kDepth, k1 - k);
    for (int64_t i = 0; i < rows; i += kTileRows) left.strip(left_panel + i * depth, kTileRows, k, depth, i0 + i);
    for (int64_t j = 0; j < cols; j += tile_cols) right.strip(right_panel + j * depth, tile_cols, k, depth, j0 + j);
    for (int64_t j = 0; j < cols; j += tile_cols)
      for (int64_t i = 0; i < rows && !(upper_only && i >= j + tile_cols); i += kTileRows)
        tile<A>(left_panel + i * depth, right_panel + j * depth, depth, c + i * kBlock + j);
  }
}

}  // namespace EBGAN_ISA
