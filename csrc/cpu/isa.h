// What differs between instruction sets: the namespace, the vector width, and the vector types.
// Every kernel file is compiled once per instruction set with EBGAN_ISA (a namespace) and EBGAN_VECTOR_BYTES defined.
// Kernel files instantiate no std function templates: the linker keeps one copy of those, perhaps the AVX2 one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace EBGAN_ISA {

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

// Uninitialised, cache-line aligned memory; throws std::bad_alloc, so never created inside a parallel region.
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

}  // namespace EBGAN_ISA
