// One source for nvcc and for a simulator in C++ (gpuless): what C++ cannot say, as functions.
#pragma once

#ifdef __CUDACC__

#include <cuda_runtime.h>

namespace gpu {

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                   Arguments... arguments) {
  kernel<<<grid, block, shared, stream>>>(arguments...);
  return cudaGetLastError();
}

// The block's dynamic shared memory; every call gives the same.
template <class T> __device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

}  // namespace gpu

#else
#include "simt.h"
#endif
