// Sums of squares with an error that hardly grows with their length.
#pragma once

#include "convert.h"

namespace EBGAN_ISA {

template <class V> inline double lane_sum(V v) {
  constexpr int lanes = static_cast<int>(sizeof(V) / sizeof(v[0]));
  double sum = 0;
  for (int i = 0; i < lanes; ++i) sum += v[i];
  return sum;
}

// sum over k < n of at(k)^2, where at(k, left) gives the vector that starts at element k, 0 beyond the end.
// A lane adds at most 32 squares in A before they move to a double (float: 1024 / 32 lanes), so the error stays near
// that of a pairwise sum at any n, and four chains hide the latency of the addition.
template <class A, class At> inline double sum_of_squares(int64_t n, const At& at) {
  constexpr int64_t lanes = kLanes<A>, step = 4 * lanes, block = 32 * step;
  double total = 0;
  for (int64_t start = 0; start < n; start += block) {
    const int64_t end = smaller(n, start + block);
    Vector<A> s0{}, s1{}, s2{}, s3{};
    int64_t k = start;
    for (; k + step <= end; k += step) {
      const Vector<A> v0 = at(k, step), v1 = at(k + lanes, step), v2 = at(k + 2 * lanes, step),
                      v3 = at(k + 3 * lanes, step);
      s0 += v0 * v0;
      s1 += v1 * v1;
      s2 += v2 * v2;
      s3 += v3 * v3;
    }
    for (; k < end; k += lanes) {
      const Vector<A> v = at(k, end - k);
      s0 += v * v;
    }
    total += lane_sum((s0 + s1) + (s2 + s3));
  }
  return total;
}

}  // namespace EBGAN_ISA
