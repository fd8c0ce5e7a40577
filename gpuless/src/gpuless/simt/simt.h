// The CUDA functions that kernels may call when they are compiled as C++, and the launch. engine.h describes how
// threads run.
//
// __init__.py has the compiler's command. The types half and bfloat16 are the host code of CUDA's own headers.
//
// Limits: a thread gives way only where it waits. An update that should be atomic, with no wait in its middle,
// therefore comes out right. Memory has a single order, and fences do nothing. Blocks run one after another, so a block
// that spins until another block has done something never ends. Of the tensor cores only the products in tensor_cores.h
// exist. cp.async, cooperative groups and clusters are missing. Multiplications and additions are fused only in fmaf.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "engine.h"
#include "record.h"

#include <driver_types.h>
#include <vector_functions.h>

using std::max;
using std::min;

#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __shared__

#ifdef __SANITIZE_ADDRESS__

// Ordinary static memory, whose edges AddressSanitizer watches. A block finds it as the last block left it.
#define __shared__ static
namespace simt {
inline void poison_static_shared() {}
}  // namespace simt

#else

// Thread-local memory of a program or library lies in one piece and holds nothing else, so all of it is poisoned.
#define __shared__ static thread_local
#include <link.h>

namespace simt {

inline thread_local char one_of_ours;

inline int poison_if_ours(dl_phdr_info* info, size_t, void*) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const size_t size = info->dlpi_phdr[i].p_memsz;
    char* const start = static_cast<char*>(info->dlpi_tls_data);
    if (info->dlpi_phdr[i].p_type != PT_TLS || &one_of_ours < start || &one_of_ours >= start + size) continue;
    memset(start, 0xff, size);
    return 1;
  }
  return 0;
}

inline void poison_static_shared() { dl_iterate_phdr(poison_if_ours, nullptr); }

}  // namespace simt

#endif

namespace simt {

inline void check_launch(dim3 grid, dim3 threads, size_t shared) {
  const uint64_t count = uint64_t{threads.x} * threads.y * threads.z;
  if (count < 1 || count > kMostThreads || threads.z > 64)
    die("launch of " + std::to_string(count) + " threads a block");
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffff || grid.y > 0xffff || grid.z > 0xffff)
    die("launch with a grid that no GPU takes");
  if (shared > kMostShared) die("launch with " + std::to_string(shared) + " bytes of shared memory");
}

// Runs all blocks of the grid. At the start of a block its dynamic shared memory holds NaN, or -1. So does static
// shared memory, unless AddressSanitizer is on.
inline void run(dim3 grid, dim3 threads, size_t shared, std::function<void()> kernel) {
  check_launch(grid, threads, shared);
  gridDim = grid;
  blockDim = threads;
  block.kernel = std::move(kernel);
  const size_t count = size_t{threads.x} * threads.y * threads.z;
  block.threads.resize(count);
  while (block.stacks.size() < count) block.stacks.emplace_back();
  const char* seed = getenv("SIMT_SEED");
  std::mt19937 random(seed ? atoi(seed) : 0);
  for (int number : shuffled(grid.x * grid.y * grid.z, random)) {
    blockIdx = {number % grid.x, number / grid.x % grid.y, number / (grid.x * grid.y)};
    block.shared = static_cast<char*>(malloc(shared));  // exactly this size, for AddressSanitizer
    if (shared) memset(block.shared, 0xff, shared);
    poison_static_shared();
    run_block(random);
    free(block.shared);
  }
}

}  // namespace simt

namespace gpu {

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 threads, size_t shared, cudaStream_t,
                   Arguments... arguments) {
  if (simt::recorder) simt::record<Parameters...>(kernel, grid, threads, shared, arguments...);
  else
    simt::run(grid, threads, shared, [=] { kernel(arguments...); });
  return cudaSuccess;
}

template <class T> T* dynamic_shared() { return reinterpret_cast<T*>(simt::block.shared); }

}  // namespace gpu

// The file and line of a call. As default arguments they are the caller's.
#define SIMT_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SIMT_PLACE) { simt::wait(simt::State::kAtBarrier, {"__syncthreads", file, line}); }

namespace simt {

// Waits for the lanes of `mask`, and returns the values that all of them gave.
template <class T> const uint64_t* exchange(const char* function, const char* file, int line, uint32_t mask, T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a warp exchanges values of up to 64 bits");
  if (!(mask >> block.running->lane() & 1))
    die(std::string(function) + " at " + file + ":" + std::to_string(line) + ": the lane is not in its own mask");
  uint64_t given = 0;
  memcpy(&given, &value, sizeof value);
  wait(State::kInWarp, {function, file, line}, mask, given);
  return block.running->received;
}

template <class T>
T shuffle(const char* function, const char* file, int line, uint32_t mask, T value, int source) {
  const uint64_t* received = exchange(function, file, line, mask, value);
  if (!(mask >> source & 1))
    die(std::string(function) + " at " + file + ":" + std::to_string(line) + " reads lane " + std::to_string(source) +
        ", which is not in the mask");
  memcpy(static_cast<void*>(&value), received + source, sizeof value);
  return value;
}

// Lanes exchange values within segments of `width` lanes.
inline int segment_start(int lane, int width) { return lane & ~(width - 1); }
inline int segment_end(int lane, int width) { return segment_start(lane, width) + width; }

}  // namespace simt

inline void __syncwarp(unsigned mask = simt::kEveryLane, SIMT_PLACE) {
  simt::exchange("__syncwarp", file, line, mask, 0);
}

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, SIMT_PLACE) {
  const int start = simt::segment_start(simt::block.running->lane(), width);
  return simt::shuffle("__shfl_sync", file, line, mask, value, start + (source & (width - 1)));
}

template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize, SIMT_PLACE) {
  const int lane = simt::block.running->lane(), source = lane ^ bits;
  const bool is_inside = source < simt::segment_end(lane, width);
  return simt::shuffle("__shfl_xor_sync", file, line, mask, value, is_inside ? source : lane);
}

template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, SIMT_PLACE) {
  const int lane = simt::block.running->lane(), source = lane + static_cast<int>(delta);
  const bool is_inside = source < simt::segment_end(lane, width);
  return simt::shuffle("__shfl_down_sync", file, line, mask, value, is_inside ? source : lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_PLACE) {
  const uint64_t* received = simt::exchange("__ballot_sync", file, line, mask, predicate != 0);
  unsigned votes = 0;
  for (int lane = 0; lane < simt::kLanes; ++lane) votes |= static_cast<unsigned>(received[lane]) << lane;
  return votes;
}

inline int __any_sync(unsigned mask, int predicate, SIMT_PLACE) {
  const uint64_t* received = simt::exchange("__any_sync", file, line, mask, predicate != 0);
  return std::any_of(received, received + simt::kLanes, [](uint64_t vote) { return vote; });
}

inline int __all_sync(unsigned mask, int predicate, SIMT_PLACE) {
  const uint64_t* received = simt::exchange("__all_sync", file, line, mask, predicate == 0);
  return std::none_of(received, received + simt::kLanes, [](uint64_t vote) { return vote; });
}

#undef SIMT_PLACE

namespace simt {
template <class T> using Value = std::common_type_t<T>;  // a value converts to the memory's type, as in CUDA
}  // namespace simt

template <class T> T atomicExch(T* to, simt::Value<T> value) { return std::exchange(*to, value); }
template <class T> T atomicAdd(T* to, simt::Value<T> value) { return atomicExch(to, *to + value); }
template <class T> T atomicCAS(T* to, simt::Value<T> old, simt::Value<T> value) {
  return atomicExch(to, *to == old ? value : *to);
}

inline void __threadfence() {}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
template <class T> T __ldg(const T* from) { return *from; }
template <class T> void __stwb(T* to, T value) { *to = value; }

#include "tensor_cores.h"
