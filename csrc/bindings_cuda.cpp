// The submodule ebgan_fast._C.cuda: pointers and the stream come as integers; an error of CUDA leaves as RuntimeError.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "bindings.h"
#include "cuda/kernels.h"

namespace py = pybind11;

namespace {

using ebgan::Address;
using ebgan::at;
using ebgan::Code;
using ebgan::DType;
using ebgan::Norm;
using ebgan::pair_arguments;
using ebgan::PairArguments;
using ebgan::cuda::Coefficient;
using ebgan::cuda::Float32Products;
using ebgan::cuda::Gradient;
using ebgan::cuda::Workspace;
using ebgan::cuda::WorkspaceSize;

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver)
    throw std::runtime_error(std::string("no NVIDIA GPU or driver: ") + cudaGetErrorName(error));
  throw std::runtime_error(std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error));
}

cudaStream_t stream_of(Address stream) { return reinterpret_cast<cudaStream_t>(stream); }

Workspace workspace(Address partials, Address counters) { return {at(partials), static_cast<int32_t*>(at(counters))}; }

py::tuple size(const WorkspaceSize& size) { return py::make_tuple(size.partials, size.counters); }

py::tuple loss_workspace(int dtype, int norm, const py::tuple& real, const py::tuple& fake) {
  return size(ebgan::cuda::loss_workspace(DType(dtype), Norm(norm), pair_arguments(real).pair, pair_arguments(fake).pair));
}

void loss(int dtype, int norm, const py::tuple& real, const py::tuple& fake, Address margin, double margin_value,
          Address loss, Address energy_real, Address energy_fake, Address partials, Address counters, Address stream) {
  const PairArguments r = pair_arguments(real), f = pair_arguments(fake);
  check(ebgan::cuda::loss(DType(dtype), Norm(norm), r.pair, f.pair, {at(margin), margin_value}, at(loss),
                          at(energy_real), at(energy_fake), r.grad, f.grad, workspace(partials, counters),
                          stream_of(stream)));
}

void energy_backward(int dtype, int norm, const py::tuple& pair, Address energy, Address upstream,
                     std::int64_t upstream_stride, Address stream) {
  const PairArguments p = pair_arguments(pair);
  check(ebgan::cuda::energy_backward(DType(dtype), Norm(norm), p.pair, at(energy), at(upstream), upstream_stride,
                                     p.grad, stream_of(stream)));
}

void hinge(int acc, Address energy_real, std::int64_t n_real, Address energy_fake, std::int64_t n_fake, Address margin,
           double margin_value, Address loss, Address grad_real, Address grad_fake, Address stream) {
  check(ebgan::cuda::hinge(DType(acc), at(energy_real), n_real, at(energy_fake), n_fake, {at(margin), margin_value},
                           at(loss), at(grad_real), at(grad_fake), stream_of(stream)));
}

py::tuple pulling_away_workspace(int dtype, Address code, std::int64_t stride, std::int64_t n, std::int64_t d) {
  return size(ebgan::cuda::pulling_away_workspace(DType(dtype), {at(code), stride, n, d}));
}

void pulling_away_forward(int dtype, Address code, std::int64_t stride, std::int64_t n, std::int64_t d, bool tf32,
                          Address norms, Address gram, Address value, Address loss, Address weight, double weight_value,
                          Address partials, Address counters, Address stream) {
  const auto products = tf32 ? Float32Products::kTf32 : Float32Products::kExact;
  check(ebgan::cuda::pulling_away_forward(DType(dtype), {at(code), stride, n, d}, products, at(norms), at(gram),
                                          at(value), at(loss), {at(weight), weight_value},
                                          workspace(partials, counters), stream_of(stream)));
}

void pulling_away_backward(int dtype, Address code, std::int64_t stride, std::int64_t n, std::int64_t d, bool tf32,
                           Address norms, Address gram, Address upstream, double upstream_value, Address grad,
                           std::int64_t grad_stride, Address stream) {
  const auto products = tf32 ? Float32Products::kTf32 : Float32Products::kExact;
  check(ebgan::cuda::pulling_away_backward(DType(dtype), {at(code), stride, n, d}, products, at(norms), at(gram),
                                           {at(upstream), upstream_value}, at(grad), grad_stride, stream_of(stream)));
}

// gradients: (from, to, count) of each
void scale_gradients(int dtype, const py::list& gradients, Address upstream, bool in_place, Address stream) {
  std::vector<Gradient> all;
  for (const py::handle each : gradients) {
    const auto it = py::cast<py::tuple>(each);
    all.push_back({at(it[0].cast<Address>()), at(it[1].cast<Address>()), it[2].cast<std::int64_t>()});
  }
  if (all.size() > ebgan::cuda::kMostGradients) throw std::invalid_argument("more gradients than an op has");
  check(ebgan::cuda::scale_gradients(DType(dtype), all.data(), static_cast<int>(all.size()), at(upstream), in_place,
                                     stream_of(stream)));
}

// "" where a GPU can be used, else the error's name.
std::string device_error() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  return error == cudaSuccess ? "" : cudaGetErrorName(error);
}

}  // namespace

namespace ebgan {

void bind_cuda(py::module_& m) {
  py::module_ cuda = m.def_submodule("cuda", "Kernels for NVIDIA GPUs; nothing waits for the device.");
  cuda.attr("compiler") = EBGAN_CUDA_COMPILER;
  cuda.attr("architectures") = EBGAN_CUDA_ARCHITECTURES;
  cuda.def("device_error", device_error);
  cuda.def("loss_workspace", loss_workspace);
  cuda.def("loss", loss);
  cuda.def("energy_backward", energy_backward);
  cuda.def("hinge", hinge);
  cuda.def("pulling_away_workspace", pulling_away_workspace);
  cuda.def("pulling_away_forward", pulling_away_forward);
  cuda.def("pulling_away_backward", pulling_away_backward);
  cuda.def("scale_gradients", scale_gradients);
}

}  // namespace ebgan
