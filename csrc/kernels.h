// The arguments of the kernels on any device, and the table of the CPU's kernels.
//
// Pointers are raw; sizes and strides count elements. "acc" is the type of energies, losses, and sums over a batch:
// float64 for float64 and float32 for every other dtype.
#pragma once

#include <cstdint>

#include "norm.h"

namespace ebgan {

enum class DType : int { kFloat64 = 0, kFloat32 = 1, kBFloat16 = 2, kFloat16 = 3 };

// n samples of k elements. The elements of a sample are adjacent, and all four tensors hold them in the same order.
// Strides are the distances from one sample to the next.
struct Batch {
  const void* recon;
  const void* target;
  void* grad_recon;   // null if not needed
  void* grad_target;  // as above
  void* energy;       // acc [n]
  int64_t recon_stride;
  int64_t target_stride;
  int64_t grad_recon_stride;
  int64_t grad_target_stride;
  int64_t n;
  int64_t k;

  bool wants_gradient() const { return grad_recon || grad_target; }
};

// A margin, weight or upstream gradient. With a pointer it is an acc in the device's memory, with a null pointer a
// number. On the CPU it is always a number.
struct Coefficient {
  const void* pointer;
  double value;
};

// The arguments for mean(E_real) + mean([margin - E_fake]+), the energies, and the gradients multiplied by `upstream`.
// Without a fake batch (fake.n 0) the loss is the mean energy. With a null value only the energies are computed,
// without a loss or gradients.
struct Loss {
  Norm norm;
  Batch real;
  Batch fake;
  Coefficient margin;
  Coefficient upstream;
  void* value;  // acc scalar
};

// The arguments for the gradients of a batch's energies, which the batch holds. A sample with upstream 0 gets zeros and
// is not read.
struct EnergyGradient {
  Norm norm;
  Batch batch;
  const void* upstream;  // acc [n]
  int64_t upstream_stride;
};

// The arguments for mean(E_real) + mean([margin - E_fake]+) of given energies, and the gradients to them for an
// upstream of 1.
struct Hinge {
  const void* energy_real;  // acc [n_real]
  const void* energy_fake;  // acc [n_fake]
  void* grad_real;          // acc [n_real]
  void* grad_fake;          // acc [n_fake]
  int64_t n_real;
  int64_t n_fake;
  Coefficient margin;
  void* value;  // acc scalar
};

// n codes of d adjacent elements each.
struct Code {
  const void* data;
  int64_t stride;
  int64_t n;
  int64_t d;
};

// The arguments for the pulling-away term. Only its gradient needs `lengths` and `residual`.
struct PullingAway {
  Code code;
  void* lengths;   // acc [2, n]: the lengths of the scaled rows, and the scales (row_scale.h)
  void* residual;  // acc [m, m] with m = min(n, d): see pulling_away.cpp and pulling_away.cu
  void* value;     // acc scalar
  void* loss;      // acc scalar to which weight * value is added, or null
  Coefficient weight;
};

struct PullingAwayGradient {
  Code code;
  const void* lengths;
  const void* residual;
  Coefficient upstream;
  void* grad;  // the code's dtype
  int64_t grad_stride;
};

// The CPU's kernels, compiled for one instruction set.
using LossKernel = void(DType, const Loss&, int threads);
using EnergyGradientKernel = void(DType, const EnergyGradient&, int threads);
using HingeKernel = void(DType acc, const Hinge&);
using PullingAwayKernel = void(DType, const PullingAway&, int threads);
using PullingAwayGradientKernel = void(DType, const PullingAwayGradient&, int threads);

struct Kernels {
  const char* isa;
  LossKernel* loss;
  EnergyGradientKernel* energy_gradient;
  HingeKernel* hinge;
  PullingAwayKernel* pulling_away;
  PullingAwayGradientKernel* pulling_away_gradient;
};

struct InstructionSet {
  const char* name;
  const Kernels* kernels;
  bool supported;  // by this processor
};

// Returns the number of compiled instruction sets and points `sets` to them, slowest first. (cpu/isa_choice.cpp)
int instruction_sets(const InstructionSet** sets);

// Returns the kernels of the fastest supported set, or of the set that EBGAN_FAST_CPU_ISA names. The choice is made at
// the first call. Throws std::invalid_argument if that name is unknown, not compiled in, or not supported by the
// processor.
const Kernels& kernels();

struct Caches {
  int64_t l2;    // bytes of one core; 0 if the processor does not report it
  int64_t l3;    // bytes of all cores that share it; 0 if there is none, or the processor does not report it
  bool slow_l3;  // true for a mesh, far from every core: an Intel Xeon with AVX-512
};

// Returns the sizes that the processor reports, read once. (cpu/caches.cpp)
const Caches& caches();

// The number of bytes of a pass, read and written, from which gradients are stored past the cache.
struct StreamFrom {
  int64_t bytes;
  bool each_thread;  // true: `bytes` is for every thread of the team; false: for the whole team
};

// Returns the limit by the rule for a processor with these caches.
StreamFrom stream_from(const Caches&);

// Returns the limit that the kernels use: the rule's for this processor, or the one that was set.
StreamFrom stream_from();

// Returns that limit in bytes of a pass by a team of this many threads. Not inline: every instruction set would compile
// a copy, and the linker would keep any one of them.
int64_t stream_bytes(int threads);

// Sets the limit, for tests and measurements. It changes only the time, and no result.
void set_stream_from(StreamFrom);

}  // namespace ebgan

#if defined(EBGAN_ISA)
namespace EBGAN_ISA {
ebgan::LossKernel loss;
ebgan::EnergyGradientKernel energy_gradient;
ebgan::HingeKernel hinge;
ebgan::PullingAwayKernel pulling_away;
ebgan::PullingAwayGradientKernel pulling_away_gradient;
}  // namespace EBGAN_ISA
#endif
