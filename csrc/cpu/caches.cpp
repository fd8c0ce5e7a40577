// The size from which a pass stores past the cache on this processor. Compiled once, for all instruction sets.
#include "../kernels.h"

#include <atomic>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#define EBGAN_HAS_CPUID 1
#endif

namespace ebgan {
namespace {

constexpr int64_t kMegabyte = 1 << 20;

#if defined(EBGAN_HAS_CPUID)
bool is_intel() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(0, &eax, &ebx, &ecx, &edx) && ebx == signature_INTEL_ebx;
}

bool has_avx512() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ebx & bit_AVX512F);
}

// Returns the bytes of the data or unified cache of that level. Intel describes its caches in leaf 4, AMD in leaf
// 0x8000001D, in the same form. The C library's sysconf is not used: before glibc 2.38 it gave AMD's last cache as the
// sum over the package.
int64_t cache_bytes(unsigned leaf, unsigned level) {
  for (unsigned index = 0; index < 16; ++index) {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid_count(leaf, index, &eax, &ebx, &ecx, &edx)) return 0;
    const unsigned kind = eax & 31;  // 0: no more caches, 2: instructions
    if (kind == 0) return 0;
    if (kind == 2 || ((eax >> 5) & 7) != level) continue;
    const int64_t ways = (ebx >> 22) + 1, partitions = ((ebx >> 12) & 1023) + 1, line = (ebx & 4095) + 1;
    return ways * partitions * line * (static_cast<int64_t>(ecx) + 1);
  }
  return 0;
}

Caches asked() {
  const bool intel = is_intel();
  const unsigned leaf = intel ? 4 : 0x8000001d;
  const Caches found{cache_bytes(leaf, 2), cache_bytes(leaf, 3), false};
  // Intel's servers with AVX-512 have 1 MB of L2 or more, and a mesh. Its clients with AVX-512 have 512 KB and a ring
  // (except Tiger Lake).
  return {found.l2, found.l3, intel && has_avx512() && found.l2 >= kMegabyte};
}
#else
Caches asked() { return {0, 0, false}; }
#endif

std::atomic<int64_t> set_bytes{-1};  // below 0: not set
std::atomic<bool> set_each_thread{false};

}  // namespace

const Caches& caches() {
  static const Caches found = asked();
  return found;
}

// Measured (docs/performance.md): with a near last cache, from half of its size; with a far one, from twice a core's
// L2.
StreamFrom stream_from(const Caches& has) {
  if (has.slow_l3) return {2 * has.l2, true};
  return {has.l3 > 0 ? has.l3 / 2 : 16 * kMegabyte, false};
}

StreamFrom stream_from() {
  const int64_t bytes = set_bytes;
  if (bytes >= 0) return {bytes, set_each_thread};
  static const StreamFrom rule = stream_from(caches());
  return rule;
}

int64_t stream_bytes(int threads) {
  const StreamFrom from = stream_from();
  return from.each_thread ? from.bytes * threads : from.bytes;
}

void set_stream_from(StreamFrom from) {
  set_each_thread = from.each_thread;
  set_bytes = from.bytes;
}

}  // namespace ebgan
