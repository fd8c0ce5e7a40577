// The kernels as the bindings see them: their arguments on any device, and those of the CPU as a table.
//
// Pointers are raw; sizes and strides count elements. "acc" is float64 for float64 and float32 for every other dtype: the
// type of energies, losses, and sums over a batch.
#pragma once

#include <cstdint>

#include "norm.h"

namespace ebgan {

enum class DType : int { kFloat64 = 0, kFloat32 = 1, kBFloat16 = 2, kFloat16 = 3 };

// n samples of k elements. The elements of a sample are adjacent, and all four tensors hold them in the same order. Strides
// lead from one sample to the next.
struct Batch {
  const void* recon;
  const void* target;
  void* grad_recon;   // null: nobody asked for it
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

// A margin, weight or upstream gradient: acc in the device's memory, or a number where the pointer is null. The CPU's are
// numbers.
struct Coefficient {
  const void* pointer;
  double value;
};

// mean(E_real) + mean([margin - E_fake]+), the energies, and the gradients for `upstream`. Without a fake batch (fake.n 0) it
// is the mean energy. A null value leaves the energies alone to be computed, and no gradient.
struct Loss {
  Norm norm;
  Batch real;
  Batch fake;
  Coefficient margin;
  Coefficient upstream;
  void* value;  // acc scalar
};

// The gradients of a batch's energies, which the batch holds. A sample with upstream 0 gets zeros, unread.
struct EnergyGradient {
  Norm norm;
  Batch batch;
  const void* upstream;  // acc [n]
  int64_t upstream_stride;
};

// mean(E_real) + mean([margin - E_fake]+) over given energies, and the gradients to them for an upstream of 1.
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

// n codes of d adjacent elements.
struct Code {
  const void* data;
  int64_t stride;
  int64_t n;
  int64_t d;
};

// The pulling-away term. `lengths` and `residual` are for its gradient alone.
struct PullingAway {
  Code code;
  void* lengths;   // acc [2, n]: of the rows times their scales, and the scales (row_scale.h)
  void* residual;  // acc [m, m] with m = min(n, d); pulling_away.cpp and pulling_away.cu say what it holds
  void* value;     // acc scalar
  void* loss;      // acc scalar that weight * value is added to, or null
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
  bool supported;  // by the processor this process runs on
};

// The compiled instruction sets, slowest first; returns how many. (cpu/isa_choice.cpp)
int instruction_sets(const InstructionSet** sets);

// The kernels of the fastest supported set, or of the one that EBGAN_FAST_CPU_ISA names; chosen at the first call.
// Throws std::invalid_argument when that name is unknown, not compiled in, or not supported by the processor.
const Kernels& kernels();

struct Caches {
  int64_t l2;    // bytes of one core; 0 where the processor does not say
  int64_t l3;    // bytes of all cores that share it; 0 where there is none, or the processor does not say
  bool slow_l3;  // a mesh, far away from every core: an Intel Xeon with AVX-512
};

// What the processor says of itself, asked once. (cpu/caches.cpp)
const Caches& caches();

// From how many bytes of a pass, all that it reads and writes, gradients are stored past the cache.
struct StreamFrom {
  int64_t bytes;
  bool each_thread;  // `bytes` is for every thread of the team, else for the whole team
};

// The rule, for any processor.
StreamFrom stream_from(const Caches&);

// What the kernels go by: the rule for this processor, or what was set.
StreamFrom stream_from();

// The same in bytes of a pass by a team of so many threads. Not inline: every instruction set would compile it anew, and
// the linker keep any one.
int64_t stream_bytes(int threads);

// For tests and measurements. No result depends on it, only the time.
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
