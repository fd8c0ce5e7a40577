// Which compiled instruction set runs on this processor.
#pragma once

#include "kernels.h"

namespace ebgan {

struct InstructionSet {
  const char* name;
  const Kernels* kernels;
  bool supported;  // by the processor this process runs on
};

// The compiled instruction sets, slowest first; returns how many.
int instruction_sets(const InstructionSet** sets);

// The kernels of the fastest supported set, or of the one that EBGAN_FAST_CPU_ISA names; chosen at the first call.
// Throws std::invalid_argument when that name is unknown, not compiled in, or not supported by the processor.
const Kernels& kernels();

// `requested`, or 1 in a process forked from one that may hold a thread team: the team's threads did not survive the
// fork, and GNU OpenMP would wait for them forever.
int usable_threads(int requested);

}  // namespace ebgan
