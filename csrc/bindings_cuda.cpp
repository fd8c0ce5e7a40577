// The submodule ebgan_fast._C.cuda. Pointers and the stream are passed as integers. An error of CUDA becomes a
// RuntimeError.
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

using ebgan::DType;
using ebgan::cuda::Float32Products;
using ebgan::cuda::Gradient;
using ebgan::cuda::Workspace;
using ebgan::cuda::WorkspaceSize;

using Address = std::uintptr_t;

void* at(Address address) { return reinterpret_cast<void*>(address); }

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver)
    throw std::runtime_error(std::string("no NVIDIA GPU or driver: ") + cudaGetErrorName(error));
  throw std::runtime_error(std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error));
}

cudaStream_t stream_of(Address stream) { return reinterpret_cast<cudaStream_t>(stream); }

Workspace workspace(Address partials, Address counters) { return {at(partials), static_cast<int32_t*>(at(counters))}; }

py::tuple size(const WorkspaceSize& size) { return py::make_tuple(size.partials, size.counters); }

Float32Products products(bool tf32) { return tf32 ? Float32Products::kTf32 : Float32Products::kExact; }

py::tuple loss_workspace(int dtype, const py::tuple& arguments) {
  return size(ebgan::cuda::loss_workspace(DType(dtype), ebgan::loss_of(arguments)));
}

void loss(int dtype, const py::tuple& arguments, Address partials, Address counters, Address stream) {
  check(ebgan::cuda::loss(DType(dtype), ebgan::loss_of(arguments), workspace(partials, counters), stream_of(stream)));
}

void energy_gradient(int dtype, const py::tuple& arguments, Address stream) {
  check(ebgan::cuda::energy_gradient(DType(dtype), ebgan::energy_gradient_of(arguments), stream_of(stream)));
}

void hinge(int acc, const py::tuple& arguments, Address stream) {
  check(ebgan::cuda::hinge(DType(acc), ebgan::hinge_of(arguments), stream_of(stream)));
}

py::tuple pulling_away_workspace(int dtype, const py::tuple& arguments) {
  return size(ebgan::cuda::pulling_away_workspace(DType(dtype), ebgan::pulling_away_of(arguments).code));
}

void pulling_away(int dtype, const py::tuple& arguments, bool tf32, Address partials, Address counters, Address stream) {
  check(ebgan::cuda::pulling_away(DType(dtype), ebgan::pulling_away_of(arguments), products(tf32),
                                  workspace(partials, counters), stream_of(stream)));
}

void pulling_away_gradient(int dtype, const py::tuple& arguments, bool tf32, Address stream) {
  check(ebgan::cuda::pulling_away_gradient(DType(dtype), ebgan::pulling_away_gradient_of(arguments), products(tf32),
                                           stream_of(stream)));
}

// gradients: a tuple (from, to, count) for each.
void scale_gradients(int dtype, const py::list& gradients, Address upstream, Address expected, double expected_number,
                     bool in_place, Address stream) {
  std::vector<Gradient> all;
  for (const py::handle each : gradients) {
    const auto it = py::cast<py::tuple>(each);
    all.push_back({at(it[0].cast<Address>()), at(it[1].cast<Address>()), it[2].cast<std::int64_t>()});
  }
  if (all.size() > ebgan::cuda::kMostGradients) throw std::invalid_argument("more gradients than an op has");
  check(ebgan::cuda::scale_gradients(DType(dtype), all.data(), static_cast<int>(all.size()), {at(upstream), 0},
                                     {at(expected), expected_number}, in_place, stream_of(stream)));
}

// Returns "" if a GPU can be used, else the error's name.
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
  cuda.attr("has_ptx") = EBGAN_CUDA_HAS_PTX != 0;
  cuda.def("device_error", device_error);
  cuda.def("loss_workspace", loss_workspace);
  cuda.def("loss", loss);
  cuda.def("energy_gradient", energy_gradient);
  cuda.def("hinge", hinge);
  cuda.def("pulling_away_workspace", pulling_away_workspace);
  cuda.def("pulling_away", pulling_away);
  cuda.def("pulling_away_gradient", pulling_away_gradient);
  cuda.def("scale_gradients", scale_gradients);
}

}  // namespace ebgan
