// Functions in place of CUDA's own syntax, so that nvcc and the SIMT simulator compile the same source.
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

// Returns the block's dynamic shared memory: the same pointer at every call.
template <class T> __device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

}  // namespace gpu

#else
#include "simt.h"
#endif
