// The kernels' view of the processor: vectors and memory, storage types, sums, stores past the cache, thread teams.
//
// Every kernel file is compiled once per instruction set with EBGAN_ISA (a namespace) and EBGAN_VECTOR_BYTES defined.
// Kernel files must not instantiate std function templates: the linker keeps one copy of each, perhaps the AVX2 one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#include "../kernels.h"

#if defined(__SSE2__) || defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#ifdef _OPENMP
#include <omp.h>
#endif

namespace EBGAN_ISA {

// ---- Vectors and memory

typedef float FloatVector __attribute__((vector_size(EBGAN_VECTOR_BYTES)));
typedef double DoubleVector __attribute__((vector_size(EBGAN_VECTOR_BYTES)));

template <class A> struct VectorOf;
template <> struct VectorOf<float> { using type = FloatVector; };
template <> struct VectorOf<double> { using type = DoubleVector; };

template <class A> using Vector = typename VectorOf<A>::type;
template <class A> constexpr int kLanes = EBGAN_VECTOR_BYTES / static_cast<int>(sizeof(A));

template <class A> inline Vector<A> broadcast(A value) { return value - Vector<A>{}; }

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Uninitialized memory, aligned to cache lines. The constructor may throw std::bad_alloc, so no Buffer is created
// inside a parallel region.
template <class A> class Buffer {
 public:
  explicit Buffer(int64_t count)
      : data_(static_cast<A*>(::operator new(static_cast<size_t>(larger(count, 1)) * sizeof(A), kAlign))) {}
  ~Buffer() { ::operator delete(data_, kAlign); }
  Buffer(Buffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  A* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAlign{64};
  A* data_;
};

// ---- Storage types and their accumulation types; loads and stores round to nearest even and keep NaN.

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

// Widens the same numbers to 32 bits, and narrows them back. From the generic form GCC 12 makes four and six
// instructions instead of one and three, and bfloat16 losses were 1.8 times slower. For AVX-512 these are masked forms
// of all lanes, because GCC 12 warns of an uninitialized variable inside the plain forms.
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
  // One unit in the last place of 0.5f is the smallest half, so this addition rounds to a multiple of the smallest
  // half.
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

// The last `count` < kLanes elements of a row. Lanes beyond them are 0 on a load, and a store leaves memory beyond them
// untouched.
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

// Calls run with a value of the dtype's storage type. Run reads the type with decltype.
template <class Run> inline void dispatch(ebgan::DType dtype, const Run& run) {
  switch (dtype) {
    case ebgan::DType::kFloat64: run(double{}); break;
    case ebgan::DType::kFloat32: run(float{}); break;
    case ebgan::DType::kBFloat16: run(BFloat16{}); break;
    case ebgan::DType::kFloat16: run(Half{}); break;
  }
}

// ---- Sums with an error that hardly grows with their length.

template <class V> inline double lane_sum(V v) {
  constexpr int lanes = static_cast<int>(sizeof(V) / sizeof(v[0]));
  double sum = 0;
  for (int i = 0; i < lanes; ++i) sum += v[i];
  return sum;
}

// Returns the sum over k < n of Terms::term(at(k)). at(k, left) gives the vector that starts at element k, 0 beyond the
// end. A lane adds at most 32 terms in A before they move to a double (float: 1024 / 32 lanes). So the error stays near
// that of a pairwise sum at any n. Four chains hide the latency of the addition.
template <class A, class Terms = Squares, class At> inline double sum_of_terms(int64_t n, const At& at) {
  constexpr int64_t lanes = kLanes<A>, step = 4 * lanes, block = 32 * step;
  double total = 0;
  for (int64_t start = 0; start < n; start += block) {
    const int64_t end = smaller(n, start + block);
    Vector<A> s0{}, s1{}, s2{}, s3{};
    int64_t k = start;
    for (; k + step <= end; k += step) {
      const Vector<A> v0 = at(k, step), v1 = at(k + lanes, step), v2 = at(k + 2 * lanes, step),
                      v3 = at(k + 3 * lanes, step);
      s0 += Terms::term(v0);
      s1 += Terms::term(v1);
      s2 += Terms::term(v2);
      s3 += Terms::term(v3);
    }
    for (; k < end; k += lanes) s0 += Terms::term(at(k, end - k));
    total += lane_sum((s0 + s1) + (s2 + s3));
  }
  return total;
}

// ---- Stores past the cache. A gradient as large as the cache is no longer in the cache when it is read. An ordinary
// store would read each line from memory first and evict the inputs.

// See caches.cpp for the size, and docs/performance.md for the reason. A product writes pieces of 512 bytes, each to
// another page, and gains already from a quarter of that size.
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

// True if whole vectors can be streamed to a row that starts here.
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

// Streamed stores become visible in no fixed order. A thread calls this after its last one.
inline void end_stream() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// ---- Fixed tasks over a team of threads. The result of a task doesn't depend on the thread that runs it.

constexpr int64_t kGrainBytes = 32 * 1024;  // for less than about 32 KB a thread, waking it costs more than its work

// The number of threads worth using for `bytes` of traffic cut into `tasks`.
inline int team_size(int threads, int64_t tasks, int64_t bytes) {
  return static_cast<int>(larger(1, smaller(threads, smaller(tasks, bytes / kGrainBytes))));
}

// Calls run(first, last, member) for consecutive ranges of tasks, one per member of the team.
template <class Run> inline void parallel(int64_t tasks, int team, const Run& run) {
#ifdef _OPENMP
  if (team > 1) {
#pragma omp parallel num_threads(team)
    {
      const int64_t member = omp_get_thread_num();
      const int64_t members = omp_get_num_threads();  // the runtime may give fewer threads than requested
      run(tasks * member / members, tasks * (member + 1) / members, static_cast<int>(member));
    }
    return;
  }
#else
  (void)team;
#endif
  run(int64_t{0}, tasks, 0);
}

}  // namespace EBGAN_ISA
