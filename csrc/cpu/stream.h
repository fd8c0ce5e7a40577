// Stores past the cache. A gradient as large as the cache is not there any more when it is read; an ordinary store would
// read each line from memory first and push the inputs out.
#pragma once

#include "caches.h"
#include "convert.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace EBGAN_ISA {

// caches.h says from which size, docs/performance.md why. A product writes pieces of 512 bytes, each to another page, and
// gains from a quarter of it on.
inline bool streams_rows(int64_t bytes, int threads) { return bytes >= ebgan::stream_bytes(threads); }
inline bool streams_pieces(int64_t bytes, int threads) { return bytes >= ebgan::stream_bytes(threads) / 4; }

template <class Bits> inline void stream_bits(void* to, const Bits& bits) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Bits) == 64) return _mm512_stream_si512(static_cast<__m512i*>(to), bit_cast<__m512i>(bits));
#endif
#if defined(__AVX__)
  if constexpr (sizeof(Bits) == 32) return _mm256_stream_si256(static_cast<__m256i*>(to), bit_cast<__m256i>(bits));
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(Bits) == 16) return _mm_stream_si128(static_cast<__m128i*>(to), bit_cast<__m128i>(bits));
  if constexpr (sizeof(Bits) == 8) return _mm_stream_si64(static_cast<long long*>(to), bit_cast<long long>(bits));
#endif
  __builtin_memcpy(to, &bits, sizeof bits);
}

inline void stream(float* to, FloatVector value) { stream_bits(to, value); }
inline void stream(double* to, DoubleVector value) { stream_bits(to, value); }
template <class T> inline void stream(T* to, FloatVector value) { stream_bits(to, from_float(T{}, value)); }

// Whether whole vectors can be streamed to a row that starts here.
template <class T> inline bool can_stream(const T* to) {
  return reinterpret_cast<uintptr_t>(to) % (kLanes<Accumulator<T>> * sizeof(T)) == 0;
}

template <bool kStream, class T> inline void put(T* to, Accumulators<T> value, int64_t left) {
  if (left < kLanes<Accumulator<T>>) store_partial(to, value, left);
  else if (kStream) stream(to, value);
  else store(to, value);
}

// Zeros of any type are zero bytes.
template <class T> inline void put_zeros(T* to, int64_t count, bool stream) {
  using A = Accumulator<T>;
  if (!stream || !can_stream(to)) {
    __builtin_memset(to, 0, static_cast<size_t>(count) * sizeof(T));
    return;
  }
  for (int64_t k = 0; k < count; k += kLanes<A>) put<true>(to + k, Vector<A>{}, count - k);
}

// Streamed stores become visible in no order; a thread calls this after its last.
inline void end_stream() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace EBGAN_ISA
