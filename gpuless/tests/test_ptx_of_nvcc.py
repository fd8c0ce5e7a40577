"""Tests of nvcc's PTX in the simulator: correct kernels give right numbers, and every planted bug is found."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from torch import Tensor

import gpuless.cuda
from gpuless.ptx import Divergence, OutOfBounds, Race, SimulationError, simulate

if reason := gpuless.cuda.missing():
    pytest.skip(reason, allow_module_level=True)

SOURCE = Path(__file__).with_name("planted_ptx.cu")


def compiled(bug: str = "", architecture: str = "sm_80") -> str:
    return gpuless.cuda.ptx(SOURCE, architecture, options=[f"-DBUG_{bug}"] if bug else [])


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def row_sums(bug: str = "", architecture: str = "sm_80", n: int = 1000) -> tuple[Tensor, Tensor]:
    x, sums = random(3, n), torch.full((3,), torch.nan)
    ptx = compiled(bug, architecture)
    report = simulate(ptx, entry="row_sums", grid=(3,), threads=128, arguments=[x, sums, n // 4])
    assert set(report.buffers[0].loads) == {128}
    return x, sums


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_120"])
def test_row_sums(architecture: str) -> None:
    """Each element takes part in 2 additions of its vector, up to 2 of its thread, 5 of its warp and 4 of the block."""
    x, sums = row_sums(architecture=architecture)
    bound = 13 * 2.0**-24 * x.double().abs().sum(1)
    assert ((sums.double() - x.double().sum(1)).abs() <= bound).all()


ROW_SUM_BUGS: dict[str, tuple[type[SimulationError], str]] = {
    "ONE_TOO_MANY": (OutOfBounds, r"byte 12000 of argument 0, which has 12000 .*planted_ptx\.cu:\d+"),
    "NO_BARRIER": (Race, r"load at byte \d+ of shared memory, written by thread \d+"),
    "PARTIAL_SHUFFLE": (Divergence, r"lanes \[8, .*31\] of warp 1 are named and not there"),
    "PARTIAL_BARRIER": (Divergence, "a barrier that 96 threads don't reach"),
}


@pytest.mark.parametrize("bug", ROW_SUM_BUGS)
def test_bugs_of_a_row_sum(bug: str) -> None:
    error, message = ROW_SUM_BUGS[bug]
    with pytest.raises(error, match=message):
        row_sums(bug)


def product(bug: str = "") -> tuple[Tensor, Tensor, Tensor]:
    m, n, k = 45, 50, 70
    a, b = random(m, k, dtype=torch.float16), random(k, n, dtype=torch.float16, seed=1)
    c = torch.full((m, n), torch.nan, dtype=torch.bfloat16)
    arguments = [a, b, c, m, n, k]
    simulate(
        compiled(bug), entry="product", grid=(2, 2), threads=(32, 4), arguments=arguments, shared_bytes=2 * 32 * 33 * 4
    )
    return a, b, c


def test_product() -> None:
    """The error bound of a product is 70 fused multiply-adds and one rounding to bfloat16."""
    a, b, c = product()
    exact, scale = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    assert ((c.double() - exact).abs() <= 2.0**-8 * exact.abs() + 70 * 2.0**-24 * scale * (1 + 2.0**-8)).all()


def test_a_product_whose_tiles_are_overwritten_while_they_are_read() -> None:
    with pytest.raises(Race, match=r"store at byte \d+ of shared memory, read by thread"):
        product("NO_BARRIER")


def histogram(bug: str = "", grid: int = 3) -> list[int]:
    counts = torch.zeros(16, dtype=torch.int32)
    arguments = [torch.arange(300, dtype=torch.int32), 300, counts]
    simulate(compiled(bug), entry="histogram", grid=(grid,), threads=128, arguments=arguments)
    return counts.tolist()


def test_histogram() -> None:
    assert histogram() == [19] * 12 + [18] * 4
    with pytest.raises(Race, match="of argument 2"):
        histogram("NOT_ATOMIC")


def total_by_last(seed: int, bug: str = "") -> tuple[Tensor, Tensor, Tensor]:
    x, partials, total = random(6, 128), torch.full((6, 128), torch.nan), torch.full((128,), torch.nan)
    counter = torch.zeros(1, dtype=torch.int32)
    arguments = [x, partials, counter, total]
    simulate(compiled(bug), entry="total_by_last", grid=(6,), threads=128, arguments=arguments, seed=seed)
    return x, total, counter


def test_the_last_block_adds_up_what_the_others_stored() -> None:
    """Fences and a relaxed atomic order the accesses, as in CUDA's own samples."""
    for seed in range(4):
        x, total, counter = total_by_last(seed)
        assert counter.item() == 0
        assert ((total.double() - 2 * x.double().sum(0)).abs() <= 6 * 2.0**-24 * 2 * x.double().abs().sum(0)).all()


@pytest.mark.parametrize("bug", ["NO_FENCE", "NO_SECOND_FENCE", "NO_BARRIER"])
def test_a_last_block_that_may_not_see_the_others(bug: str) -> None:
    for seed in range(3):
        with pytest.raises(Race, match=r"load at byte \d+ of argument 1, written by thread"):
            total_by_last(seed, bug)
