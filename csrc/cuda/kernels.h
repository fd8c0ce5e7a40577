// The kernels for NVIDIA GPUs. Pointers are the device's; every function launches on `stream`, allocates nothing, waits
// for nothing, and returns what the launch said, so that a CUDA graph can capture it. Results are the same bits in
// every run.
//
// "acc" is float64 for float64 and float32 for every other dtype; it is the type of energies and losses.
#pragma once

#include <cstdint>

#include <driver_types.h>  // cudaError_t, cudaStream_t

#include "../tensors.h"

namespace ebgan::cuda {

// A margin, weight or upstream gradient: acc in the device's memory, or a number where the pointer is null.
struct Coefficient {
  const void* pointer;
  double value;
};

// Scratch memory of a call, from the caller. Counters are zeros, and are left as zeros.
struct Workspace {
  void* partials;  // acc
  int32_t* counters;
};

struct WorkspaceSize {
  int64_t partials;  // elements of acc
  int64_t counters;
};

// mean(E_real) + mean([margin - E_fake]+), the energies (acc [n_real], acc [n_fake]) and the gradients for upstream 1,
// in one launch (l2 of samples too long for a block: several). Without a fake batch (fake.n 0) it is the mean energy. A
// null loss leaves the energies alone to be computed, and no gradient.
WorkspaceSize loss_workspace(DType, Norm, const Pair& real, const Pair& fake);
cudaError_t loss(DType, Norm, const Pair& real, const Pair& fake, Coefficient margin, void* loss, void* energy_real,
                 void* energy_fake, const PairGradient& grad_real, const PairGradient& grad_fake, Workspace, cudaStream_t);

// energy: acc [n] from the forward; upstream: acc [n] with any stride. A sample with upstream 0 gets zeros, unread.
cudaError_t energy_backward(DType, Norm, const Pair&, const void* energy, const void* upstream, int64_t upstream_stride,
                            const PairGradient&, cudaStream_t);

// energies and their gradients: acc [n_real], acc [n_fake]; loss: acc scalar
cudaError_t hinge(DType acc, const void* energy_real, int64_t n_real, const void* energy_fake, int64_t n_fake,
                  Coefficient margin, void* loss, void* grad_real, void* grad_fake, cudaStream_t);

// Whether float32 products may run as one tf32 product, or as three that keep float32's accuracy.
enum class Float32Products : int { kExact = 0, kTf32 = 1 };

// value: acc scalar, to which nothing is added; loss: acc scalar that weight * value is added to, or null.
// norms: acc [n]; gram: acc [m, m] with m = min(n, d), for the backward alone.
WorkspaceSize pulling_away_workspace(DType, const Code&);
cudaError_t pulling_away_forward(DType, const Code&, Float32Products, void* norms, void* gram, void* value, void* loss,
                                 Coefficient weight, Workspace, cudaStream_t);

// grad: the code's dtype, rows grad_stride apart
cudaError_t pulling_away_backward(DType, const Code&, Float32Products, const void* norms, const void* gram,
                                  Coefficient upstream, void* grad, int64_t grad_stride, cudaStream_t);

constexpr int kMostGradients = 4;  // of any op

struct Gradient {
  const void* from;  // one run of `count` numbers
  void* to;
  int64_t count;
};

// to = upstream * from for at most kMostGradients gradients of one dtype, rounded once; upstream: acc scalar in the
// device's memory. In place (every to is its from) an upstream of 1 moves nothing.
cudaError_t scale_gradients(DType, const Gradient*, int count, const void* upstream, bool in_place, cudaStream_t);

}  // namespace ebgan::cuda
