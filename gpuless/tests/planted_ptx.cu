// Kernels for the tests of the PTX simulator. They are correct as they stand; -DBUG_... plants the bug that a test
// chooses.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

constexpr int kThreads = 128;

// Sums rows: [gridDim.x, 4 n4] -> [gridDim.x].
extern "C" __global__ void __launch_bounds__(kThreads) row_sums(const float4* __restrict__ x, float* __restrict__ sums, int n4) {
    __shared__ float of_warp[kThreads / 32];
    const float4* row = x + static_cast<long long>(blockIdx.x) * n4;
    float sum = 0;
#ifdef BUG_ONE_TOO_MANY
    const int end = n4 + 1;
#else
    const int end = n4;
#endif
    for (int i = threadIdx.x; i < end; i += kThreads) {
        const float4 v = row[i];
        sum += (v.x + v.y) + (v.z + v.w);
    }
#ifdef BUG_PARTIAL_SHUFFLE
    if (threadIdx.x < 40)
#endif
    for (int mask = 16; mask; mask >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
#ifdef BUG_PARTIAL_BARRIER
    if (threadIdx.x < 32) __syncthreads();
#elif !defined(BUG_NO_BARRIER)
    __syncthreads();
#endif
    if (threadIdx.x == 0) {
        float total = 0;
        for (int warp = 0; warp < kThreads / 32; ++warp) total += of_warp[warp];
        sums[blockIdx.x] = total;
    }
}

// Computes a 32 x 32 tile of [m, k] [k, n], from float16 to bfloat16. Dynamic shared memory holds a tile of each
// factor.
extern "C" __global__ void product(const __half* __restrict__ a, const __half* __restrict__ b, __nv_bfloat16* __restrict__ c,
                                   int m, int n, int k) {
    extern __shared__ float tiles[];
    float(*left)[33] = reinterpret_cast<float(*)[33]>(tiles);
    float(*right)[33] = left + 32;
    const int x = threadIdx.x, row = blockIdx.y * 32, column = blockIdx.x * 32 + x;
    float sum[8] = {};
    for (int first = 0; first < k; first += 32) {
        for (int y = threadIdx.y; y < 32; y += blockDim.y) {
            left[y][x] = row + y < m && first + x < k ? __half2float(a[(row + y) * k + first + x]) : 0.f;
            right[y][x] = first + y < k && column < n ? __half2float(b[(first + y) * n + column]) : 0.f;
        }
        __syncthreads();
        for (int i = 0; i < 32; ++i)
            for (int y = 0; y < 8; ++y) sum[y] = fmaf(left[threadIdx.y * 8 + y][i], right[i][x], sum[y]);
#ifndef BUG_NO_BARRIER
        __syncthreads();
#endif
    }
    for (int y = 0; y < 8; ++y) {
        const int at = row + threadIdx.y * 8 + y;
        if (at < m && column < n) c[at * n + column] = __float2bfloat16(sum[y]);
    }
}

extern "C" __global__ void histogram(const int* values, int n, int* counts) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
#ifdef BUG_NOT_ATOMIC
        counts[values[i] % 16] += 1;
#else
        atomicAdd(counts + values[i] % 16, 1);
#endif
    }
}

// Computes column sums of [gridDim.x, kThreads]. Every block stores its row, doubled, and the last to arrive adds all.
extern "C" __global__ void __launch_bounds__(kThreads)
    total_by_last(const float* x, float* partials, unsigned* counter, float* total) {
    __shared__ bool is_last;
    const int at = blockIdx.x * kThreads + threadIdx.x;
    partials[at] = 2 * x[at];
#ifndef BUG_NO_FENCE
    __threadfence();
#endif
#ifndef BUG_NO_BARRIER
    __syncthreads();
#endif
    if (threadIdx.x == 0) is_last = atomicAdd(counter, 1) == gridDim.x - 1;
    __syncthreads();
    if (!is_last) return;
#ifndef BUG_NO_SECOND_FENCE
    __threadfence();
#endif
    float sum = 0;
    for (int block = 0; block < gridDim.x; ++block) sum += partials[block * kThreads + threadIdx.x];
    total[threadIdx.x] = sum;
    if (threadIdx.x == 0) *counter = 0;
}
