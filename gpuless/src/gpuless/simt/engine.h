// Runs the threads of a GPU on one thread of the CPU. Each is a fiber, which runs until it waits for other threads.
//
// Blocks run one after another, in an order drawn from SIMT_SEED. Within a block any thread that can run may be next,
// so that a missing barrier gives wrong results. Half of the blocks, drawn at random, run one thread as far as it can
// go before the next, warp by warp. In the other blocks all threads advance together.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <vector_types.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

// The variables that kernels read. They hold the values of the running thread.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace simt {

constexpr int kLanes = 32;
constexpr int kMostThreads = 1024;
constexpr size_t kMostShared = 227 << 10;  // bytes that a block may have on Hopper and Blackwell, which have the most
constexpr size_t kStack = 256 << 10;       // bytes; AddressSanitizer makes stack frames several times larger
constexpr size_t kPage = 4096;
constexpr uint32_t kEveryLane = 0xffffffff;

enum class State { kReady, kAtBarrier, kInWarp, kEnded };

// The call by which a thread waits for others.
struct Site {
  const char* function = nullptr;
  const char* file = nullptr;
  int line = 0;
  bool operator==(const Site& other) const { return line == other.line && function == other.function; }
};

// The stack of a fiber, above a page that may not be touched. The next block uses it again.
class Stack {
 public:
  Stack() {
    void* memory = mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kPage, PROT_NONE)) {
      perror("SIMT: stack");
      abort();
    }
    bottom = static_cast<char*>(memory) + kPage;
  }
  char* bottom;
};

// The point where a fiber, or the scheduler, goes on.
//
// The first switch to a fiber uses ucontext, which asks the kernel for the mask of signals. Later switches are
// longjmps, which do not: with ucontext alone, switches took a third of the time of a matrix product. AddressSanitizer
// would take a longjmp for the end of the frames in between, so with it all switches use ucontext.
struct Place {
  ucontext_t context;
#ifndef __SANITIZE_ADDRESS__
  jmp_buf left;
  bool was_left = false;
#endif
};

#ifdef __SANITIZE_ADDRESS__
inline void go(Place& from, Place& to) { swapcontext(&from.context, &to.context); }
#else
inline void go(Place& from, Place& to) {
  from.was_left = true;
  if (_setjmp(from.left)) return;
  if (to.was_left) _longjmp(to.left, 1);
  setcontext(&to.context);
}
#endif

struct Thread {
  Place place;
  uint3 index;
  int number;  // the thread's number in its block
  int rank;    // its place in the order of precedence
  State state;
  Site site;                   // the call where it waits
  uint32_t mask;               // the lanes of its warp that it waits for
  uint64_t given;              // the value that it gives to its warp
  uint64_t received[kLanes];   // the values that all lanes have given
  void* fake_stack = nullptr;  // AddressSanitizer's

  int lane() const { return number % kLanes; }
  bool includes(int lane) const { return mask >> lane & 1; }
};

// The ranks of the threads that can run.
class Ready {
 public:
  void insert(int rank) {
    words_[rank / 64] |= uint64_t{1} << rank % 64;
    ++count_;
  }
  void remove(int rank) {
    words_[rank / 64] &= ~(uint64_t{1} << rank % 64);
    --count_;
  }
  int count() const { return count_; }
  // The rank in the set that has `before` smaller ones below it.
  int at(int before) const {
    int word = 0;
    for (; before >= __builtin_popcountll(words_[word]); ++word) before -= __builtin_popcountll(words_[word]);
    uint64_t bits = words_[word];
    for (; before > 0; --before) bits &= bits - 1;
    return word * 64 + __builtin_ctzll(bits);
  }

 private:
  uint64_t words_[kMostThreads / 64] = {};
  int count_ = 0;
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Stack> stacks;
  Ready ready;
  Thread* running = nullptr;
  Place scheduler;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_bottom = nullptr;
  size_t scheduler_size = 0;
  char* shared = nullptr;  // dynamic
  std::function<void()> kernel;

  // The thread in a lane of the warp of `thread`, or nullptr if the block has no such thread.
  Thread* lane_of(const Thread& thread, int lane) {
    const size_t number = thread.number - thread.lane() + lane;
    return number < threads.size() ? &threads[number] : nullptr;
  }
};

inline Block block;

inline std::string described(const Thread& thread) {
  char text[512];
  const int length =
      snprintf(text, sizeof text, "thread (%u,%u,%u) ", thread.index.x, thread.index.y, thread.index.z);
  if (thread.state == State::kEnded) snprintf(text + length, sizeof text - length, "has ended");
  else
    snprintf(text + length, sizeof text - length, "waits in %s at %s:%d", thread.site.function, thread.site.file,
             thread.site.line);
  return text;
}

[[noreturn]] inline void die(const std::string& message) {
  fprintf(stderr, "SIMT: block (%u,%u,%u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z, message.c_str());
  abort();
}

inline void to_scheduler(Thread& thread) {
#ifdef __SANITIZE_ADDRESS__
  void** kept = thread.state == State::kEnded ? nullptr : &thread.fake_stack;
  __sanitizer_start_switch_fiber(kept, block.scheduler_bottom, block.scheduler_size);
#endif
  go(thread.place, block.scheduler);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(thread.fake_stack, &block.scheduler_bottom, &block.scheduler_size);
#endif
}

inline void run_thread() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &block.scheduler_bottom, &block.scheduler_size);
#endif
  block.kernel();
  block.running->state = State::kEnded;
  to_scheduler(*block.running);
}

inline void make_ready(Thread& thread) {
  thread.state = State::kReady;
  block.ready.insert(thread.rank);
}

inline void start(Thread& thread, int number) {
  thread.number = number;
  thread.index = {number % blockDim.x, number / blockDim.x % blockDim.y, number / (blockDim.x * blockDim.y)};
  thread.place = Place();
  ucontext_t& context = thread.place.context;
  getcontext(&context);
  context.uc_stack.ss_sp = block.stacks[number].bottom;
  context.uc_stack.ss_size = kStack;
  makecontext(&context, run_thread, 0);
}

inline void resume(Thread& thread) {
  block.ready.remove(thread.rank);
  block.running = &thread;
  threadIdx = thread.index;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&block.scheduler_fake_stack, block.stacks[thread.number].bottom, kStack);
#endif
  go(block.scheduler, thread.place);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(block.scheduler_fake_stack, nullptr, nullptr);
#endif
}

// Makes the running thread wait, until the scheduler resumes it.
inline void wait(State state, Site site, uint32_t mask = 0, uint64_t given = 0) {
  Thread& thread = *block.running;
  thread.state = state;
  thread.site = site;
  thread.mask = mask;
  thread.given = given;
  to_scheduler(thread);
}

// Lanes may meet at different __syncwarp calls, which wait for no lane that has ended. All other calls exchange values,
// so all lanes must be at the same call.
inline bool is_syncwarp(const Site& site) { return site.function == std::string_view("__syncwarp"); }

inline bool meets(const Thread& thread, const Thread* other) {
  if (is_syncwarp(thread.site) && (!other || other->state == State::kEnded)) return true;
  if (!other || other->state != State::kInWarp || other->mask != thread.mask) return false;
  return is_syncwarp(thread.site) ? is_syncwarp(other->site) : other->site == thread.site;
}

// If all lanes that `last` waits for have arrived, gives the values of all lanes to each and makes them ready.
inline void release_warp(const Thread& last) {
  uint64_t given[kLanes] = {};
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!last.includes(lane)) continue;
    const Thread* other = block.lane_of(last, lane);
    if (!meets(last, other)) return;
    if (other) given[lane] = other->given;
  }
  const uint32_t mask = last.mask;
  for (int lane = 0; lane < kLanes; ++lane) {
    Thread* other = block.lane_of(last, lane);
    if (!(mask >> lane & 1) || !other || other->state == State::kEnded) continue;
    std::copy(given, given + kLanes, other->received);
    make_ready(*other);
  }
}

// A lane that ends may be the last that a __syncwarp waits for.
inline void release_warp_of_ended(const Thread& ended) {
  for (int lane = 0; lane < kLanes; ++lane)
    if (const Thread* other = block.lane_of(ended, lane); other && other->state == State::kInWarp) release_warp(*other);
}

[[noreturn]] inline void die_of_divergence(const Thread& thread) {
  std::string message = "divergence: " + described(thread);
  if (thread.state == State::kInWarp) {
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!thread.includes(lane)) continue;
      const Thread* other = block.lane_of(thread, lane);
      if (meets(thread, other)) continue;
      char mask[16];
      snprintf(mask, sizeof mask, "%08x", thread.mask);
      die(message + " for lanes " + mask + ", but " + (other ? described(*other) : "the block is smaller"));
    }
  }
  for (const Thread& other : block.threads)
    if (other.state != State::kAtBarrier || !(other.site == thread.site))
      die(message + ", but " + described(other));
  die(message);
}

// Called when no thread can run: either all wait at one barrier, or some wait for threads that never come.
inline void release_barrier() {
  for (const Thread& thread : block.threads)
    if (thread.state == State::kInWarp) die_of_divergence(thread);
  const auto first = std::find_if(block.threads.begin(), block.threads.end(),
                                  [](const Thread& thread) { return thread.state == State::kAtBarrier; });
  for (Thread& thread : block.threads)
    if (thread.state != State::kAtBarrier || !(thread.site == first->site)) die_of_divergence(*first);
  for (Thread& thread : block.threads) make_ready(thread);
}

inline std::vector<int> shuffled(int count, std::mt19937& random) {
  std::vector<int> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  return order;
}

// Returns the threads in a random order of precedence, warp by warp.
inline std::vector<Thread*> precedence(std::mt19937& random) {
  const int count = block.threads.size();
  std::vector<Thread*> order;
  for (int warp : shuffled((count + kLanes - 1) / kLanes, random))
    for (int lane : shuffled(kLanes, random))
      if (warp * kLanes + lane < count) order.push_back(&block.threads[warp * kLanes + lane]);
  return order;
}

inline void run_block(std::mt19937& random) {
  const int count = block.threads.size();
  for (int number = 0; number < count; ++number) start(block.threads[number], number);
  const std::vector<Thread*> order = precedence(random);
  block.ready = Ready();
  for (int rank = 0; rank < count; ++rank) {
    order[rank]->rank = rank;
    make_ready(*order[rank]);
  }
  const bool together = random() % 2;
  for (int ended = 0; ended < count;) {
    if (block.ready.count() == 0) {
      release_barrier();
      continue;
    }
    Thread& next = *order[block.ready.at(together ? random() % block.ready.count() : 0)];
    resume(next);
    if (next.state == State::kInWarp) release_warp(next);
    else if (next.state == State::kEnded) {
      ++ended;
      release_warp_of_ended(next);
    }
  }
}

}  // namespace simt
