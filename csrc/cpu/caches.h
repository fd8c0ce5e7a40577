// From which size a pass stores past the cache on this processor. Compiled once, for all instruction sets.
#pragma once

#include <cstdint>

namespace ebgan {

// A pass is one sweep over a batch: all that it reads and writes counts.
struct StreamFrom {
  int64_t bytes;
  bool each_thread;  // `bytes` is for every thread of the team, else for the whole team
};

struct Caches {
  int64_t l2;  // bytes of one core; 0 where the processor does not say
  int64_t l3;  // bytes of all cores that share it; 0 where there is none, or the processor does not say
  bool slow_l3;  // a mesh, far away from every core: an Intel Xeon with AVX-512
};

// What the processor says of itself, asked once.
const Caches& caches();

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
