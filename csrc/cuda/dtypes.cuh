// The dtypes of tensors: the types of their sums, and how numbers and coefficients are loaded and stored.
#pragma once

#include "launch.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels.h"

namespace ebgan::cuda {

template <class T> struct AccOf {
  using type = float;
};
template <> struct AccOf<double> {
  using type = double;
};
template <class T> using Acc = typename AccOf<T>::type;

__device__ inline double widen(double x) { return x; }
__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float widen(__half x) { return __half2float(x); }

template <class T> __device__ T narrow(Acc<T> x);
template <> __device__ inline double narrow<double>(double x) { return x; }
template <> __device__ inline float narrow<float>(float x) { return x; }
template <> __device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ inline __half narrow<__half>(float x) { return __float2half_rn(x); }

// Neighboring numbers that are loaded or stored together: 16 bytes, or one number if the addresses don't allow 16
// bytes.
template <class T, int kWidth> struct alignas(sizeof(T) * kWidth) Packet {
  T values[kWidth];
};
template <class T> constexpr int kWide = 16 / sizeof(T);

template <class T, int kWidth> __device__ Packet<T, kWidth> load(const T* p_from) {
  return *reinterpret_cast<const Packet<T, kWidth>*>(p_from);
}

// Stores a packet into global memory.
template <class T, int kWidth> __device__ void store(T* p_to, const Packet<T, kWidth>& packet) {
  if constexpr (kWidth > 1) {
    // The same as an assignment, in a form that nvcc 13 cannot split into stores of single numbers.
    uint4 bits;
    memcpy(&bits, static_cast<const void*>(&packet), sizeof bits);
    __stwb(reinterpret_cast<uint4*>(p_to), bits);
  } else {
    *reinterpret_cast<Packet<T, kWidth>*>(p_to) = packet;
  }
}

// True if every row of a tensor allows packets of 16 bytes.
template <class T> bool rows_are_wide(const void* pointer, int64_t stride, int64_t rows, int64_t elements) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && (rows < 2 || stride % kWide<T> == 0) &&
         elements % kWide<T> == 0;
}

// Calls run with a null pointer to the dtype's type. Run reads the type from it.
template <class Run> cudaError_t dispatch(DType dtype, const Run& run) {
  switch (dtype) {
    case DType::kFloat64: return run(static_cast<double*>(nullptr));
    case DType::kFloat32: return run(static_cast<float*>(nullptr));
    case DType::kBFloat16: return run(static_cast<__nv_bfloat16*>(nullptr));
    case DType::kFloat16: return run(static_cast<__half*>(nullptr));
  }
  return cudaErrorInvalidValue;
}

// A coefficient as a kernel takes it: in memory, or a number.
template <class A> struct Scalar {
  const A* p_value;
  A number;

  __device__ A get() const { return p_value ? *p_value : number; }
};

template <class A> Scalar<A> scalar_of(Coefficient coefficient) {
  return {static_cast<const A*>(coefficient.pointer), static_cast<A>(coefficient.value)};
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace ebgan::cuda
