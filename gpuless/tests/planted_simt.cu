// Kernels for test_simt.py. They are correct with Bug::kNone, and a test must see each other bug.
#include "gpuless.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

namespace {

enum class Bug {
  kNone,
  kNoBarrier,            // __syncthreads is left out
  kNoSyncwarp,           // __syncwarp is left out
  kNoAtomic,             // an update reads and writes in two steps
  kReadPastTheEnd,       // of an input
  kWritePastShared,      // of dynamic shared memory
  kIndexPastShared,      // of an array in static shared memory
  kUnwrittenShared,      // shared memory is read before it is written
  kShuffleInABranch,     // names lanes that are elsewhere
  kShuffleFromOutside,   // from a lane outside of the mask
  kShuffleInEachBranch,  // a different shuffle in each
  kMaskWithoutItself,
  kMasksThatDiffer,
  kBarrierInEachBranch,  // a different barrier in each
  kBarrierAfterAReturn,  // other threads have returned before it
};

constexpr const char* kNames[] = {"none",
                                  "no barrier",
                                  "no syncwarp",
                                  "no atomic",
                                  "read past the end",
                                  "write past shared",
                                  "index past shared",
                                  "unwritten shared",
                                  "shuffle in a branch",
                                  "shuffle from outside",
                                  "shuffle in each branch",
                                  "mask without itself",
                                  "masks that differ",
                                  "barrier in each branch",
                                  "barrier after a return"};

Bug named(const char* name) {
  for (int i = 0;; ++i)
    if (!strcmp(name, kNames[i])) return static_cast<Bug>(i);
}

constexpr unsigned kFullWarp = 0xffffffff;
constexpr int kThreads = 256, kWarps = kThreads / 32;

// Each block sums a row of 4 * quads numbers.
template <class T> __global__ void __launch_bounds__(kThreads) row_sum(const float4* in, T* out, int quads, Bug bug) {
  __shared__ T of_warp[kWarps];
  const int thread = threadIdx.x, lane = thread % warpSize, warp = thread / warpSize;
  if (bug == Bug::kBarrierAfterAReturn && warp == kWarps - 1) return;
  const float4* row = in + static_cast<size_t>(blockIdx.x) * quads;
  T sum = 0;
  for (int i = thread; i < quads + (bug == Bug::kReadPastTheEnd); i += kThreads) {
    const float4 value = __ldg(row + i);
    sum += value.x + value.y + value.z + value.w;
  }
  for (int bits = 16; bits; bits /= 2) sum += __shfl_xor_sync(kFullWarp, sum, bits);
  if (lane == 0 && bug != Bug::kUnwrittenShared) of_warp[warp + (bug == Bug::kIndexPastShared)] = sum;
  if (bug == Bug::kBarrierInEachBranch && warp == 0) __syncthreads();
  else if (bug != Bug::kNoBarrier)
    __syncthreads();
  if (thread >= kWarps) return;
  sum = of_warp[thread];
  const unsigned mask = bug == Bug::kShuffleInABranch ? kFullWarp : (1 << kWarps) - 1;
  const int width = bug == Bug::kShuffleFromOutside ? 32 : kWarps;
  for (int delta = kWarps / 2; delta; delta /= 2) sum += __shfl_down_sync(mask, sum, delta, width);
  if (thread == 0) out[blockIdx.x] = sum;
}

constexpr int kTile = 16;

// out[m, n] = a[m, k] b[k, n]; a block of kTile x kTile threads computes a tile.
template <class In, class Out>
__global__ void product(const In* a, const In* b, Out* out, int m, int n, int k, Bug bug) {
  float* const of_a = gpu::dynamic_shared<float>();
  float* const of_b = of_a + kTile * kTile + (bug == Bug::kWritePastShared);
  const int x = threadIdx.x, y = threadIdx.y, column = blockIdx.x * kTile + x, row = blockIdx.y * kTile + y;
  float sum = 0;
  for (int start = 0; start < k; start += kTile) {
    const bool in_a = row < m && start + x < k, in_b = start + y < k && column < n;
    of_a[y * kTile + x] = in_a ? static_cast<float>(a[static_cast<size_t>(row) * k + start + x]) : 0.0f;
    if (in_b) of_b[y * kTile + x] = static_cast<float>(b[static_cast<size_t>(start + y) * n + column]);
    else if (bug != Bug::kUnwrittenShared) of_b[y * kTile + x] = 0;
    __syncthreads();
    for (int i = 0; i < kTile; ++i) sum = fmaf(of_a[y * kTile + i], of_b[i * kTile + x], sum);
    if (bug != Bug::kNoBarrier) __syncthreads();
  }
  if (row < m && column < n) out[static_cast<size_t>(row) * n + column] = static_cast<Out>(sum);
}

// Each warp reverses its numbers. It also stores how many are odd, if any is 0, and if all are positive.
__global__ void warp_facts(const int* in, int* reversed, int4* facts, Bug bug) {
  __shared__ int of_block[kThreads];
  const int thread = threadIdx.x, lane = thread % warpSize, i = blockIdx.x * kThreads + thread;
  const int value = in[i], first = __shfl_sync(kFullWarp, value, 0);
  of_block[thread] = value;
  if (bug != Bug::kNoSyncwarp) __syncwarp();
  reversed[i] = of_block[thread - lane + warpSize - 1 - lane];
  const int odd = __popc(__ballot_sync(kFullWarp, value % 2));
  const int any_zero = __any_sync(kFullWarp, value == 0), all_positive = __all_sync(kFullWarp, value > 0);
  if (lane == 0) facts[i / warpSize] = make_int4(first, odd, any_zero, all_positive);
}

// Stores 32 numbers after each kind of shuffle, in segments of 8 and 16 lanes.
__global__ void shuffles(const int* in, int* out, Bug bug) {
  const int lane = threadIdx.x, value = in[lane];
  unsigned mask = kFullWarp;
  if (bug == Bug::kMaskWithoutItself && lane == 5) mask = ~(1u << 5);
  if (bug == Bug::kMasksThatDiffer && lane >= 16) mask = ~1u;
  if (bug == Bug::kShuffleInEachBranch && lane < 16) out[lane] = __shfl_sync(mask, value, lane ^ 1);
  else out[lane] = __shfl_xor_sync(mask, value, 1);
  out[32 + lane] = __shfl_sync(kFullWarp, value, 11, 8);
  out[64 + lane] = __shfl_xor_sync(kFullWarp, value, 24, 16);
  out[96 + lane] = __shfl_down_sync(kFullWarp, value, 3u, 8);
}

// Without a bug, each block adds its warps' sums and waits for all of them. The first warp is kept busy for long.
__global__ void block_totals(const int* in, int* totals, Bug bug) {
  __shared__ int total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  const int before = total;
  int sum = in[blockIdx.x * kThreads + threadIdx.x];
  for (int bits = 16; bits; bits /= 2) sum += __shfl_xor_sync(kFullWarp, sum, bits);
  if (threadIdx.x % warpSize == 0) {
    if (bug == Bug::kNoAtomic) total = before + sum;
    else atomicAdd(&total, sum);
  }
  if (threadIdx.x < warpSize)
    for (int step = 0; step < 100; ++step) __syncwarp();
  if (bug != Bug::kNoBarrier) __syncthreads();
  if (threadIdx.x == 0) totals[blockIdx.x] = total;
}

// The first `count` lanes reverse their numbers. The other lanes have ended by then.
__global__ void turn_around(const int* in, int* out, int count) {
  __shared__ int of_warp[32];
  const int lane = threadIdx.x;
  if (lane >= count) return;
  of_warp[lane] = in[lane];
  __syncwarp();
  out[lane] = of_warp[count - 1 - lane];
}

// Computes a histogram of 16 bins and the largest number. The last block to end writes the sum of the bins and its own
// number, and sets the counts back to 0.
__global__ void histogram(const int* in, int count, int* bins, int* largest, unsigned* ended, int* last) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) {
    atomicAdd(bins + in[i] % 16, 1);
    for (int seen = *largest; in[i] > seen;) seen = atomicCAS(largest, seen, in[i]);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x != 0 || atomicAdd(ended, 1u) != gridDim.x - 1) return;
  int total = 0;
  for (int bin = 0; bin < 16; ++bin) total += atomicExch(bins + bin, 0);
  last[0] = total;
  last[1] = blockIdx.x;
  *ended = 0;
}

dim3 tiles(int columns, int rows) { return dim3((columns + kTile - 1) / kTile, (rows + kTile - 1) / kTile); }

}  // namespace

extern "C" void run_row_sum(const float* in, float* out, int rows, int quads, const char* bug) {
  gpu::launch(row_sum<float>, rows, kThreads, 0, nullptr, reinterpret_cast<const float4*>(in), out, quads, named(bug));
}

extern "C" void run_product(const void* a, const void* b, void* out, int m, int n, int k, int to_half,
                            const char* bug) {
  const dim3 threads(kTile, kTile);
  const size_t shared = 2 * kTile * kTile * sizeof(float);
  const auto *half_a = static_cast<const __half*>(a), *half_b = static_cast<const __half*>(b);
  const auto *wide_a = static_cast<const __nv_bfloat16*>(a), *wide_b = static_cast<const __nv_bfloat16*>(b);
  if (to_half)
    gpu::launch(product<__nv_bfloat16, __half>, tiles(n, m), threads, shared, nullptr, wide_a, wide_b,
                static_cast<__half*>(out), m, n, k, named(bug));
  else
    gpu::launch(product<__half, __nv_bfloat16>, tiles(n, m), threads, shared, nullptr, half_a, half_b,
                static_cast<__nv_bfloat16*>(out), m, n, k, named(bug));
}

extern "C" void run_warp_facts(const int* in, int* reversed, int* facts, int blocks, const char* bug) {
  gpu::launch(warp_facts, blocks, kThreads, 0, nullptr, in, reversed, reinterpret_cast<int4*>(facts), named(bug));
}

extern "C" void run_shuffles(const int* in, int* out, const char* bug) {
  gpu::launch(shuffles, 1, 32, 0, nullptr, in, out, named(bug));
}

extern "C" void run_block_totals(const int* in, int* totals, int blocks, const char* bug) {
  gpu::launch(block_totals, blocks, kThreads, 0, nullptr, in, totals, named(bug));
}

extern "C" void run_turn_around(const int* in, int* out, int count) {
  gpu::launch(turn_around, 1, 32, 0, nullptr, in, out, count);
}

extern "C" void run_histogram(const int* in, int count, int* bins, int* largest, unsigned* ended, int* last) {
  gpu::launch(histogram, (count + 127) / 128, 128, 0, nullptr, in, count, bins, largest, ended, last);
}
