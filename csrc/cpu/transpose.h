// Transposes a square of vectors in registers.
#pragma once

#include <utility>

#include "processor.h"

namespace EBGAN_ISA {

// Returns the lanes I... of the vector a followed by b.
template <class V, int... I> inline V shuffle(V a, V b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, I...);
#else
  typedef decltype(a < b) Mask;
  return __builtin_shuffle(a, b, Mask{I...});
#endif
}

// The lanes that a step of the transposition takes from two vectors. An instruction exists for each of these on 16-byte
// vectors and, within every 16 bytes, on wider ones.
struct ZipLow {  // a0 b0 a1 b1, from the low halves of each group of `lanes`
  static constexpr int lane(int i, int lanes, int all) { return i / lanes * lanes + i % lanes / 2 + i % 2 * all; }
};
struct ZipHigh {
  static constexpr int lane(int i, int lanes, int all) { return ZipLow::lane(i, lanes, all) + lanes / 2; }
};
struct SwapLow {  // the first of each two groups of `lanes`: a's in place, b's moved into the second
  static constexpr int lane(int i, int lanes, int all) { return i / lanes % 2 ? i - lanes + all : i; }
};
struct SwapHigh {  // the second of each two groups: a's moved into the first place, b's in place
  static constexpr int lane(int i, int lanes, int all) { return i / lanes % 2 ? i + all : i + lanes; }
};

template <class Pick, int kGroup, class V, int... I> inline V pick(V a, V b, std::integer_sequence<int, I...>) {
  return shuffle(a, b, std::integer_sequence<int, Pick::lane(I, kGroup, sizeof...(I))...>{});
}

template <class A> inline void transpose(Vector<A> (&v)[kLanes<A>]) {
  constexpr int lanes = kLanes<A>, group = 16 / static_cast<int>(sizeof(A));
  using All = std::make_integer_sequence<int, lanes>;
  for (int base = 0; base < lanes; base += group) {
    for (int stage = 1; stage < group; stage *= 2) {
      Vector<A> zipped[group];
      for (int i = 0; i < group / 2; ++i) {
        const Vector<A> a = v[base + i], b = v[base + i + group / 2];
        zipped[2 * i] = pick<ZipLow, group>(a, b, All{});
        zipped[2 * i + 1] = pick<ZipHigh, group>(a, b, All{});
      }
      for (int i = 0; i < group; ++i) v[base + i] = zipped[i];
    }
  }
  const auto swap = [&](auto distance) {  // the distance of vectors and, in lanes, of groups
    constexpr int width = decltype(distance)::value;
    for (int i = 0; i < lanes; ++i) {
      if (i & width) continue;
      const Vector<A> a = v[i], b = v[i + width];
      v[i] = pick<SwapLow, width>(a, b, All{});
      v[i + width] = pick<SwapHigh, width>(a, b, All{});
    }
  };
  if constexpr (lanes > group) swap(std::integral_constant<int, group>{});
  if constexpr (lanes > 2 * group) swap(std::integral_constant<int, 2 * group>{});
}

}  // namespace EBGAN_ISA
