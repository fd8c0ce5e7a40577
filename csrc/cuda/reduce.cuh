// Sums in a fixed order, and the test for the last block to finish.
#pragma once

#include "launch.cuh"

#include <cstdint>

namespace ebgan::cuda {

constexpr int kWarp = 32;
constexpr unsigned kEveryLane = 0xffffffffu;
constexpr int kMostWarps = 32;

// Returns the sum over a warp, with the same bits in every lane, because each pair of lanes adds the same two numbers.
template <class A> __device__ A sum_of_warp(A x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kEveryLane, x, distance);
  return x;
}

// Returns the sum over a block, in every thread. Every thread of the block must call this.
template <class A> __device__ A sum_of_block(A x) {
  __shared__ A sums[kMostWarps];
  x = sum_of_warp(x);
  __syncthreads();  // an earlier sum may still be in use
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = x;
  __syncthreads();
  A total = 0;
  for (unsigned warp = 0; warp < blockDim.x / kWarp; ++warp) total += sums[warp];
  return total;
}

// Counts the block. Returns true in the last block of `count`, which then sees all stores of the others. Every thread
// of the block must call this. The counter returns to zero.
__device__ inline bool arrives_last(int32_t* p_counter, unsigned count) {
  __shared__ bool is_last;
  __threadfence();  // this thread's stores must be visible before the block is counted
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
