// The Python module ebgan_fast._C. Pointers are passed as integers, and the GIL is released while a kernel runs.
#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>
#include <utility>

#include "bindings.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define EBGAN_HAS_FORK 1
#endif

namespace py = pybind11;

namespace {

using ebgan::DType;

std::atomic<bool> forked{false};

// Returns `requested`, or 1 in a process forked from one that may hold a thread team. The team's threads did not
// survive the fork, and GNU OpenMP would wait for them forever.
int usable_threads(int requested) {
#if defined(EBGAN_HAS_FORK)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });
  (void)registered;
#endif
  return forked ? 1 : requested;
}

template <class Run> void unlocked(int threads, const Run& run) {
  const ebgan::Kernels& kernels = ebgan::kernels();
  const int usable = usable_threads(threads);
  py::gil_scoped_release release;
  run(kernels, usable);
}

// Returns a function (dtype, arguments, threads) that calls an entry of the kernel table. `of` converts the tuple to
// the entry's struct.
template <class Arguments>
auto launch(Arguments (*of)(const py::tuple&), void (*ebgan::Kernels::*kernel)(DType, const Arguments&, int)) {
  return [=](int dtype, const py::tuple& arguments, int threads) {
    const Arguments it = of(arguments);
    unlocked(threads, [&](const ebgan::Kernels& kernels, int usable) { (kernels.*kernel)(DType(dtype), it, usable); });
  };
}

void hinge(int acc, const py::tuple& arguments) {
  const ebgan::Hinge it = ebgan::hinge_of(arguments);
  unlocked(1, [&](const ebgan::Kernels& kernels, int) { kernels.hinge(DType(acc), it); });
}

// (bytes, true if they are for each thread)
using StreamFrom = std::pair<std::int64_t, bool>;

StreamFrom stream_from() {
  const ebgan::StreamFrom from = ebgan::stream_from();
  return {from.bytes, from.each_thread};
}

StreamFrom stream_rule(std::int64_t l2, std::int64_t l3, bool slow_l3) {
  const ebgan::StreamFrom from = ebgan::stream_from({l2, l3, slow_l3});
  return {from.bytes, from.each_thread};
}

void set_stream_from(std::int64_t bytes, bool each_thread) { ebgan::set_stream_from({bytes, each_thread}); }

py::dict build_info() {
  const ebgan::InstructionSet* sets = nullptr;
  const int count = ebgan::instruction_sets(&sets);
  py::list compiled, supported;
  for (int i = 0; i < count; ++i) {
    compiled.append(sets[i].name);
    if (sets[i].supported) supported.append(sets[i].name);
  }
  py::dict info;
  info["compiler"] = EBGAN_COMPILER;
  info["isas_compiled"] = compiled;
  info["isas_supported"] = supported;
  info["isa"] = ebgan::kernels().isa;
  const ebgan::Caches& has = ebgan::caches();
  info["caches"] = py::make_tuple(has.l2, has.l3, has.slow_l3);
#ifdef _OPENMP
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled kernels of ebgan_fast; call them through ebgan_fast.functional.";
  usable_threads(1);  // watches for forks from now on: torch may own a thread team before the first kernel runs
  m.def("loss", launch(ebgan::loss_of, &ebgan::Kernels::loss));
  m.def("energy_gradient", launch(ebgan::energy_gradient_of, &ebgan::Kernels::energy_gradient));
  m.def("hinge", hinge);
  m.def("pulling_away", launch(ebgan::pulling_away_of, &ebgan::Kernels::pulling_away));
  m.def("pulling_away_gradient", launch(ebgan::pulling_away_gradient_of, &ebgan::Kernels::pulling_away_gradient));
  m.def("build_info", build_info,
        "The compiler, the instruction sets compiled in, those of them that the processor has, the one in use ('isa'), the "
        "caches (bytes of a core's L2 and of the L3, whether that is far away), and whether OpenMP is in.");
  m.def("stream_from", stream_from, "The bytes of a pass from which its gradients go past the cache.");
  m.def("stream_rule", stream_rule, "The same for a processor with such caches.");
  m.def("set_stream_from", set_stream_from, "Set it for this process; below 0, the processor decides again.");
#ifdef EBGAN_WITH_CUDA
  ebgan::bind_cuda(m);
#endif
}
