// The symmetric product of an operand with itself: out[i][j] = sum_k operand(k, i) operand(k, j). Depths count lanes.
#pragma once

#include "product.h"

namespace EBGAN_ISA {

// The cut of the product into tasks: blocks on and above the diagonal, each cut along k if there are few. The cut
// depends only on the sizes, so that the order of every sum is the same at any number of threads. At most 8 tasks share
// a cut block, so their sums take 1 MB at most.
struct TrianglePlan {
  int64_t side;
  int64_t blocks;
  int64_t splits;
  int64_t split_depth;

  TrianglePlan(int64_t n, int64_t depth) : side(ceil_div(n, kBlock)), blocks(side * (side + 1) / 2) {
    splits = larger(1, smaller(ceil_div(depth, 2 * kDepth), 8 / blocks));
    split_depth = ceil_div(ceil_div(depth, splits), kDepth) * kDepth;
  }

  int64_t tasks() const { return blocks * splits; }

  void origin(int64_t block, int64_t& i0, int64_t& j0) const {  // row by row
    int64_t row = 0;
    for (int64_t length = side; block >= length; --length, ++row) block -= length;
    i0 = row * kBlock;
    j0 = (row + block) * kBlock;
  }
};

// Writes a block with `shift` subtracted on the diagonal, and its mirror image.
template <class A>
void write_symmetric(const double* c, int64_t n, int64_t i0, int64_t j0, double shift, A* out) {
  const int64_t rows = smaller(kBlock, n - i0), cols = smaller(kBlock, n - j0);
  const bool diagonal = i0 == j0;
  for (int64_t i = 0; i < rows; ++i) {
    A* const to = out + (i0 + i) * n + j0;
    const int64_t first = diagonal ? i : 0;
    for (int64_t j = first; j < cols; ++j) to[j] = static_cast<A>(c[i * kBlock + j]);
    if (diagonal) to[i] = static_cast<A>(c[i * kBlock + i] - shift);
  }
  for (int64_t j = 0; j < cols; ++j) {
    A* const to = out + (j0 + j) * n + i0;
    const int64_t last = diagonal ? j : rows;
    for (int64_t i = 0; i < last; ++i) to[i] = static_cast<A>(c[i * kBlock + j]);
  }
}

// The tasks on the diagonal read every part of the operand once, and pack it with operand.pack_diagonal(split, ...).
template <class A, class Operand>
void symmetric_product(const Operand& operand, int64_t n, int64_t depth, double shift, A* out, int threads,
                       const TrianglePlan& plan) {
  constexpr int64_t kBlockSize = kBlock * kBlock, kPanelSize = kBlock * kDepth;
  const int64_t tasks = plan.tasks(), splits = plan.splits;
  const int team = team_size(threads, tasks, n * n / 2 * depth / 4);
  const Buffer<A> panels(2 * kPanelSize * team);
  const Buffer<double> sums(kBlockSize * (splits > 1 ? tasks : team));

  parallel(tasks, team, [&](int64_t begin, int64_t end, int member) {
    A* const left = panels.data() + 2 * kPanelSize * member;
    A* const right = left + kPanelSize;
    for (int64_t task = begin; task < end; ++task) {
      int64_t i0, j0;
      plan.origin(task / splits, i0, j0);
      const int64_t rows = smaller(kBlock, n - i0), cols = smaller(kBlock, n - j0);
      const int64_t k0 = smaller(depth, task % splits * plan.split_depth), k1 = smaller(depth, k0 + plan.split_depth);
      double* const c = sums.data() + kBlockSize * (splits > 1 ? task : member);
      for (int64_t k = k0; k < k1; k += kDepth) {
        const int64_t part = smaller(kDepth, k1 - k);
        const BlockOf<double> block{c, kBlock, k > k0};
        if (i0 == j0) {
          operand.pack_diagonal(task % splits, right, k, part, j0, cols);
          triangle_product<typename Operand::Lane>(right, cols, part, block);
        } else {
          operand.pack(left, k, part, i0, rows);
          operand.pack(right, k, part, j0, cols);
          panel_product<typename Operand::Lane>(StripRows<A>{left, part}, rows, right, cols, part, block);
        }
      }
      if (splits == 1) write_symmetric(c, n, i0, j0, shift, out);
    }
  });
  if (splits == 1) return;
  for (int64_t block = 0; block < plan.blocks; ++block) {
    double* const total = sums.data() + block * splits * kBlockSize;
    const int64_t used = smaller(kBlock, n) * kBlock;
    for (int64_t s = 1; s < splits; ++s) {
      if (s * plan.split_depth >= depth) break;  // this split is empty
      for (int64_t e = 0; e < used; ++e) total[e] += total[s * kBlockSize + e];
    }
    int64_t i0, j0;
    plan.origin(block, i0, j0);
    write_symmetric(total, n, i0, j0, shift, out);
  }
}

}  // namespace EBGAN_ISA
