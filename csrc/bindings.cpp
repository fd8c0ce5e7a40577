// Python module ebgan_fast._C: pointers come as integers, and the GIL is released while a kernel runs.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

#include "bindings.h"
#include "cpu/caches.h"
#include "cpu/dispatch.h"

namespace py = pybind11;

namespace {

using ebgan::Address;
using ebgan::at;
using ebgan::Code;
using ebgan::DType;
using ebgan::Norm;
using ebgan::pair_arguments;
using ebgan::PairArguments;

template <class Run> auto unlocked(int threads, const Run& run) {
  const ebgan::Kernels& kernels = ebgan::kernels();
  const int usable = ebgan::usable_threads(threads);
  py::gil_scoped_release release;
  return run(kernels, usable);
}

void energy_forward(int dtype, int norm, const py::tuple& pair, Address energy, int threads) {
  const PairArguments p = pair_arguments(pair);
  unlocked(threads, [&](const ebgan::Kernels& k, int usable) {
    k.energy_forward(DType(dtype), Norm(norm), p.pair, at(energy), usable);
  });
}

void energy_backward(int dtype, int norm, const py::tuple& pair, Address energy, Address upstream,
                     std::int64_t upstream_stride, int threads) {
  const PairArguments p = pair_arguments(pair);
  unlocked(threads, [&](const ebgan::Kernels& k, int usable) {
    k.energy_backward(DType(dtype), Norm(norm), p.pair, at(energy), at(upstream), upstream_stride, p.grad, usable);
  });
}

void hinge(int acc, Address energy_real, std::int64_t n_real, Address energy_fake, std::int64_t n_fake, double margin,
           Address loss, Address grad_real, Address grad_fake) {
  unlocked(1, [&](const ebgan::Kernels& k, int) {
    k.hinge(DType(acc), at(energy_real), n_real, at(energy_fake), n_fake, margin, at(loss), at(grad_real),
            at(grad_fake));
  });
}

void discriminator_loss(int dtype, int norm, const py::tuple& real, const py::tuple& fake, double margin, Address loss,
                        Address energy_real, Address energy_fake, int threads) {
  const PairArguments r = pair_arguments(real), f = pair_arguments(fake);
  unlocked(threads, [&](const ebgan::Kernels& k, int usable) {
    k.discriminator_loss(DType(dtype), Norm(norm), r.pair, f.pair, margin, at(loss), at(energy_real), at(energy_fake),
                         r.grad, f.grad, usable);
  });
}

double mean_energy(int dtype, int norm, const py::tuple& pair, Address energy, int threads) {
  const PairArguments p = pair_arguments(pair);
  return unlocked(threads, [&](const ebgan::Kernels& k, int usable) {
    return k.mean_energy(DType(dtype), Norm(norm), p.pair, at(energy), p.grad, usable);
  });
}

double pulling_away_forward(int dtype, Address code, std::int64_t stride, std::int64_t n, std::int64_t d,
                            Address norms, Address gram, int threads) {
  return unlocked(threads, [&](const ebgan::Kernels& k, int usable) {
    return k.pulling_away_forward(DType(dtype), Code{at(code), stride, n, d}, at(norms), at(gram), usable);
  });
}

void pulling_away_backward(int dtype, Address code, std::int64_t stride, std::int64_t n, std::int64_t d, Address norms,
                           Address gram, double upstream, Address grad, std::int64_t grad_stride, int threads) {
  unlocked(threads, [&](const ebgan::Kernels& k, int usable) {
    k.pulling_away_backward(DType(dtype), Code{at(code), stride, n, d}, at(norms), at(gram), upstream, at(grad),
                            grad_stride, usable);
  });
}

// (bytes, whether they are for each thread)
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
  ebgan::usable_threads(1);  // starts watching for forks: torch may own a thread team before the first kernel runs
  m.def("energy_forward", energy_forward);
  m.def("energy_backward", energy_backward);
  m.def("hinge", hinge);
  m.def("discriminator_loss", discriminator_loss);
  m.def("mean_energy", mean_energy);
  m.def("pulling_away_forward", pulling_away_forward);
  m.def("pulling_away_backward", pulling_away_backward);
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
