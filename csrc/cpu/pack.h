// Copies operands into panels of the accumulation type, in the order in which the micro-kernel reads them.
#pragma once

#include "lane.h"
#include "transpose.h"
#include "widen.h"

namespace EBGAN_ISA {

constexpr int64_t kBlock = 128;  // rows and columns of a block of the result; a multiple of every strip and tile
constexpr int64_t kDepth = 256;  // depth of a panel: two panels fit the L2 cache

// A panel is a row of strips. A strip is [depth][kStrip] and holds kStrip columns of an operand.
template <class A> constexpr int64_t kStrip = 2 * kLanes<A>;

// An operand whose k counts the row-major rows: operand(k, c) = data[k][c] * scale[k]. No scale means 1.
template <class T> struct RowsAsDepth {
  using A = Accumulator<T>;
  using Lane = Widened<A>;
  const T* data;
  int64_t stride;
  const A* scale;

  // Columns beyond c0 + cols are 0.
  void pack(A* panel, int64_t k0, int64_t depth, int64_t c0, int64_t cols) const {
    constexpr int64_t lanes = kLanes<A>, width = kStrip<A>;
    for (int64_t k = 0; k < depth; ++k) {
      const T* const from = data + (k0 + k) * stride + c0;
      const Vector<A> factor = broadcast(scale ? scale[k0 + k] : A{1});
      A* to = panel + k * width;
      int64_t c = 0;
      for (; c + width <= cols; c += width, to += width * depth) {
        store(to, load(from + c) * factor);
        store(to + lanes, load(from + c + lanes) * factor);
      }
      if (c < cols) {
        store(to, load_up_to(from + c, cols - c) * factor);
        store(to + lanes, cols - c > lanes ? load_up_to(from + c + lanes, cols - c - lanes) * factor : Vector<A>{});
      }
    }
  }
};

// An operand whose k counts the lanes along row-major rows: operand(k, c) = data[c][k].
template <class T> struct RowsAsColumns {
  using A = Accumulator<T>;
  using Lane = typename LaneOf<T>::type;
  const T* data;
  int64_t stride;
  int64_t elements;  // of a row

  // Columns beyond c0 + cols are 0. Every column's sum of squares is added to `squares` [cols rounded up to whole
  // vectors], if it is given. The sum has four chains of kDepth / 4 each, as long as those of the products.
  void pack(A* panel, int64_t k0, int64_t depth, int64_t c0, int64_t cols, double* squares = nullptr) const {
    constexpr int64_t lanes = kLanes<A>, width = kStrip<A>;
    static const T nothing[kDepth * Lane::kElements] = {};
    const int64_t first = k0 * Lane::kElements, count = smaller(depth * Lane::kElements, elements - first);
    for (int64_t c = 0; c < cols; c += lanes) {
      const T* row[lanes];
      for (int64_t l = 0; l < lanes; ++l) row[l] = c + l < cols ? data + (c0 + c + l) * stride + first : nothing;
      A* const to = panel + c / width * width * depth + c % width;
      Vector<A> chains[4] = {};
      const auto write = [&](Vector<A>(&square)[lanes], int64_t k) {
        transpose<A>(square);
        for (int64_t l = 0; l < smaller(lanes, depth - k); ++l) store(to + (k + l) * width, square[l]);
        for (int64_t l = 0; l < lanes; ++l) Lane::multiply_add(chains[l % 4], square[l], square[l]);
      };
      int64_t k = 0;
      for (; (k + lanes) * Lane::kElements <= count; k += lanes) {
        Vector<A> square[lanes];
        for (int64_t l = 0; l < lanes; ++l) square[l] = Lane::read(row[l] + k * Lane::kElements);
        write(square, k);
      }
      if (k < depth) {
        Vector<A> square[lanes];
        const int64_t left = count - k * Lane::kElements;
        for (int64_t l = 0; l < lanes; ++l) square[l] = Lane::read_partial(row[l] + k * Lane::kElements, left);
        write(square, k);
      }
      if (squares) add_to(squares + c, (chains[0] + chains[1]) + (chains[2] + chains[3]));
    }
    if (cols % width == 0 || cols % width > lanes) return;
    A* const to = panel + cols / width * width * depth + lanes;  // the last strip's second half
    for (int64_t k = 0; k < depth; ++k) store(to + k * width, Vector<A>{});
  }
};

// Writes out[r][k] = data[r][k] * scale[r], with rows `depth` apart.
template <class T>
void pack_rows(Accumulator<T>* out, const T* data, int64_t stride, const Accumulator<T>* scale, int64_t rows,
               int64_t depth) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  for (int64_t r = 0; r < rows; ++r) {
    const T* const from = data + r * stride;
    A* const to = out + r * depth;
    const Vector<A> factor = broadcast(scale[r]);
    int64_t k = 0;
    for (; k + lanes <= depth; k += lanes) store(to + k, load(from + k) * factor);
    if (k < depth) store_partial(to + k, load_partial(from + k, depth - k) * factor, depth - k);
  }
}

}  // namespace EBGAN_ISA
