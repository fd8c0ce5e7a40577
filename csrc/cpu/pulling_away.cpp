// Pulling-away term: 1/(N(N-1)) sum_{i != j} cos^2(s_i, s_j), over the smaller of the two Gram matrices.
//
// Primal, N <= d: K = S S^T, n_i = |s_i|, G = K / (n n^T) with a zero diagonal, r_i = sum_j G_ij^2;
//   value = sum_i r_i / (N(N-1)); grad_i = 4 / (N(N-1) n_i) ((G - diag r) U)_i with U = S / n.
//   gram holds G - diag r. U is formed while packing, so that no product of two 1/n is ever rounded to float32.
// Dual, d < N: E = U^T U - (N'/d) I, with N' the number of nonzero rows, which is also the trace of U^T U;
//   value = (N'(N'-d)/d + ||E||_F^2) / (N(N-1)); grad_i = 4 / (N(N-1) n_i) (E u_i - (u_i^T E u_i) u_i).
//   gram holds E. Taking the isotropic part out exactly leaves nothing to cancel: ||U^T U||^2 - N' loses all digits
//   of an evenly spread batch.
// A zero row has 1/n := 0: it contributes 0 and gets gradient 0.
#include "pulling_away.h"

#include "dispatch_dtype.h"
#include "parallel.h"
#include "product.h"
#include "sums.h"

namespace EBGAN_ISA {
namespace {

using ebgan::Code;

double pairs_of(int64_t n) { return static_cast<double>(n) * static_cast<double>(n - 1); }

template <class A> double inverse(A norm) { return norm == 0 ? 0 : 1 / static_cast<double>(norm); }

template <class T> double square_norm(const T* row, int64_t count) {
  return sum_of_squares<Accumulator<T>>(count, [&](int64_t k, int64_t left) { return load_up_to(row + k, left); });
}

// to[k] = factor * from[k].
template <class T> void write_row(T* to, const double* from, int64_t count, double factor) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  A scaled[lanes];
  int64_t k = 0;
  for (; k + lanes <= count; k += lanes) {
    for (int64_t l = 0; l < lanes; ++l) scaled[l] = static_cast<A>(from[k + l] * factor);
    store(to + k, load(scaled));
  }
  for (int64_t l = 0; k + l < count; ++l) scaled[l] = static_cast<A>(from[k + l] * factor);
  if (k < count) store_partial(to + k, load(scaled), count - k);
}

// product -= (product . u) u for u = row * inverse_norm.
template <class T> void project_out(double* product, const T* row, int64_t count, double inverse_norm) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  double dot = 0;
  for (int64_t k = 0; k < count; k += lanes) {
    const int64_t left = smaller(lanes, count - k);
    const Vector<A> v = load_up_to(row + k, left);
    for (int64_t l = 0; l < left; ++l) dot += product[k + l] * static_cast<double>(v[l]);
  }
  const double along = dot * inverse_norm * inverse_norm;
  for (int64_t k = 0; k < count; k += lanes) {
    const int64_t left = smaller(lanes, count - k);
    const Vector<A> v = load_up_to(row + k, left);
    for (int64_t l = 0; l < left; ++l) product[k + l] -= along * static_cast<double>(v[l]);
  }
}

// out (n x n, symmetric) = sum over k < depth of operand(k, i) operand(k, j), less `shift` on the diagonal. Only blocks
// on and above the diagonal are computed. Few blocks are cut along k as well: by the sizes alone, so that the order of
// every sum is the same at any thread count.
template <class A, class Operand>
void symmetric_product(const Operand& operand, int64_t n, int64_t depth, double shift, A* out, int threads) {
  const int64_t side = ceil_div(n, kBlock), blocks = side * (side + 1) / 2;
  const int64_t splits = larger(1, smaller(ceil_div(depth, 4 * kDepth), 32 / blocks));
  const int64_t split_depth = ceil_div(ceil_div(depth, splits), kDepth) * kDepth;
  const int64_t tasks = blocks * splits;
  const int team = team_size(threads, tasks, n * n / 2 * depth / 4);
  const Workspace<A> scratch(team);
  const Buffer<double> partial(splits > 1 ? tasks * kBlock * kBlock : 0);

  const auto origin = [&](int64_t block, int64_t& i0, int64_t& j0) {  // blocks of a triangle, row by row
    int64_t row = 0;
    for (int64_t length = side; block >= length; --length, ++row) block -= length;
    i0 = row * kBlock;
    j0 = (row + block) * kBlock;
  };
  const auto write = [&](const double* c, int64_t i0, int64_t j0) {
    for (int64_t i = i0; i < smaller(n, i0 + kBlock); ++i)
      for (int64_t j = larger(i, j0); j < smaller(n, j0 + kBlock); ++j) {
        const double sum = c[(i - i0) * kBlock + (j - j0)];
        out[i * n + j] = out[j * n + i] = static_cast<A>(i == j ? sum - shift : sum);
      }
  };

  parallel(tasks, team, [&](int64_t begin, int64_t end, int member) {
    for (int64_t task = begin; task < end; ++task) {
      int64_t i0, j0;
      origin(task / splits, i0, j0);
      const int64_t k0 = smaller(depth, task % splits * split_depth), k1 = smaller(depth, k0 + split_depth);
      double* const c = splits > 1 ? partial.data() + task * kBlock * kBlock : scratch.block(member);
      block_product<A>(operand, i0, smaller(kBlock, n - i0), operand, j0, smaller(kBlock, n - j0), k0, k1, i0 == j0,
                       scratch.left(member), scratch.right(member), c);
      if (splits == 1) write(c, i0, j0);
    }
  });
  if (splits == 1) return;
  parallel(blocks, team, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      double* const total = partial.data() + block * splits * kBlock * kBlock;
      for (int64_t s = 1; s < splits; ++s)
        for (int64_t e = 0; e < kBlock * kBlock; ++e) total[e] += total[s * kBlock * kBlock + e];
      int64_t i0, j0;
      origin(block, i0, j0);
      write(total, i0, j0);
    }
  });
}

// Summed apart from the Gram matrix: its diagonal adds kDepth squares in A, and those of bfloat16 round with a bias that
// put the value 4 ulp off (N = 64, d = 1024).
template <class T> void row_norms(const Code& code, Accumulator<T>* norms, int threads) {
  const int64_t bytes = code.n * code.d * static_cast<int64_t>(sizeof(T));
  parallel(code.n, team_size(threads, code.n, bytes), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const T* const row = static_cast<const T*>(code.data) + i * code.stride;
      norms[i] = static_cast<Accumulator<T>>(__builtin_sqrt(square_norm(row, code.d)));
    }
  });
}

template <class T> double forward_primal(const Code& code, Accumulator<T>* norms, Accumulator<T>* gram, int threads) {
  using A = Accumulator<T>;
  const int64_t n = code.n;
  const RowsAsColumns<T> rows{static_cast<const T*>(code.data), code.stride, n, nullptr};
  symmetric_product<A>(rows, n, code.d, 0, gram, threads);
  row_norms<T>(code, norms, threads);

  const Buffer<double> inverses(n), row_sums(n);
  for (int64_t i = 0; i < n; ++i) inverses.data()[i] = inverse(norms[i]);
  parallel(n, team_size(threads, n, n * n * static_cast<int64_t>(sizeof(A))), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      A* const row = gram + i * n;
      for (int64_t j = 0; j < n; ++j)
        row[j] = static_cast<A>(static_cast<double>(row[j]) * inverses.data()[i] * inverses.data()[j]);
      row[i] = 0;
      row_sums.data()[i] = square_norm(row, n);
      row[i] = static_cast<A>(-row_sums.data()[i]);
    }
  });
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += row_sums.data()[i];
  return total / pairs_of(n);
}

template <class T> double forward_dual(const Code& code, Accumulator<T>* norms, Accumulator<T>* gram, int threads) {
  using A = Accumulator<T>;
  const int64_t n = code.n, d = code.d;
  const Buffer<A> inverses(n);
  row_norms<T>(code, norms, threads);
  for (int64_t i = 0; i < n; ++i) inverses.data()[i] = static_cast<A>(inverse(norms[i]));
  int64_t nonzero = 0;
  for (int64_t i = 0; i < n; ++i) nonzero += norms[i] != 0;
  const double trace = static_cast<double>(nonzero), share = trace / static_cast<double>(d);
  const RowsAsDepth<T> operand{static_cast<const T*>(code.data), code.stride, d, inverses.data()};
  symmetric_product<A>(operand, d, n, share, gram, threads);

  double total = trace * (trace - static_cast<double>(d)) / static_cast<double>(d);
  for (int64_t i = 0; i < d; ++i) total += square_norm(gram + i * d, d);
  return total / pairs_of(n);
}

template <class T>
void backward_primal(const Code& code, const Accumulator<T>* norms, const Accumulator<T>* gram, double factor, T* grad,
                     int64_t grad_stride, int threads) {
  using A = Accumulator<T>;
  const int64_t n = code.n, d = code.d, panels = ceil_div(d, kBlock), tasks = ceil_div(n, kBlock) * panels;
  const Buffer<A> inverses(n);
  for (int64_t i = 0; i < n; ++i) inverses.data()[i] = static_cast<A>(inverse(norms[i]));
  const RowsAsDepth<A> left{gram, n, n, nullptr};  // symmetric, so its rows serve as its columns
  const RowsAsDepth<T> right{static_cast<const T*>(code.data), code.stride, d, inverses.data()};
  const int team = team_size(threads, tasks, n * n * d / 4);
  const Workspace<A> scratch(team);
  parallel(tasks, team, [&](int64_t begin, int64_t end, int member) {
    double* const c = scratch.block(member);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i0 = task / panels * kBlock, j0 = task % panels * kBlock;
      const int64_t rows = smaller(kBlock, n - i0), cols = smaller(kBlock, d - j0);
      block_product<A>(left, i0, rows, right, j0, cols, 0, n, false, scratch.left(member), scratch.right(member), c);
      for (int64_t i = 0; i < rows; ++i)
        write_row(grad + (i0 + i) * grad_stride + j0, c + i * kBlock, cols, factor * inverse(norms[i0 + i]));
    }
  });
}

template <class T>
void backward_dual(const Code& code, const Accumulator<T>* norms, const Accumulator<T>* gram, double factor, T* grad,
                   int64_t grad_stride, int threads) {
  using A = Accumulator<T>;
  const int64_t n = code.n, d = code.d, tasks = ceil_div(n, kBlock);
  const T* const data = static_cast<const T*>(code.data);
  const Buffer<A> inverses(n);
  for (int64_t i = 0; i < n; ++i) inverses.data()[i] = static_cast<A>(inverse(norms[i]));
  const RowsAsColumns<T> left{data, code.stride, n, inverses.data()};
  const RowsAsDepth<A> right{gram, d, d, nullptr};
  const int team = team_size(threads, tasks, n * d * d / 4);
  const Workspace<A> scratch(team);
  const Buffer<double> products(kBlock * d * team);
  parallel(tasks, team, [&](int64_t begin, int64_t end, int member) {
    double* const c = scratch.block(member);
    double* const product = products.data() + kBlock * d * member;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i0 = task * kBlock, rows = smaller(kBlock, n - i0);
      for (int64_t j0 = 0; j0 < d; j0 += kBlock) {
        const int64_t cols = smaller(kBlock, d - j0);
        block_product<A>(left, i0, rows, right, j0, cols, 0, d, false, scratch.left(member), scratch.right(member), c);
        for (int64_t i = 0; i < rows; ++i)
          __builtin_memcpy(product + i * d + j0, c + i * kBlock, static_cast<size_t>(cols) * sizeof(double));
      }
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t sample = i0 + i;
        const double inverse_norm = inverse(norms[sample]);
        project_out(product + i * d, data + sample * code.stride, d, inverse_norm);
        write_row(grad + sample * grad_stride, product + i * d, d, factor * inverse_norm);
      }
    }
  });
}

}  // namespace

double pulling_away_forward(ebgan::DType dtype, const Code& code, void* norms, void* gram, int threads) {
  double value = 0;
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    A* const to_norms = static_cast<A*>(norms);
    A* const to_gram = static_cast<A*>(gram);
    if (code.n < 2 || code.d == 0) {
      const int64_t side = smaller(code.n, code.d);
      for (int64_t i = 0; i < code.n; ++i) to_norms[i] = 0;
      for (int64_t e = 0; e < side * side; ++e) to_gram[e] = 0;
    } else if (code.n <= code.d) {
      value = forward_primal<T>(code, to_norms, to_gram, threads);
    } else {
      value = forward_dual<T>(code, to_norms, to_gram, threads);
    }
  });
  return value;
}

void pulling_away_backward(ebgan::DType dtype, const Code& code, const void* norms, const void* gram, double upstream,
                           void* grad, int64_t grad_stride, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    T* const to = static_cast<T*>(grad);
    if (code.n < 2) {
      __builtin_memset(to, 0, static_cast<size_t>(code.n * code.d) * sizeof(T));
      return;
    }
    const double factor = 4 * upstream / pairs_of(code.n);
    const auto run = code.n <= code.d ? backward_primal<T> : backward_dual<T>;
    run(code, static_cast<const A*>(norms), static_cast<const A*>(gram), factor, to, grad_stride, threads);
  });
}

}  // namespace EBGAN_ISA
