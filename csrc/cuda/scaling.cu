// Multiplies gradients if backward gets another upstream than expected. Only the device knows the upstream that came.
#include "dtypes.cuh"
#include "kernels.h"

#include <type_traits>

namespace ebgan::cuda {

constexpr int kScalingThreads = 256;
// If the upstream is the expected one, the blocks only start and end. So there are no more than a large GPU holds at
// once.
constexpr int64_t kMostScalingBlocks = 1024;

template <class T> struct Scaled {
  const T* p_from;  // [count]
  T* p_to;          // [count], another tensor or the same
  int64_t count;
  bool is_wide;  // both are aligned to 16 bytes
};

template <class T> struct ScaledOnes {
  Scaled<T> of[kMostGradients];  // missing ones have a count of 0
};

template <class T, int kWidth> __device__ void scale_packet(const Scaled<T>& one, int64_t first, Acc<T> factor) {
  Packet<T, kWidth> packet = load<T, kWidth>(one.p_from + first);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) packet.values[j] = narrow<T>(widen(packet.values[j]) * factor);
  store<T, kWidth>(one.p_to + first, packet);
}

// Writes to = upstream / expected * from, rounded once. If upstream equals expected and the call is in place, nothing
// is written. NaN equals nothing.
template <class T>
__global__ void __launch_bounds__(kScalingThreads)
    multiply_gradients(ScaledOnes<T> gradients,   //
                       Scalar<Acc<T>> upstream,   //
                       Scalar<Acc<T>> expected,   //
                       bool is_in_place) {
  const Acc<T> came = upstream.get(), awaited = expected.get(), factor = came == awaited ? Acc<T>{1} : came / awaited;
  if (is_in_place && came == awaited) return;
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, threads = int64_t{gridDim.x} * blockDim.x;
#pragma unroll  // without it, for sm_75, nvcc indexed a copy of the arguments on the stack
  for (int g = 0; g < kMostGradients; ++g) {
    const Scaled<T> one = gradients.of[g];
    const int64_t in_packets = one.is_wide ? one.count / kWide<T> * kWide<T> : 0;
    for (int64_t i = thread * kWide<T>; i < in_packets; i += threads * kWide<T>)
      scale_packet<T, kWide<T>>(one, i, factor);
    for (int64_t i = in_packets + thread; i < one.count; i += threads) scale_packet<T, 1>(one, i, factor);
  }
}

inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

cudaError_t scale_gradients(DType dtype, const Gradient* gradients, int count, Coefficient upstream, Coefficient expected,
                            bool in_place, cudaStream_t stream) {
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    ScaledOnes<T> ones{};
    int64_t longest = 0;
    for (int i = 0; i < count; ++i) {
      const Gradient& it = gradients[i];
      ones.of[i] = {static_cast<const T*>(it.from), static_cast<T*>(it.to), it.count,
                    is_aligned(it.from) && is_aligned(it.to)};
      if (it.count > longest) longest = it.count;
    }
    if (longest == 0) return cudaSuccess;
    const int64_t wanted = ceil_div(longest, kScalingThreads * kWide<T>);
    const dim3 blocks(static_cast<unsigned>(wanted < kMostScalingBlocks ? wanted : kMostScalingBlocks));
    return gpu::launch(multiply_gradients<T>, blocks, dim3(kScalingThreads), 0, stream, ones,
                       scalar_of<Acc<T>>(upstream), scalar_of<Acc<T>>(expected), in_place);
  });
}

}  // namespace ebgan::cuda
