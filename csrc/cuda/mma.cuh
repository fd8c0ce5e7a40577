// Products of a warp. From sm_80 on they run in tensor cores. For float64 and on older GPUs they are one multiply-add
// after the other.
//
// A warp's result is made of tiles of 16 x 8. A lane holds four numbers of each tile, in rows group and group + 8 with
// group = lane / 4, and in columns 2 * (lane % 4) and the next one.
#pragma once

#include "dtypes.cuh"
#include "reduce.cuh"

#ifdef __CUDACC__

namespace gpu {

// c [16, 8] += a [16, 16] b [16, 8], with 16-bit numbers in pairs. PTX's documentation defines the lanes' parts.
template <class T> __device__ void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

template <>
__device__ inline void mma_m16n8k16<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ inline void mma_m16n8k16<__half>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c [16, 8] += a [16, 8] b [8, 8], with numbers rounded to tf32.
__device__ inline void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline uint32_t to_tf32(float x) {
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
  return rounded;
}

#endif

}  // namespace gpu

#endif

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define EBGAN_TENSOR_CORES 1
#else
#define EBGAN_TENSOR_CORES 0
#endif

namespace ebgan::cuda {

// A factor in shared memory. Its rows are the rows (left) or columns (right) of the product.
template <class S> struct Factor {
  const S* p_tile;
  int row_step;    // from one row to the next
  int depth_step;  // from one number of a row to the next; 1 for 16-bit numbers, which are read in pairs

  __device__ S at(int row, int k) const { return p_tile[row * row_step + k * depth_step]; }
  __device__ Factor from(int row) const { return {p_tile + row * row_step, row_step, depth_step}; }
};

// The numbers of a lane in a warp's tiles, kRows x kColumns tiles.
template <class A, int kRows, int kColumns> struct Sums {
  A values[kRows][kColumns][4];

  __device__ void clear() {
    for (auto& row : values)
      for (auto& tile : row)
        for (A& value : tile) value = 0;
  }

  // Calls visit(row, column, value) for each number of the lane, with its place within the warp's tiles.
  template <class Visit> __device__ void each(const Visit& visit) {
    const int lane = threadIdx.x % kWarp, group = lane / 4, pair = lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) visit(i * 16 + group + e / 2 * 8, j * 8 + pair + e % 2, values[i][j][e]);
  }
};

// Adds the product with one multiply-add after the other.
template <class A, class S, int kRows, int kColumns>
__device__ void add_plainly(Sums<A, kRows, kColumns>& sums, Factor<S> left, Factor<S> right, int depth) {
  for (int k = 0; k < depth; ++k)
    sums.each([&](int row, int column, A& sum) {
      sum = fma(static_cast<A>(widen(left.at(row, k))), static_cast<A>(widen(right.at(column, k))), sum);
    });
}

#if EBGAN_TENSOR_CORES

// A float32 number as tf32, and the remainder that tf32 leaves out.
struct Split {
  uint32_t big, small;
};

__device__ inline float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

__device__ inline Split split(float x) {
  const uint32_t big = gpu::to_tf32(x);
  return {big, gpu::to_tf32(x - float_of(big))};
}

template <int kRows, int kColumns>
__device__ void add_in_tf32(Sums<float, kRows, kColumns>& sums, Factor<float> left, Factor<float> right, int depth,
                            bool is_exact) {
  const int lane = threadIdx.x % kWarp, group = lane / 4, member = lane % 4;
  for (int k = 0; k < depth; k += 8) {
    uint32_t big[kRows][4], small[kRows][4];
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const Split it = split(left.at(i * 16 + group + e % 2 * 8, k + member + e / 2 * 4));
        big[i][e] = it.big;
        small[i][e] = it.small;
      }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const Split first = split(right.at(j * 8 + group, k + member));
      const Split second = split(right.at(j * 8 + group, k + member + 4));
      const uint32_t right_big[2] = {first.big, second.big}, right_small[2] = {first.small, second.small};
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if (is_exact) {  // the product of both small parts is below float32's last bit
          gpu::mma_m16n8k8_tf32(sums.values[i][j], small[i], right_big);
          gpu::mma_m16n8k8_tf32(sums.values[i][j], big[i], right_small);
        }
        gpu::mma_m16n8k8_tf32(sums.values[i][j], big[i], right_big);
      }
    }
  }
}

template <class T, int kRows, int kColumns>
__device__ void add_in_16_bits(Sums<float, kRows, kColumns>& sums, Factor<T> left, Factor<T> right, int depth) {
  const int lane = threadIdx.x % kWarp, group = lane / 4, pair = lane % 4 * 2;
  const auto two = [](const Factor<T>& factor, int row, int k) {
    uint32_t bits;
    memcpy(&bits, static_cast<const void*>(factor.p_tile + row * factor.row_step + k), sizeof bits);
    return bits;
  };
  for (int k = 0; k < depth; k += 16) {
    uint32_t a[kRows][4];
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) a[i][e] = two(left, i * 16 + group + e % 2 * 8, k + pair + e / 2 * 8);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const uint32_t b[2] = {two(right, j * 8 + group, k + pair), two(right, j * 8 + group, k + pair + 8)};
#pragma unroll
      for (int i = 0; i < kRows; ++i) gpu::mma_m16n8k16<T>(sums.values[i][j], a[i], b);
    }
  }
}

#endif

// Adds left right^T over `depth` (a multiple of 16) to sums. float32 numbers keep their accuracy if `is_exact`. If not,
// they are rounded to tf32.
template <class A, class S, int kRows, int kColumns>
__device__ void add_product(Sums<A, kRows, kColumns>& sums, Factor<S> left, Factor<S> right, int depth, bool is_exact) {
#if EBGAN_TENSOR_CORES
  if constexpr (sizeof(S) == 2) {
    add_in_16_bits(sums, left, right, depth);
    return;
  } else if constexpr (sizeof(S) == 4) {
    add_in_tf32(sums, left, right, depth, is_exact);
    return;
  }
#endif
  if constexpr (!EBGAN_TENSOR_CORES || sizeof(S) == 8) add_plainly(sums, left, right, depth);
  static_cast<void>(is_exact);
}

}  // namespace ebgan::cuda
