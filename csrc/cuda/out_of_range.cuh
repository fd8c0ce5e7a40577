// Rows whose squares leave the range of acc (../row_scale.h), in the primal form. Its squares come with the Gram matrix, so
// that only finish_rows knows which rows these are: it then makes their cosines from the code. Everything here is done by
// a warp, in a fixed order, and gives every lane the same.
#pragma once

#include "../row_scale.h"
#include "tiles.cuh"

#include <cfloat>

namespace ebgan::cuda {

constexpr double kNaN = __builtin_nan("");

// 1/length of a row in range, 0 of a row of zeros, -1 of any other. A product in tf32 also makes NaN of squares that
// overflow.
template <class A> __device__ A inverse_in_range(A length) {
  return length == 0 || (length == length && scale_of(length) == 1) ? inverse_of(length) : A{-1};
}

// True if the cosine of two rows must be made anew, by what inverse_in_range says of them. NaN stays what it is.
template <class A> __device__ bool are_apart(A mine, A other) { return mine < 0 || (mine >= 0 && other < 0); }

// The scale of a row, by its largest number; NaN if a number is infinite or NaN.
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

// The length of a row times its scale, and the scale. Both are numbers of acc.
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

// 0 if one of the rows is zeros, NaN if one has an infinite or NaN number.
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

// True if one of the row's numbers first.. up to `end` is not 0.
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

// Tells rows of zeros from those whose squares have vanished, among `count` rows over the columns from begin up to end.
// The squares of the latter become the smallest normal number. So a sum of 0 stands for a row of zeros alone, and
// finish_rows has nothing to look up.
template <class T>
__device__ void tell_vanished(const Lines<T>& code, int64_t first, int count, int64_t begin, int64_t end,
                              Acc<T>* p_squares) {
  constexpr Acc<T> kSmallest = sizeof(T) == 8 ? DBL_MIN : FLT_MIN;
  __syncwarp();  // all of them have been stored
  for (int64_t row = first; row < first + count && row < code.lines; ++row) {
    if (p_squares[row] != 0) continue;
    const T* const p_row = code.p_first + row * code.step;
    const bool vanished = code.is_wide ? has_number<T, kWide<T>>(p_row, begin, end) : has_number<T, 1>(p_row, begin, end);
    __syncwarp();  // it has been read
    if (vanished && threadIdx.x % kWarp == 0) p_squares[row] = kSmallest;
  }
}

}  // namespace ebgan::cuda
