// Fixed tasks over a team of threads. Which thread runs a task never changes what the task computes.
#pragma once

#include "isa.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace EBGAN_ISA {

constexpr int64_t kGrainBytes = 32 * 1024;  // below about 32 KB a thread, waking it costs more than its work

// The number of threads worth using for `bytes` of traffic cut into `tasks`.
inline int team_size(int threads, int64_t tasks, int64_t bytes) {
  return static_cast<int>(larger(1, smaller(threads, smaller(tasks, bytes / kGrainBytes))));
}

// Calls run(first, last, member) on consecutive ranges of tasks, one per member of the team.
template <class Run> inline void parallel(int64_t tasks, int team, const Run& run) {
#ifdef _OPENMP
  if (team > 1) {
#pragma omp parallel num_threads(team)
    {
      const int64_t member = omp_get_thread_num();
      const int64_t members = omp_get_num_threads();  // the runtime may grant fewer than were asked for
      run(tasks * member / members, tasks * (member + 1) / members, static_cast<int>(member));
    }
    return;
  }
#else
  (void)team;
#endif
  run(int64_t{0}, tasks, 0);
}

}  // namespace EBGAN_ISA
