// Rows whose squares leave the range of acc (../row_scale.h), in the primal form. The squares come with the Gram
// matrix, so only finish_rows knows these rows. It then computes their cosines from the code. A warp runs each function
// here, in a fixed order, and every lane gets the same result.
#pragma once

#include "../row_scale.h"
#include "tiles.cuh"

#include <cfloat>

namespace ebgan::cuda {

constexpr double kNaN = __builtin_nan("");

// Returns 1/length for a row in range, 0 for a row of zeros, and -1 for any other row. With tf32 products, squares that
// overflow can also give NaN.
template <class A> __device__ A inverse_in_range(A length) {
  return length == 0 || (length == length && scale_of(length) == 1) ? inverse_of(length) : A{-1};
}

// True if the cosine of two rows must be computed again, given their values of inverse_in_range. NaN stays as it is.
template <class A> __device__ bool are_apart(A mine, A other) { return mine < 0 || (mine >= 0 && other < 0); }

// Returns the scale of a row, chosen by its largest number; NaN if a number is infinite or NaN.
template <class T> __device__ double scale_of_row(const T* p_row, int64_t columns) {
  using A = Acc<T>;
  A largest = 0;
  const auto take = [&](A size) {
    if (size > largest || size != size) largest = size;
  };
#pragma unroll 1
  for (int64_t k = threadIdx.x % kWarp; k < columns; k += kWarp) {
    const A value = widen(p_row[k]);
    take(value < 0 ? -value : value);
  }
#pragma unroll 1
  for (int distance = kWarp / 2; distance > 0; distance /= 2) take(__shfl_xor_sync(kEveryLane, largest, distance));
  return largest - largest == 0 ? static_cast<double>(scale_of(largest)) : kNaN;
}

// The length of a scaled row, and the scale. Both are representable in acc.
struct ScaledLength {
  double length;
  double scale;
};

template <class T> __device__ ScaledLength scaled_length(const Lines<T>& code, int64_t row) {
  const T* const p_row = code.p_first + row * code.step;
  const double scale = scale_of_row(p_row, code.columns);
  double squares = 0;
#pragma unroll 1
  for (int64_t k = threadIdx.x % kWarp; k < code.columns; k += kWarp) {
    const double value = widen(p_row[k]) * scale;
    squares += value * value;
  }
  return {sqrt(sum_of_warp(squares)), scale};
}

// Returns the cosine of two rows: 0 if one of them is zeros, NaN if one has an infinite or NaN number.
template <class T> __device__ double cosine(const Lines<T>& code, int64_t row, int64_t other) {
  const T *const p_row = code.p_first + row * code.step, *const p_other = code.p_first + other * code.step;
  const double scale = scale_of_row(p_row, code.columns), other_scale = scale_of_row(p_other, code.columns);
  double product = 0, squares = 0, other_squares = 0;
#pragma unroll 1
  for (int64_t k = threadIdx.x % kWarp; k < code.columns; k += kWarp) {
    const double a = widen(p_row[k]) * scale, b = widen(p_other[k]) * other_scale;
    product += a * b;
    squares += a * a;
    other_squares += b * b;
  }
  const double lengths = sqrt(sum_of_warp(squares)) * sqrt(sum_of_warp(other_squares));
  product = sum_of_warp(product);
  return lengths == 0 ? product : product / lengths;
}

// True if one of the row's numbers from `first` up to `end` is not 0.
template <class T, int kWidth> __device__ bool has_number(const T* p_row, int64_t first, int64_t end) {
  bool found = false;
#pragma unroll 4
  for (int64_t k = first + threadIdx.x % kWarp * kWidth; k < end; k += kWarp * kWidth) {
    const auto packet = load<T, kWidth>(p_row + k);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) found |= widen(packet.values[j]) != 0;
  }
  return __any_sync(kEveryLane, found);
}

// Distinguishes rows of zeros from rows whose squares have vanished, among `count` rows over the columns from begin up
// to end. The squares of the latter become the smallest normal number. So a sum of 0 always means a row of zeros, and
// finish_rows needs no check.
template <class T>
__device__ void tell_vanished(const Lines<T>& code, int64_t first, int count, int64_t begin, int64_t end,
                              Acc<T>* p_squares) {
  constexpr Acc<T> kSmallest = sizeof(T) == 8 ? DBL_MIN : FLT_MIN;
  __syncwarp();  // all squares must be stored before they are read
  for (int64_t row = first; row < first + count && row < code.lines; ++row) {
    if (p_squares[row] != 0) continue;
    const T* const p_row = code.p_first + row * code.step;
    const bool vanished = code.is_wide ? has_number<T, kWide<T>>(p_row, begin, end) : has_number<T, 1>(p_row, begin, end);
    __syncwarp();  // all lanes must have read the square before it is written
    if (vanished && threadIdx.x % kWarp == 0) p_squares[row] = kSmallest;
  }
}

}  // namespace ebgan::cuda
