// Hands a launch to a test, with everything that a GPU would get, so that the test can run it elsewhere.
#pragma once

#include <dlfcn.h>

#include <tuple>

#include "engine.h"

namespace simt {

struct Launch {
  const char* kernel;  // its name in a library or in PTX; null for a kernel in an anonymous namespace
  uint32_t grid[3], threads[3];
  uint64_t shared;  // dynamic, in bytes
  uint64_t count;   // of arguments
  const void* const* arguments;
  const uint64_t* sizes;  // the bytes of each argument
};

// The function that gets each launch. If it is null, launches run here.
inline void (*recorder)(const Launch*) = nullptr;

template <class... Parameters>
void record(void (*kernel)(Parameters...), dim3 grid, dim3 threads, size_t shared, const Parameters&... arguments) {
  const void* const addresses[] = {&arguments...};
  const uint64_t sizes[] = {sizeof arguments...};
  Dl_info info = {};
  dladdr(reinterpret_cast<const void*>(kernel), &info);
  const Launch launch{info.dli_sname, {grid.x, grid.y, grid.z}, {threads.x, threads.y, threads.z}, shared,
                      sizeof...(Parameters), addresses, sizes};
  recorder(&launch);
}

}  // namespace simt

extern "C" inline __attribute__((used)) void simt_record(void (*recorder)(const simt::Launch*)) {
  simt::recorder = recorder;
}
