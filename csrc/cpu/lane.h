// The content of a lane of a packed panel, and the product of two lanes.
#pragma once

#include "processor.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace EBGAN_ISA {

// Lanes that hold one element of T each, widened to A, and their product.
template <class T> struct Widened {
  using A = Accumulator<T>;
  static constexpr int64_t kElements = 1;  // per lane
  static Vector<A> read(const T* from) { return load(from); }
  static Vector<A> read_partial(const T* from, int64_t count) { return load_partial(from, count); }
  static void multiply_add(Vector<A>& sum, A a, Vector<A> b) { sum += a * b; }
  static void multiply_add(Vector<A>& sum, Vector<A> a, Vector<A> b) { sum += a * b; }
};

// Lanes that hold two bfloat16 each, as bits in the order of memory, not as numbers. Products are exact in float32, so
// the sums differ from those of widened elements only in their order.
struct PairsOfBFloat16 {
  static constexpr int64_t kElements = 2;
  static FloatVector read(const BFloat16* from) { return read_as<FloatVector>(from); }
  static FloatVector read_partial(const BFloat16* from, int64_t count) {
    BFloat16 pairs[2 * kFloats] = {};
    __builtin_memcpy(pairs, from, static_cast<size_t>(count) * sizeof(BFloat16));
    return read(pairs);
  }
  static void multiply_add(FloatVector& sum, float a, FloatVector b) {
    multiply_add(sum, bit_cast<FloatVector>(Bits32{} + bit_cast<uint32_t>(a)), b);
  }
  static void multiply_add(FloatVector& sum, FloatVector a, FloatVector b) {
#if defined(__AVX512BF16__)
    sum = bit_cast<FloatVector>(_mm512_dpbf16_ps(bit_cast<__m512>(sum), bit_cast<__m512bh>(a), bit_cast<__m512bh>(b)));
#else
    const Bits32 high = Bits32{} + 0xffff0000u, left = bit_cast<Bits32>(a), right = bit_cast<Bits32>(b);
    sum += bit_cast<FloatVector>(left & high) * bit_cast<FloatVector>(right & high);
    sum += bit_cast<FloatVector>(left << 16) * bit_cast<FloatVector>(right << 16);
#endif
  }
};

// The lanes of a product of codes with themselves. Without an instruction for the dot product of bfloat16 pairs, each
// pair takes two multiplications. A build with EBGAN_PAIRED_BFLOAT16 uses pairs anyway, so that they can be tested on
// any processor.
template <class T> struct LaneOf { using type = Widened<T>; };
#if defined(__AVX512BF16__) || defined(EBGAN_PAIRED_BFLOAT16)
template <> struct LaneOf<BFloat16> { using type = PairsOfBFloat16; };
#endif

}  // namespace EBGAN_ISA
