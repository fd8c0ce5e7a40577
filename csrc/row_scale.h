// The scale of a code's row: a power of two by which the row is multiplied before anything is squared. One source for
// g++, nvcc and the simulator.
//
// A cosine does not depend on the lengths of its vectors, but a squared length may overflow, or vanish. A row that is
// no longer than `longest` and no shorter than `shortest` has the scale 1, so that its bits stay as they are. Any other
// row is multiplied once, and is then well inside the range. Rows of float32, subnormal numbers among them, get lengths
// from 2^-49 to 2^62, whose squares neither vanish nor overflow.
//   float32: a row of scale 1 has a squared length from 2^-80 to 2^100. The sum of 2^22 squares that vanish, each below
//   2^-126, is less than an epsilon of 2^-80. The largest number times its scale is 2^48, and 2^28 squares of that add
//   up to less than the largest number.
#pragma once

#include "norm.h"

#if defined(EBGAN_ISA)
namespace EBGAN_ISA {
#else
namespace ebgan::cuda {
#endif

template <class A> struct RowRange;
template <> struct RowRange<float> {
  static constexpr float shortest = 0x1p-40f, longest = 0x1p50f, up = 0x1p100f, down = 0x1p-80f;
};
template <> struct RowRange<double> {
  static constexpr double shortest = 0x1p-400, longest = 0x1p450, up = 0x1p700, down = 0x1p-600;
};

// True if the scale of a row of this length is not 1. It has no branch, so that a loop over lengths is vectorized.
template <class A> EBGAN_ANYWHERE bool leaves_range(A length) {
  return (length < RowRange<A>::shortest) | (length > RowRange<A>::longest);
}

// The scale of a row of this length, which may have overflowed or vanished. 1 for NaN.
template <class A> EBGAN_ANYWHERE A scale_of(A length) {
  if (length < RowRange<A>::shortest) return RowRange<A>::up;
  return length > RowRange<A>::longest ? RowRange<A>::down : A{1};
}

}  // namespace EBGAN_ISA or ebgan::cuda
