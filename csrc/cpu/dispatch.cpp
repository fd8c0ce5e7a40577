#include "dispatch.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define EBGAN_HAS_FORK 1
#endif

#if defined(EBGAN_WITH_AVX2)
#include <cpuid.h>
#endif

namespace ebgan_baseline {
extern const ebgan::Kernels kKernels;
}
namespace ebgan_avx2 {
extern const ebgan::Kernels kKernels;
}
namespace ebgan_avx512 {
extern const ebgan::Kernels kKernels;
}
namespace ebgan_avx512bf16 {
double pulling_away_forward(ebgan::DType, const ebgan::Code&, void* norms, void* gram, int threads);
void pulling_away_backward(ebgan::DType, const ebgan::Code&, const void* norms, const void* gram, double upstream,
                           void* grad, int64_t grad_stride, int threads);
}  // namespace ebgan_avx512bf16

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

#if defined(EBGAN_WITH_AVX512BF16)
// The pulling-away term alone has a use for the dot product of bfloat16: every other kernel is that of AVX-512.
const Kernels& avx512bf16_kernels() {
  static const Kernels all = [] {
    Kernels kernels = ebgan_avx512::kKernels;
    kernels.isa = "avx512bf16";
    kernels.pulling_away_forward = ebgan_avx512bf16::pulling_away_forward;
    kernels.pulling_away_backward = ebgan_avx512bf16::pulling_away_backward;
    return kernels;
  }();
  return all;
}
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

std::atomic<bool> forked{false};

}  // namespace

int instruction_sets(const InstructionSet** sets) {
  static const InstructionSet all[] = {
      {"baseline", &ebgan_baseline::kKernels, true},
#if defined(EBGAN_WITH_AVX2)
      {"avx2", &ebgan_avx2::kKernels, has_avx2()},
#endif
#if defined(EBGAN_WITH_AVX512)
      {"avx512", &ebgan_avx512::kKernels, has_avx512()},
#endif
#if defined(EBGAN_WITH_AVX512BF16)
      {"avx512bf16", &avx512bf16_kernels(), has_avx512() && __builtin_cpu_supports("avx512bf16")},
#endif
  };
  *sets = all;
  return static_cast<int>(sizeof(all) / sizeof(all[0]));
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();  // a call that throws leaves it to be chosen by the next
  return chosen;
}

int usable_threads(int requested) {
#if defined(EBGAN_HAS_FORK)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });
  (void)registered;
#endif
  return forked ? 1 : requested;
}

}  // namespace ebgan
