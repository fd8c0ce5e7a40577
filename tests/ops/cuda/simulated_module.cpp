// The bindings of csrc/bindings_cuda.cpp over kernels that run in the SIMT simulator, on tensors of the CPU.
#include <pybind11/pybind11.h>

#include <driver_types.h>

#include "bindings.h"

extern "C" {
const char* cudaGetErrorName(cudaError_t error) { return error == cudaSuccess ? "cudaSuccess" : "cudaErrorUnknown"; }
const char* cudaGetErrorString(cudaError_t) { return "of the simulator"; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
}

PYBIND11_MODULE(_simulated, m) { ebgan::bind_cuda(m); }
