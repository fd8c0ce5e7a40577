// Sums in a fixed order, and the block that arrives last.
#pragma once

#include "launch.cuh"

#include <cstdint>

namespace ebgan::cuda {

constexpr int kWarp = 32;
constexpr unsigned kEveryLane = 0xffffffffu;
constexpr int kMostWarps = 32;

// The same bits in every lane: each pair of lanes adds the same two numbers.
template <class A> __device__ A sum_of_warp(A x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kEveryLane, x, distance);
  return x;
}

// Of every thread of the block, in every thread; all of them must come.
template <class A> __device__ A sum_of_block(A x) {
  __shared__ A sums[kMostWarps];
  x = sum_of_warp(x);
  __syncthreads();  // an earlier sum may still be read
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = x;
  __syncthreads();
  A total = 0;
  for (unsigned warp = 0; warp < blockDim.x / kWarp; ++warp) total += sums[warp];
  return total;
}

// Counts the block in; true for the last of `count`, which then sees what all the others stored. Every thread must
// come. The counter is left at zero.
__device__ inline bool arrives_last(int32_t* p_counter, unsigned count) {
  __shared__ bool is_last;
  __threadfence();  // what this thread stored, before the block is counted
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = static_cast<unsigned>(atomicAdd(p_counter, 1)) == count - 1;
    if (is_last) *p_counter = 0;
  }
  __syncthreads();
  if (is_last) __threadfence();
  return is_last;
}

}  // namespace ebgan::cuda
