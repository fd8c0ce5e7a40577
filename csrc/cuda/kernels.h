// The launches of the kernels for NVIDIA GPUs. Pointers are the device's. Every function launches on `stream`,
// allocates nothing, waits for nothing, and returns the launch's error code, so that a CUDA graph can capture it.
// Results have the same bits in every run. ../kernels.h has the arguments.
#pragma once

#include <cstdint>

#include <driver_types.h>  // cudaError_t, cudaStream_t

#include "../kernels.h"

namespace ebgan::cuda {

// The scratch memory of a call, which the caller allocates. Counters are zeros before the call and after it.
struct Workspace {
  void* partials;  // acc
  int32_t* counters;
};

struct WorkspaceSize {
  int64_t partials;  // elements of acc
  int64_t counters;
};

// One launch, or several for l2 of samples too long for a block.
WorkspaceSize loss_workspace(DType, const Loss&);
cudaError_t loss(DType, const Loss&, Workspace, cudaStream_t);

cudaError_t energy_gradient(DType, const EnergyGradient&, cudaStream_t);

cudaError_t hinge(DType acc, const Hinge&, cudaStream_t);

// How float32 products run: as one tf32 product, or as three that keep float32's accuracy.
enum class Float32Products : int { kExact = 0, kTf32 = 1 };

WorkspaceSize pulling_away_workspace(DType, const Code&);
cudaError_t pulling_away(DType, const PullingAway&, Float32Products, Workspace, cudaStream_t);

cudaError_t pulling_away_gradient(DType, const PullingAwayGradient&, Float32Products, cudaStream_t);

constexpr int kMostGradients = 4;  // the most that an op has

struct Gradient {
  const void* from;  // one run of `count` numbers
  void* to;
  int64_t count;
};

// Multiplies gradients that were computed for the upstream `expected`: to = upstream / expected * from, rounded once,
// for at most kMostGradients gradients of one dtype. If every to is its from (in place) and upstream equals
// expected, no gradient is read or written.
cudaError_t scale_gradients(DType, const Gradient*, int count, Coefficient upstream, Coefficient expected, bool in_place,
                            cudaStream_t);

}  // namespace ebgan::cuda
