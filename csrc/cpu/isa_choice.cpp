// The choice of the compiled instruction set for this processor.
#include "../kernels.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(EBGAN_WITH_AVX2)
#include <cpuid.h>
#endif

// Only the pulling-away term uses the dot product of bfloat16. All other kernels are those of AVX-512.
#define EBGAN_DECLARE_PULLING_AWAY(isa)                             \
  namespace isa {                                                   \
  ebgan::PullingAwayKernel pulling_away;                            \
  ebgan::PullingAwayGradientKernel pulling_away_gradient;           \
  }
#define EBGAN_DECLARE(isa)                                          \
  namespace isa {                                                   \
  ebgan::LossKernel loss;                                           \
  ebgan::EnergyGradientKernel energy_gradient;                      \
  ebgan::HingeKernel hinge;                                         \
  }                                                                 \
  EBGAN_DECLARE_PULLING_AWAY(isa)
#define EBGAN_TABLE(name, energies, codes)                                                        \
  {name, energies::loss, energies::energy_gradient, energies::hinge, codes::pulling_away, codes::pulling_away_gradient}

EBGAN_DECLARE(ebgan_baseline)
EBGAN_DECLARE(ebgan_avx2)
EBGAN_DECLARE(ebgan_avx512)
EBGAN_DECLARE_PULLING_AWAY(ebgan_avx512bf16)

namespace ebgan {
namespace {

#if defined(EBGAN_WITH_AVX2)
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
#endif

#if defined(EBGAN_WITH_AVX512)
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const Kernels kBaseline = EBGAN_TABLE("baseline", ebgan_baseline, ebgan_baseline);
#if defined(EBGAN_WITH_AVX2)
const Kernels kAvx2 = EBGAN_TABLE("avx2", ebgan_avx2, ebgan_avx2);
#endif
#if defined(EBGAN_WITH_AVX512)
const Kernels kAvx512 = EBGAN_TABLE("avx512", ebgan_avx512, ebgan_avx512);
#endif
#if defined(EBGAN_WITH_AVX512BF16)
const Kernels kAvx512Bf16 = EBGAN_TABLE("avx512bf16", ebgan_avx512, ebgan_avx512bf16);
#endif

const Kernels& choose() {
  const InstructionSet* sets = nullptr;
  const int count = instruction_sets(&sets);
  const char* const asked = std::getenv("EBGAN_FAST_CPU_ISA");
  std::string usable;
  const Kernels* best = nullptr;
  for (int i = 0; i < count; ++i) {
    if (!sets[i].supported) continue;
    if (asked && *asked && sets[i].name == std::string(asked)) return *sets[i].kernels;
    usable += (usable.empty() ? "'" : ", '") + std::string(sets[i].name) + "'";
    best = sets[i].kernels;
  }
  if (asked && *asked)
    throw std::invalid_argument("EBGAN_FAST_CPU_ISA: got '" + std::string(asked) +
                                "', expected an instruction set that is compiled in and that this processor has: " +
                                usable + ". Unset it to use the fastest");
  return *best;
}

}  // namespace

int instruction_sets(const InstructionSet** sets) {
  static const InstructionSet all[] = {
      {"baseline", &kBaseline, true},
#if defined(EBGAN_WITH_AVX2)
      {"avx2", &kAvx2, has_avx2()},
#endif
#if defined(EBGAN_WITH_AVX512)
      {"avx512", &kAvx512, has_avx512()},
#endif
#if defined(EBGAN_WITH_AVX512BF16)
      {"avx512bf16", &kAvx512Bf16, has_avx512() && __builtin_cpu_supports("avx512bf16")},
#endif
  };
  *sets = all;
  return static_cast<int>(sizeof(all) / sizeof(all[0]));
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();  // after a call that throws, the next call chooses again
  return chosen;
}

}  // namespace ebgan
