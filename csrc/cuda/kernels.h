// The kernels for NVIDIA GPUs. Pointers are the device's; every function launches on `stream`, allocates nothing, waits
// for nothing, and returns what the launch said, so that a CUDA graph can capture it. Results are the same bits in
// every run. ../kernels.h has the arguments.
#pragma once

#include <cstdint>

#include <driver_types.h>  // cudaError_t, cudaStream_t

#include "../kernels.h"

namespace ebgan::cuda {

// Scratch memory of a call, from the caller. Counters are zeros, and are left as zeros.
struct Workspace {
  void* partials;  // acc
  int32_t* counters;
};

struct WorkspaceSize {
  int64_t partials;  // elements of acc
  int64_t counters;
};

// In one launch; l2 of samples too long for a block takes several.
WorkspaceSize loss_workspace(DType, const Loss&);
cudaError_t loss(DType, const Loss&, Workspace, cudaStream_t);

cudaError_t energy_gradient(DType, const EnergyGradient&, cudaStream_t);

cudaError_t hinge(DType acc, const Hinge&, cudaStream_t);

// Whether float32 products may run as one tf32 product, or as three that keep float32's accuracy.
enum class Float32Products : int { kExact = 0, kTf32 = 1 };

WorkspaceSize pulling_away_workspace(DType, const Code&);
cudaError_t pulling_away(DType, const PullingAway&, Float32Products, Workspace, cudaStream_t);

cudaError_t pulling_away_gradient(DType, const PullingAwayGradient&, Float32Products, cudaStream_t);

constexpr int kMostGradients = 4;  // of any op

struct Gradient {
  const void* from;  // one run of `count` numbers
  void* to;
  int64_t count;
};

// Gradients that were made for the upstream `expected`, as they are for `upstream`: to = upstream / expected * from for at
// most kMostGradients gradients of one dtype, rounded once. In place (every to is its from) an upstream that was expected
// moves nothing.
cudaError_t scale_gradients(DType, const Gradient*, int count, Coefficient upstream, Coefficient expected, bool in_place,
                            cudaStream_t);

}  // namespace ebgan::cuda
