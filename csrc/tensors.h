// How tensors reach the kernels, on any device: raw pointers; sizes and strides in elements.
#pragma once

#include <cstdint>

namespace ebgan {

enum class DType : int { kFloat64 = 0, kFloat32 = 1, kBFloat16 = 2, kFloat16 = 3 };
enum class Norm : int { kMse = 0, kSse = 1, kL2 = 2 };

// n samples of k elements; the elements of one sample are adjacent and both tensors hold them in the same order.
struct Pair {
  const void* recon;
  const void* target;
  int64_t recon_stride;  // from one sample to the next
  int64_t target_stride;
  int64_t n;
  int64_t k;
};

// Gradients of a Pair in its dtype and element order; a null pointer is a gradient nobody asked for.
struct PairGradient {
  void* recon;
  void* target;
  int64_t recon_stride;
  int64_t target_stride;
};

// n codes of d adjacent elements.
struct Code {
  const void* data;
  int64_t stride;
  int64_t n;
  int64_t d;
};

}  // namespace ebgan
