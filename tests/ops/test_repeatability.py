"""Results have the same bits from run to run and at any number of threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import ebgan_fast

from .cases import BACKENDS, DEVICE, normal

# (N, K, d): small, long rows, wide codes, many samples. With 7 codes of d = 100,000, torch.mm depends on the number of
# threads.
SIZES = [(3, 17, 5), (64, 1024, 800), (5, 300_001, 3), (7, 100, 100_000), (2000, 33, 48), (257, 64, 512)]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _everything(n: int, k: int, d: int, dtype: torch.dtype, norm: str) -> list[Tensor]:
    batches = [normal(n, k, seed=seed, dtype=torch.float32).to(dtype).requires_grad_() for seed in range(4)]
    code = normal(n, d, seed=4, dtype=torch.float32).to(dtype).requires_grad_()
    d_loss, *energies = ebgan_fast.discriminator_loss(*batches, 1.0, norm=norm)
    g_loss, _, pulling_away = ebgan_fast.generator_loss(*batches[2:], code, norm=norm)
    gradients = torch.autograd.grad(d_loss + g_loss, [*batches, code])
    return [tensor.detach() for tensor in (d_loss, *energies, g_loss, pulling_away, *gradients)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_cpu_backend_gives_the_same_bits_at_any_number_of_threads(
    size: tuple[int, int, int], dtype: torch.dtype, threads
) -> None:
    status = ebgan_fast.backends()["cpu"]
    if DEVICE.type != "cpu":
        pytest.skip("is about tensors on the processor")
    if not status.available:
        pytest.skip(f"backend cpu: {status.reason}")
    with ebgan_fast.use_backend("cpu"):
        threads(1)
        alone = _everything(*size, dtype, "l2")
        for count in (1, 2, 3, 5):
            threads(count)
            assert all(map(torch.equal, _everything(*size, dtype, "l2"), alone)), f"{count} threads"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_bits_from_run_to_run(backend: str) -> None:
    with ebgan_fast.use_backend(backend):
        runs = [_everything(64, 1024, 800, torch.float32, "mse") for _ in range(3)]
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))
