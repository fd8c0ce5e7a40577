"""The tests that need a real GPU.

`bench/gpu.sh` runs them there, and the tests of values and derivatives on the GPU's tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import ebgan_fast

from .cases import REQUIRED

if not torch.cuda.is_available() and REQUIRED is None:
    pytest.skip("needs a GPU; `make gpu` runs it there", allow_module_level=True)

pytestmark = pytest.mark.parametrize(
    "backend", [name for name in ("triton", "cuda") if ebgan_fast.backends()[name].available or name == REQUIRED]
)

# (N, K, d): a program for each sample, samples in chunks, many tiles of codes, more codes than elements.
SIZES = [(64, 784, 1024), (16, 3 * 128 * 128, 16384), (300, 4096, 512), (300, 96, 32)]


@pytest.fixture(autouse=True)
def _on_backend(backend: str):
    with ebgan_fast.use_backend(backend):
        yield


def _inputs(n: int, k: int, d: int, device: str = "cuda") -> list[Tensor]:
    """Return four batches [N, K] and a code [N, d]."""
    shapes = [(n, k)] * 4 + [(n, d)]
    return [torch.empty(shape, device=device, requires_grad=True) for shape in shapes]


def _fill(inputs: Sequence[Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in inputs:
            tensor.copy_(torch.randn(tensor.shape, generator=generator, device="cpu"))


def _step(inputs: Sequence[Tensor], margin: float | Tensor = 2.0) -> list[Tensor]:
    """Return both losses, their other results, and their gradients to all inputs."""
    *batches, code = inputs
    d_loss, *energies = ebgan_fast.discriminator_loss(*batches, margin, norm="mse")
    g_loss, energy, pulling_away = ebgan_fast.generator_loss(*batches[2:], code, pt_weight=0.1, norm="mse")
    gradients = torch.autograd.grad(d_loss + g_loss, inputs)
    return [value.detach() for value in (d_loss, *energies, g_loss, energy, pulling_away, *gradients)]


def _equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_graph_replays_what_a_call_computes(backend: str, size: tuple[int, int, int]) -> None:
    inputs = _inputs(*size)
    _fill(inputs, 0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        _step(inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = _step(inputs)
    for seed in (1, 2, 3):
        _fill(inputs, seed)
        graph.replay()
        assert _equal(replayed, _step(inputs)), f"replay {seed}"


def test_a_graph_takes_the_upstream_of_each_replay(backend: str) -> None:
    """A replayed graph multiplies by the upstream that is in memory at that time.

    At 1 the gradients stay as the forward wrote them. At 3 and 0.5 they are multiplied in place.
    """
    inputs, factor = _inputs(*SIZES[0]), torch.ones((), device="cuda")
    _fill(inputs, 0)

    def scaled_step() -> tuple[Tensor, ...]:
        loss, *_ = ebgan_fast.discriminator_loss(*inputs[:4], 2.0, norm="mse")
        return torch.autograd.grad(loss * factor, inputs[:4])

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        plain = [gradient.clone() for gradient in scaled_step()]
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = scaled_step()
    for value in (1.0, 3.0, 1.0, 0.5):
        factor.fill_(value)
        graph.replay()
        assert _equal(replayed, [gradient * value for gradient in plain]), f"upstream {value}"


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_streams_do_not_disturb_each_other(backend: str, size: tuple[int, int, int]) -> None:
    alone, sets, streams = [], [], []
    for seed in range(3):
        sets.append(_inputs(*size))
        _fill(sets[seed], seed)
        alone.append(_step(sets[seed]))
        streams.append(torch.cuda.Stream())
    torch.cuda.synchronize()
    together: list[list[Tensor]] = []
    for _ in range(10):
        for inputs, stream in zip(sets, streams, strict=True):
            with torch.cuda.stream(stream):
                together.append(_step(inputs))
    torch.cuda.synchronize()
    for index, results in enumerate(together):
        assert _equal(results, alone[index % 3]), f"call {index}"


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nothing_waits_for_the_gpu(backend: str, size: tuple[int, int, int]) -> None:
    inputs, margin = _inputs(*size), torch.tensor(2.0, device="cuda")
    _fill(inputs, 0)
    _step(inputs, margin)  # compiles the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        _step(inputs, margin)
        _step(inputs, 2.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_margin_on_the_processor_is_taken_as_its_number(backend: str) -> None:
    inputs = _inputs(*SIZES[0])
    _fill(inputs, 0)
    assert _equal(_step(inputs, torch.tensor(2.0, device="cpu")), _step(inputs, 2.0))


def test_tensors_on_another_gpu(backend: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    results = []
    for device in ("cuda:0", "cuda:1"):
        inputs = _inputs(*SIZES[0], device=device)
        _fill(inputs, 0)
        results.append([value.cpu() for value in _step(inputs)])
    assert _equal(*results)


def test_a_batch_of_more_than_2_31_elements(backend: str) -> None:
    n, k = 3, 2**30
    needed = 4 * n * k * 2
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    recon = torch.empty(n, k, dtype=torch.bfloat16, device="cuda").normal_().requires_grad_()
    target = torch.zeros_like(recon)
    energy = ebgan_fast.reconstruction_energy(recon, target, norm="mse")
    (gradient,) = torch.autograd.grad(energy.sum(), recon)
    last = recon.detach()[-1:].clone().requires_grad_()
    alone = ebgan_fast.reconstruction_energy(last, target[-1:], norm="mse")
    (expected,) = torch.autograd.grad(alone.sum(), last)
    assert torch.equal(energy[-1:], alone)
    assert torch.equal(gradient[-1:], expected)
