// The pulling-away term 1/(N(N-1)) sum_{i != j} cos^2(s_i, s_j), computed from the smaller of the two Gram matrices.
//
// Primal, N <= d: K = S S^T, n_i = |s_i|, G = K / (n n^T) with a zero diagonal, r_i = sum_j G_ij^2;
//   value = sum_i r_i / (N(N-1)); grad_i = 4 / (N(N-1) n_i) ((G - diag r) U)_i with U = S / n.
//   residual holds G - diag r. U is formed while packing, so that no product of two 1/n is ever rounded to float32.
// Dual, d < N: E = U^T U - (N'/d) I, with N' the number of nonzero rows, which is also the trace of U^T U;
//   value = (N'(N'-d)/d + ||E||_F^2) / (N(N-1)); grad_i = 4 / (N(N-1) n_i) (E u_i - (u_i^T E u_i) u_i).
//   residual holds E. The isotropic part is taken out exactly, so that no digits cancel: ||U^T U||^2 - N' would lose
//   all digits of an evenly spread batch.
// A zero row has 1/n := 0: it contributes 0 and gets gradient 0.
//
// If a squared length leaves the range of the accumulation type, the whole computation runs again on a copy of the code
// whose rows are multiplied by their scales: row_scale.h.
#include "../row_scale.h"
#include "gram.h"

#include <type_traits>

namespace EBGAN_ISA {
namespace {

using namespace ebgan;

double pairs_of(int64_t n) { return static_cast<double>(n) * static_cast<double>(n - 1); }

// Returns 1 / length, or 0 for a length of 0. The division comes first, so that a loop of calls is vectorized.
template <class A> double inverse(A length) {
  const double quotient = 1 / static_cast<double>(length);
  return length == 0 ? 0 : quotient;
}

template <class T> double square_norm(const T* row, int64_t count) {
  return sum_of_terms<Accumulator<T>>(count, [=](int64_t k, int64_t left) { return load_up_to(row + k, left); });
}

template <class A> Buffer<A> inverses_of(const A* lengths, int64_t n) {
  Buffer<A> inverses(n);
  for (int64_t i = 0; i < n; ++i) inverses.data()[i] = static_cast<A>(inverse(lengths[i]));
  return inverses;
}

// The number by which a row of a gradient is multiplied: factor * scale. This number alone may leave the accumulation
// type's range, where its product with the row does not.
struct Slope {
  double factor;
  double scale;
};

// Writes to[k] = factor * from[k]. C is the accumulation type or float64.
template <bool kStream, class T, class C> void write_row(T* to, const C* from, int64_t count, double factor) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  for (int64_t k = 0; k < count; k += lanes) {
    const int64_t left = count - k;
    Vector<A> scaled{};
    if constexpr (sizeof(C) == sizeof(A)) {
      scaled = load_up_to(from + k, left) * broadcast(static_cast<A>(factor));
    } else {
      for (int64_t l = 0; l < smaller(lanes, left); ++l) scaled[l] = static_cast<A>(from[k + l] * factor);
    }
    put<kStream>(to + k, scaled, left);
  }
}

// Writes to[k] = factor * scale * from[k].
template <class T, class C> void write_scaled_row(T* to, const C* from, int64_t count, Slope slope) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  for (int64_t k = 0; k < count; k += lanes) {
    const int64_t left = count - k;
    Vector<A> scaled{};
    for (int64_t l = 0; l < smaller(lanes, left); ++l)
      scaled[l] = static_cast<A>(static_cast<double>(from[k + l]) * slope.factor * slope.scale);
    put<false>(to + k, scaled, left);
  }
}

template <class T, class C> void write_row(bool stream, T* to, const C* from, int64_t count, Slope slope) {
  if (slope.scale != 1) write_scaled_row(to, from, count, slope);
  else if (stream && can_stream(to)) write_row<true>(to, from, count, slope.factor);
  else write_row<false>(to, from, count, slope.factor);
}

// ---- Rows out of range

template <class T> bool is_zero(const T* row, int64_t count) {
  constexpr int64_t lanes = kLanes<Accumulator<T>>;
  for (int64_t k = 0; k < count; k += lanes) {
    const Accumulators<T> v = load_up_to(row + k, count - k);
    for (int64_t l = 0; l < lanes; ++l)
      if (v[l] != 0) return false;
  }
  return true;
}

// Chooses the rows' scales from their lengths. Returns true if one of them is not 1. A length of 0 may belong to a row
// of zeros, or to a row whose squares vanish.
template <class T> bool choose_scales(const Code& code, const Accumulator<T>* lengths, Accumulator<T>* scales) {
  int some = 0;  // a bool would keep the loop from being vectorized
  for (int64_t i = 0; i < code.n; ++i) {
    scales[i] = 1;
    some |= leaves_range(lengths[i]);
  }
  if (!some) return false;
  bool any = false;
  for (int64_t i = 0; i < code.n; ++i) {
    scales[i] = scale_of(lengths[i]);
    if (lengths[i] == 0 && is_zero(static_cast<const T*>(code.data) + i * code.stride, code.d)) scales[i] = 1;
    any = any || scales[i] != 1;
  }
  return any;
}

// A copy of a code in the accumulation type, with its rows multiplied by their scales.
template <class A> class ScaledCode {
 public:
  template <class T>
  ScaledCode(const Code& code, const A* scales, T, int threads) : rows_(code.n * code.d), n_(code.n), d_(code.d) {
    const int team = team_size(threads, code.n, code.n * code.d * static_cast<int64_t>(sizeof(A)));
    parallel(code.n, team, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const T* const from = static_cast<const T*>(code.data) + i * code.stride;
        A* const to = rows_.data() + i * code.d;
        for (int64_t k = 0; k < code.d; k += kLanes<A>)
          store_up_to(to + k, load_up_to(from + k, code.d - k) * broadcast(scales[i]), code.d - k);
      }
    });
  }

  Code code() const { return {rows_.data(), d_, n_, d_}; }

 private:
  Buffer<A> rows_;
  int64_t n_;
  int64_t d_;
};

// Subtracts (product . u) u from product, for u = row * inverse_length.
template <class T> inline void project_out(Accumulator<T>* product, const T* row, int64_t count, double inverse_length) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  double dot = 0;
  for (int64_t k = 0; k < count; k += kDepth) {
    const int64_t end = smaller(count, k + kDepth);
    Vector<A> sum{};
    for (int64_t l = k; l < end; l += lanes) sum += load_up_to(product + l, end - l) * load_up_to(row + l, end - l);
    dot += lane_sum(sum);
  }
  const Vector<A> along = broadcast(static_cast<A>(dot * inverse_length * inverse_length));
  for (int64_t k = 0; k < count; k += lanes) {
    const int64_t left = count - k;
    store_up_to(product + k, load_up_to(product + k, left) - along * load_up_to(row + k, left), left);
  }
}

template <class T> void row_lengths(const Code& code, Accumulator<T>* lengths, int threads) {
  const int64_t bytes = code.n * code.d * static_cast<int64_t>(sizeof(T));
  parallel(code.n, team_size(threads, code.n, bytes), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const T* const row = static_cast<const T*>(code.data) + i * code.stride;
      lengths[i] = static_cast<Accumulator<T>>(__builtin_sqrt(square_norm(row, code.d)));
    }
  });
}

// The operand of the primal Gram matrix. Squares are summed separately: the matrix's diagonal adds squares in longer
// chains, and those of bfloat16 round with a bias that made the value 4 ulp wrong (N = 64, d = 1024).
template <class T> struct CodesAsColumns : RowsAsColumns<T> {
  double* squares;  // [splits][squares_stride]
  int64_t squares_stride;

  void pack_diagonal(int64_t split, Accumulator<T>* panel, int64_t k0, int64_t depth, int64_t c0, int64_t cols) const {
    this->pack(panel, k0, depth, c0, cols, squares + split * squares_stride + c0);
  }
};

// The operand of the dual Gram matrix.
template <class T> struct UnitCodesAsDepth : RowsAsDepth<T> {
  void pack_diagonal(int64_t, Accumulator<T>* panel, int64_t k0, int64_t depth, int64_t c0, int64_t cols) const {
    this->pack(panel, k0, depth, c0, cols);
  }
};

template <class T> double forward_primal(const Code& code, Accumulator<T>* lengths, Accumulator<T>* residual, int threads) {
  using A = Accumulator<T>;
  const int64_t n = code.n, whole = ceil_div(n, kLanes<A>) * kLanes<A>;
  const int64_t depth = ceil_div(code.d, CodesAsColumns<T>::Lane::kElements);
  const TrianglePlan plan(n, depth);
  const Buffer<double> squares(plan.splits * whole);
  for (int64_t e = 0; e < plan.splits * whole; ++e) squares.data()[e] = 0;
  const CodesAsColumns<T> operand{{static_cast<const T*>(code.data), code.stride, code.d}, squares.data(), whole};
  symmetric_product<A>(operand, n, depth, 0, residual, threads, plan);

  const Buffer<double> inverses(n), row_sums(n);
  for (int64_t i = 0; i < n; ++i) {
    double square = 0;
    for (int64_t s = 0; s < plan.splits; ++s) square += squares.data()[s * whole + i];
    lengths[i] = static_cast<A>(__builtin_sqrt(square));
    inverses.data()[i] = inverse(lengths[i]);
  }
  parallel(n, team_size(threads, n, n * n * static_cast<int64_t>(sizeof(A))), [&](int64_t begin, int64_t end, int) {
    const double* const inverse_lengths = inverses.data();
    for (int64_t i = begin; i < end; ++i) {
      A* const row = residual + i * n;
      const double mine = inverse_lengths[i];
      for (int64_t j = 0; j < n; ++j) row[j] = static_cast<A>(static_cast<double>(row[j]) * mine * inverse_lengths[j]);
      row[i] = 0;
      row_sums.data()[i] = square_norm(row, n);
      row[i] = static_cast<A>(-row_sums.data()[i]);
    }
  });
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += row_sums.data()[i];
  return total / pairs_of(n);
}

template <class T> double forward_dual(const Code& code, Accumulator<T>* lengths, Accumulator<T>* residual, int threads) {
  using A = Accumulator<T>;
  const int64_t n = code.n, d = code.d;
  row_lengths<T>(code, lengths, threads);
  const Buffer<A> inverses = inverses_of(lengths, n);
  int64_t nonzero = 0;
  for (int64_t i = 0; i < n; ++i) nonzero += lengths[i] != 0;
  const double trace = static_cast<double>(nonzero), share = trace / static_cast<double>(d);
  const UnitCodesAsDepth<T> operand{{static_cast<const T*>(code.data), code.stride, inverses.data()}};
  symmetric_product<A>(operand, d, n, share, residual, threads, TrianglePlan(d, n));

  double total = trace * (trace - static_cast<double>(d)) / static_cast<double>(d);
  for (int64_t i = 0; i < d; ++i) total += square_norm(residual + i * d, d);
  return total / pairs_of(n);
}

template <class T> double forward(const Code& code, Accumulator<T>* lengths, Accumulator<T>* residual, int threads) {
  return (code.n <= code.d ? forward_primal<T> : forward_dual<T>)(code, lengths, residual, threads);
}

// The inputs of the gradient: the code, whose storage type is S, and the forward's results.
template <class S, class A> struct Saved {
  Code code;
  const A* lengths;
  const A* scales;
  const A* residual;
  double factor;  // 4 upstream / (N(N-1))

  Slope slope(int64_t i, double inverse_length) const { return {factor * inverse_length, static_cast<double>(scales[i])}; }
};

// Writes grad = factor / n_i * (residual U). A block of it is one sum over n.
template <class S, class T>
void backward_primal(const Saved<S, Accumulator<T>>& it, T* grad, int64_t grad_stride, int threads) {
  using A = Accumulator<T>;
  const Code& code = it.code;
  const A* const residual = it.residual;
  const int64_t n = code.n, d = code.d, tasks = ceil_div(d, kBlock);
  const Buffer<A> inverses = inverses_of(it.lengths, n);
  const RowsAsDepth<S> units{static_cast<const S*>(code.data), code.stride, inverses.data()};
  const int team = team_size(threads, tasks, n * n * d / 4);
  const bool stream = streams_pieces(n * d * static_cast<int64_t>(sizeof(T)), team);
  const Buffer<A> panels(kBlock * kDepth * team);
  const Buffer<double> sums(kBlock * kBlock * team);
  const auto run = [&](int64_t begin, int64_t end, int member, auto* c) {
    using Block = BlockOf<std::remove_pointer_t<decltype(c)>>;
    A* const right = panels.data() + kBlock * kDepth * member;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t j0 = task * kBlock, cols = smaller(kBlock, d - j0);
      for (int64_t i0 = 0; i0 < n; i0 += kBlock) {
        const int64_t rows = smaller(kBlock, n - i0);
        for (int64_t k = 0; k < n; k += kDepth) {
          const int64_t depth = smaller(kDepth, n - k);
          if (n > kDepth || i0 == 0) units.pack(right, k, depth, j0, cols);
          panel_product<Widened<A>>(PlainRows<A>{residual + i0 * n + k, n}, rows, right, cols, depth,
                                     Block{c, kBlock, k > 0});
        }
        for (int64_t i = 0; i < rows; ++i) {
          const Slope slope = it.slope(i0 + i, inverse(it.lengths[i0 + i]));
          write_row(stream, grad + (i0 + i) * grad_stride + j0, c + i * kBlock, cols, slope);
        }
      }
    }
  };
  parallel(tasks, team, [&](int64_t begin, int64_t end, int member) {
    double* const c = sums.data() + kBlock * kBlock * member;
    if (n <= kDepth) run(begin, end, member, reinterpret_cast<A*>(c));
    else run(begin, end, member, c);
    end_stream();
  });
}

// The number of rows of U E that a thread holds until it has projected them: 256 KB of float32, but at least one tile
// of rows.
int64_t rows_held(int64_t d) { return larger(3 * kRowStep, smaller(kBlock, (int64_t{64} << 10) / d)); }

// Writes grad_i = factor / n_i * (E u_i - (u_i^T E u_i) u_i).
template <class S, class T>
void backward_dual(const Saved<S, Accumulator<T>>& it, T* grad, int64_t grad_stride, int threads) {
  using A = Accumulator<T>;
  const Code& code = it.code;
  const int64_t n = code.n, d = code.d, held = rows_held(d), tasks = ceil_div(n, held);
  const int64_t whole = ceil_div(d, kStrip<A>) * kStrip<A>;
  const S* const data = static_cast<const S*>(code.data);
  const Buffer<A> inverses = inverses_of(it.lengths, n);
  const RowsAsDepth<A> matrix{it.residual, d, nullptr};
  const int team = team_size(threads, tasks, n * d * d / 4);
  const bool stream = streams_pieces(n * d * static_cast<int64_t>(sizeof(T)), team);
  const Buffer<A> panels(2 * kBlock * kDepth * team), products(held * whole * team);
  parallel(tasks, team, [&](int64_t begin, int64_t end, int member) {
    A* const left = panels.data() + 2 * kBlock * kDepth * member;
    A* const right = left + kBlock * kDepth;
    A* const product = products.data() + held * whole * member;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i0 = task * held, rows = smaller(held, n - i0);
      for (int64_t k = 0; k < d; k += kDepth) {
        const int64_t depth = smaller(kDepth, d - k);
        pack_rows(left, data + i0 * code.stride + k, code.stride, inverses.data() + i0, rows, depth);
        for (int64_t j0 = 0; j0 < d; j0 += kBlock) {
          const int64_t cols = smaller(kBlock, d - j0);
          matrix.pack(right, k, depth, j0, cols);
          panel_product<Widened<A>>(PlainRows<A>{left, depth}, rows, right, cols, depth,
                                    BlockOf<A>{product + j0, whole, k > 0});
        }
      }
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t sample = i0 + i;
        const double inverse_length = inverse(it.lengths[sample]);
        project_out(product + i * whole, data + sample * code.stride, d, inverse_length);
        write_row(stream, grad + sample * grad_stride, product + i * whole, d, it.slope(sample, inverse_length));
      }
    }
    end_stream();
  });
}

template <class S, class T>
void backward(const Saved<S, Accumulator<T>>& it, T* grad, int64_t grad_stride, int threads) {
  (it.code.n <= it.code.d ? backward_primal<S, T> : backward_dual<S, T>)(it, grad, grad_stride, threads);
}

}  // namespace

void pulling_away(DType dtype, const PullingAway& it, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    const Code& code = it.code;
    A* const lengths = static_cast<A*>(it.lengths);
    A* const scales = lengths + code.n;
    A* const residual = static_cast<A*>(it.residual);
    double value = 0;
    if (code.n < 2 || code.d == 0) {
      const int64_t side = smaller(code.n, code.d);
      for (int64_t i = 0; i < 2 * code.n; ++i) lengths[i] = 0;
      for (int64_t e = 0; e < side * side; ++e) residual[e] = 0;
    } else {
      value = forward<T>(code, lengths, residual, threads);
      if (choose_scales<T>(code, lengths, scales))
        value = forward<A>(ScaledCode<A>(code, scales, zero, threads).code(), lengths, residual, threads);
    }
    *static_cast<A*>(it.value) = static_cast<A>(value);
    if (it.loss) {
      A& loss = *static_cast<A*>(it.loss);
      loss = static_cast<A>(static_cast<double>(loss) + it.weight.value * value);
    }
  });
}

void pulling_away_gradient(DType dtype, const PullingAwayGradient& it, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    T* const to = static_cast<T*>(it.grad);
    const Code& code = it.code;
    if (code.n < 2) {
      __builtin_memset(to, 0, static_cast<size_t>(code.n * code.d) * sizeof(T));
      return;
    }
    const A *const lengths = static_cast<const A*>(it.lengths), *const scales = lengths + code.n;
    const A* const residual = static_cast<const A*>(it.residual);
    const double factor = 4 * it.upstream.value / pairs_of(code.n);
    int are_scaled = 0;
    for (int64_t i = 0; i < code.n; ++i) are_scaled |= scales[i] != 1;
    if (are_scaled) {
      const ScaledCode<A> copy(code, scales, zero, threads);
      backward(Saved<A, A>{copy.code(), lengths, scales, residual, factor}, to, it.grad_stride, threads);
    } else {
      backward(Saved<T, A>{code, lengths, scales, residual, factor}, to, it.grad_stride, threads);
    }
  });
}

}  // namespace EBGAN_ISA
