// Storage types and their accumulation types; loads and stores round to nearest even and keep NaN.
#pragma once

#include "isa.h"

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace EBGAN_ISA {

struct BFloat16 { uint16_t bits; };
struct Half { uint16_t bits; };

template <class T> struct AccumulatorOf { using type = float; };
template <> struct AccumulatorOf<double> { using type = double; };
template <class T> using Accumulator = typename AccumulatorOf<T>::type;
template <class T> using Accumulators = Vector<Accumulator<T>>;

constexpr int kFloats = kLanes<float>;
typedef uint32_t Bits32 __attribute__((vector_size(EBGAN_VECTOR_BYTES)));
typedef uint16_t Bits16 __attribute__((vector_size(EBGAN_VECTOR_BYTES / 2)));

template <class To, class From> inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

template <class To> inline To read_as(const void* from) {
  To to;
  __builtin_memcpy(&to, from, sizeof(To));
  return to;
}

// The same numbers in 32 bits, and back. From the generic form GCC 12 makes four and six instructions where one and three
// do: bfloat16 losses were 1.8 times slower. (AVX-512 has masked forms of all lanes because GCC 12 warns of an
// uninitialised variable inside the plain ones.)
#if defined(__AVX512F__) && EBGAN_VECTOR_BYTES == 64
inline Bits32 widen(Bits16 bits) {
  return bit_cast<Bits32>(_mm512_maskz_cvtepu16_epi32(0xffff, bit_cast<__m256i>(bits)));
}
inline Bits16 narrow(Bits32 bits) {
  return bit_cast<Bits16>(_mm512_maskz_cvtepi32_epi16(0xffff, bit_cast<__m512i>(bits)));
}
#elif defined(__AVX2__) && EBGAN_VECTOR_BYTES == 32
inline Bits32 widen(Bits16 bits) { return bit_cast<Bits32>(_mm256_cvtepu16_epi32(bit_cast<__m128i>(bits))); }
inline Bits16 narrow(Bits32 bits) {
  const __m256i v = bit_cast<__m256i>(bits);
  return bit_cast<Bits16>(_mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}
#else
inline Bits32 widen(Bits16 bits) { return __builtin_convertvector(bits, Bits32); }
inline Bits16 narrow(Bits32 bits) { return __builtin_convertvector(bits, Bits16); }
#endif

inline FloatVector to_float(BFloat16, Bits16 bits) { return bit_cast<FloatVector>(widen(bits) << 16); }

inline Bits16 from_float(BFloat16, FloatVector value) {
  const Bits32 bits = bit_cast<Bits32>(value), nan = Bits32{} + 0x7fc00000u;
  const Bits32 rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  return narrow((value == value ? rounded : nan) >> 16);
}

#if defined(__F16C__) && EBGAN_VECTOR_BYTES == 32
inline FloatVector to_float(Half, Bits16 bits) {
  return bit_cast<FloatVector>(_mm256_cvtph_ps(bit_cast<__m128i>(bits)));
}

inline Bits16 from_float(Half, FloatVector value) {
  return bit_cast<Bits16>(_mm256_cvtps_ph(bit_cast<__m256>(value), _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__AVX512F__) && EBGAN_VECTOR_BYTES == 64
inline FloatVector to_float(Half, Bits16 bits) {
  return bit_cast<FloatVector>(_mm512_maskz_cvtph_ps(0xffff, bit_cast<__m256i>(bits)));
}

inline Bits16 from_float(Half, FloatVector value) {
  return bit_cast<Bits16>(_mm512_maskz_cvtps_ph(0xffff, bit_cast<__m512>(value), _MM_FROUND_TO_NEAREST_INT));
}
#else
// No step below makes or reads a subnormal float, so the result holds when the processor flushes those to zero.
inline FloatVector to_float(Half, Bits16 half) {
  typedef int32_t Int32 __attribute__((vector_size(EBGAN_VECTOR_BYTES)));
  const Bits32 wide = widen(half);
  const Bits32 sign = (wide & 0x8000u) << 16;
  const Bits32 magnitude = wide & 0x7fffu;
  const FloatVector subnormal = __builtin_convertvector(bit_cast<Int32>(magnitude), FloatVector) * 0x1p-24f;
  const Bits32 normal = (magnitude << 13) + (112u << 23);
  const Bits32 infinite_or_nan = (magnitude << 13) + (224u << 23);
  const Bits32 finite = magnitude < 0x400u ? bit_cast<Bits32>(subnormal) : normal;
  return bit_cast<FloatVector>((magnitude >= 0x7c00u ? infinite_or_nan : finite) | sign);
}

inline Bits16 from_float(Half, FloatVector value) {
  const Bits32 bits = bit_cast<Bits32>(value);
  const Bits32 sign = (bits >> 16) & 0x8000u;
  const Bits32 magnitude = bits & 0x7fffffffu;
  // One unit in the last place of 0.5f is the smallest half, so this addition rounds to a multiple of it.
  const FloatVector shifted = bit_cast<FloatVector>(magnitude) + 0.5f;
  const Bits32 subnormal = bit_cast<Bits32>(shifted) - 0x3f000000u;
  const Bits32 normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const Bits32 quiet = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  const Bits32 infinity = Bits32{} + 0x7c00u;
  Bits32 result = magnitude < 0x38800000u ? subnormal : normal;
  result = magnitude >= 0x477ff000u ? infinity : result;  // 65520 is the first value that rounds to infinity
  result = magnitude > 0x7f800000u ? quiet : result;
  return narrow(result | sign);
}
#endif

inline FloatVector load(const float* from) { return read_as<FloatVector>(from); }
inline DoubleVector load(const double* from) { return read_as<DoubleVector>(from); }
template <class T> inline FloatVector load(const T* from) { return to_float(T{}, read_as<Bits16>(from)); }

inline void store(float* to, FloatVector value) { __builtin_memcpy(to, &value, sizeof value); }
inline void store(double* to, DoubleVector value) { __builtin_memcpy(to, &value, sizeof value); }
template <class T> inline void store(T* to, FloatVector value) {
  const Bits16 bits = from_float(T{}, value);
  __builtin_memcpy(to, &bits, sizeof bits);
}

// The last `count` < kLanes elements of a row; lanes beyond them are 0 on a load and untouched on a store.
template <class T> inline Accumulators<T> load_partial(const T* from, int64_t count) {
  T row[kLanes<Accumulator<T>>] = {};
  __builtin_memcpy(row, from, static_cast<size_t>(count) * sizeof(T));
  return load(row);
}

template <class T> inline void store_partial(T* to, Accumulators<T> value, int64_t count) {
  T row[kLanes<Accumulator<T>>];
  store(row, value);
  __builtin_memcpy(to, row, static_cast<size_t>(count) * sizeof(T));
}

template <class T> inline Accumulators<T> load_up_to(const T* from, int64_t left) {
  return left >= kLanes<Accumulator<T>> ? load(from) : load_partial(from, left);
}

template <class T> inline void store_up_to(T* to, Accumulators<T> value, int64_t left) {
  left >= kLanes<Accumulator<T>> ? store(to, value) : store_partial(to, value, left);
}

}  // namespace EBGAN_ISA
