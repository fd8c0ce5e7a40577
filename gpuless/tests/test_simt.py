"""Tests that the SIMT simulator runs correct kernels correctly in any order of threads, and shows every planted bug."""

from __future__ import annotations

import ctypes
import signal
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from torch import Tensor

from gpuless import simt, tools
from gpuless.compiling import compiled
from gpuless.guard_pages import faults, guarded, poisoned

if reason := simt.missing():
    pytest.skip(reason, allow_module_level=True)

PLANTED = Path(__file__).with_name("planted_simt.cu")
SEEDS = range(4)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(str(simt.build([PLANTED], tmp_path_factory.mktemp("simt") / "planted.so")))


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = [PLANTED, Path(__file__).with_name("planted_simt_main.cpp")]
    return simt.build(sources, tmp_path_factory.mktemp("simt") / "planted", sanitizers="address,undefined")


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def row_sums(library: ctypes.CDLL, values: Tensor, bug: str = "none") -> Tensor:
    out = poisoned((len(values),), torch.float32)
    library.run_row_sum(pointer(values), pointer(out), len(values), values.shape[1] // 4, bug.encode())
    return out


def product(library: ctypes.CDLL, a: Tensor, b: Tensor, bug: str = "none") -> Tensor:
    to = torch.bfloat16 if a.dtype == torch.float16 else torch.float16
    (m, k), n = a.shape, b.shape[1]
    out = poisoned((m, n), to)
    library.run_product(pointer(a), pointer(b), pointer(out), m, n, k, int(to == torch.float16), bug.encode())
    return out


def warp_facts(library: ctypes.CDLL, values: Tensor, bug: str = "none") -> tuple[Tensor, Tensor]:
    turned, facts = poisoned(values.shape, torch.int32), poisoned((len(values) // 32, 4), torch.int32)
    library.run_warp_facts(pointer(values), pointer(turned), pointer(facts), len(values) // 256, bug.encode())
    return turned, facts


def integers(shape: tuple[int, ...], dtype: torch.dtype, low: int = -8, high: int = 8) -> Tensor:
    """Return integers whose sums are exact, so that no order of additions can change them."""
    return guarded(torch.randint(low, high, shape, generator=torch.Generator().manual_seed(1)).to(dtype))


@pytest.fixture(params=SEEDS)
def seed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("SIMT_SEED", str(request.param))
    return request.param


def test_rows_are_summed(library: ctypes.CDLL, seed: int) -> None:
    values = integers((5, 1200), torch.float32)
    assert torch.equal(row_sums(library, values), values.sum(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (17, 33, 50), (16, 16, 16)])
def test_products_convert_half_and_bfloat16(
    library: ctypes.CDLL, seed: int, dtype: torch.dtype, m: int, n: int, k: int
) -> None:
    a, b = integers((m, k), dtype), integers((k, n), dtype)
    out = product(library, a, b)
    assert torch.equal(out, (a.double() @ b.double()).to(out.dtype))


def test_conversions_round_to_nearest_even(library: ctypes.CDLL) -> None:
    one = torch.ones(1, 1, dtype=torch.float16)
    values = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-10, 6e-8, 65504, float("inf"), float("nan")])
    out = product(library, values.half()[:, None], one)
    assert torch.equal(out.nan_to_num(3), values.half().to(torch.bfloat16)[:, None].nan_to_num(3))


def test_warps_vote_and_exchange(library: ctypes.CDLL, seed: int) -> None:
    values = integers((512,), torch.int32, 0, 60)
    values[64:96] += 1
    turned, facts = warp_facts(library, values)
    warps = values.view(-1, 32)
    assert torch.equal(turned.view(-1, 32), warps.flip(1))
    expected = [warps[:, 0], (warps % 2).sum(1), (warps == 0).any(1), (warps > 0).all(1)]
    assert torch.equal(facts, torch.stack(expected, 1).int())
    assert facts[:, 2:].float().std(0).all(), "some warps have zeros, and some have none"


def test_shuffles_keep_to_their_segments(library: ctypes.CDLL, seed: int) -> None:
    values, out = integers((32,), torch.int32, -1000, 1000), poisoned((4, 32), torch.int32)
    library.run_shuffles(pointer(values), pointer(out), b"none")
    lane = torch.arange(32)
    broadcast = lane // 8 * 8 + 3
    crossed = torch.where(lane < 16, lane, lane ^ 24)  # an earlier segment can be read, a later segment cannot
    down = torch.where(lane % 8 < 5, lane + 3, lane)
    assert torch.equal(out, values[torch.stack([lane ^ 1, broadcast, crossed, down])])


@pytest.mark.parametrize("count", [1, 20, 32])
def test_syncwarp_waits_for_no_lane_that_has_ended(library: ctypes.CDLL, seed: int, count: int) -> None:
    values, out = integers((count,), torch.int32), poisoned((count,), torch.int32)
    library.run_turn_around(pointer(values), pointer(out), count)
    assert torch.equal(out, values.flip(0))


def last_of_histogram(library: ctypes.CDLL) -> int:
    """Run the histogram and return the number of the block that came last."""
    values = integers((1000,), torch.int32, 0, 5000)
    bins, ended = torch.zeros(16, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    largest, last = torch.zeros(1, dtype=torch.int32), poisoned((2,), torch.int32)
    library.run_histogram(pointer(values), len(values), *map(pointer, (bins, largest, ended, last)))
    assert (last[0].item(), largest.item(), ended.item()) == (1000, values.max(), 0)
    assert not bins.any()
    return int(last[1].item())


def test_atomics_and_the_last_block(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    last = set()
    for seed in SEEDS:
        monkeypatch.setenv("SIMT_SEED", str(seed))
        last.add(last_of_histogram(library))
    assert len(last) > 1


def block_totals(library: ctypes.CDLL, values: Tensor, bug: str) -> Tensor:
    totals = poisoned((len(values),), torch.int32)
    library.run_block_totals(pointer(values), pointer(totals), len(values), bug.encode())
    return totals


@pytest.mark.parametrize("bug", ["no atomic", "no barrier"])
def test_warps_advance_together_in_some_blocks_and_apart_in_others(library: ctypes.CDLL, seed: int, bug: str) -> None:
    """Some blocks run warps together, others run them apart. Updates are lost only together. A missing barrier shows
    only apart: together, the other warps always overtake the first one, which must wait for them.
    """
    values = integers((16, 256), torch.int32, 1)
    right = values.sum(1)
    assert torch.equal(block_totals(library, values, "none"), right)
    is_right = block_totals(library, values, bug) == right
    assert is_right.any()
    assert not is_right.all()


def test_missing_barriers_give_wrong_results(library: ctypes.CDLL, seed: int) -> None:
    rows = integers((5, 1200), torch.float32)
    assert not torch.equal(row_sums(library, rows, "no barrier"), rows.sum(1))
    a, b = integers((40, 64), torch.float16), integers((64, 40), torch.float16)
    assert not torch.equal(product(library, a, b, "no barrier"), product(library, a, b))
    values = integers((512,), torch.int32)
    turned, _ = warp_facts(library, values, "no syncwarp")
    assert not torch.equal(turned.view(-1, 32), values.view(-1, 32).flip(1))


def test_orders_differ_by_seed(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders differ from seed to seed. The same seed gives the same order."""
    values = integers((512,), torch.int32)

    def turned(seed: int) -> Tensor:
        monkeypatch.setenv("SIMT_SEED", str(seed))
        return warp_facts(library, values, "no syncwarp")[0]

    assert torch.equal(turned(1), turned(1))
    assert not torch.equal(turned(1), turned(2))


def test_static_shared_memory_is_nan_in_every_block(library: ctypes.CDLL) -> None:
    values = integers((5, 1200), torch.float32)
    assert torch.equal(row_sums(library, values), values.sum(1))
    assert row_sums(library, values, "unwritten shared").isnan().all()


def test_dynamic_shared_memory_is_nan_in_every_block(library: ctypes.CDLL) -> None:
    a, b = integers((33, 7), torch.float16), integers((7, 33), torch.float16)
    assert not product(library, b.T.contiguous(), a.T.contiguous()).isnan().any()  # this leaves numbers in freed memory
    assert product(library, a, b, "unwritten shared").isnan().all()


def test_a_library_faults_at_guard_pages(library: ctypes.CDLL) -> None:
    values = integers((5, 1200), torch.float32)
    assert not faults(lambda: row_sums(library, values))
    assert faults(lambda: row_sums(library, values, "read past the end"))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kernel", ["row_sum", "product", "shuffles"])
def test_right_kernels_pass_the_sanitizers(sanitized: Path, kernel: str, seed: int) -> None:
    done = simt.run(sanitized, kernel, "none", seed=seed)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "report"),
    [
        (["row_sum", "read past the end"], "heap-buffer-overflow"),
        (["product", "write past shared"], "heap-buffer-overflow"),
        (["row_sum", "index past shared"], "index 8 out of bounds for type 'float [8]'"),
        (["row_sum", "none", "1"], "misaligned address"),
        (["row_sum", "shuffle in a branch"], "thread (8,0,0) has ended"),
        (["row_sum", "shuffle from outside"], "which is not in the mask"),
        (["shuffles", "shuffle in each branch"], "waits in __shfl_"),
        (["shuffles", "mask without itself"], "the lane is not in its own mask"),
        (["shuffles", "masks that differ"], "for lanes ffffffff, but thread (16,0,0) waits"),
        (["row_sum", "barrier in each branch"], "waits in __syncthreads"),
        (["row_sum", "barrier after a return"], "waits in __syncthreads"),
    ],
)
def test_bugs_are_reported(sanitized: Path, arguments: list[str], report: str) -> None:
    for seed in SEEDS:
        done = simt.run(sanitized, *arguments, seed=seed)
        assert done.returncode != 0
        assert report in done.stderr
        assert "planted_simt.cu:" in done.stderr  # the report names the line


def test_a_compiler_that_fortifies_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that sets _FORTIFY_SOURCE by itself works too. glibc's fortified longjmp ends a process that goes from
    one stack to another.
    """
    wrapped = tmp_path / "c++"
    # The cache of compiles must see another version.
    says = '[ "$1" = --version ] && echo "fortifies unasked"'
    wrapped.write_text(f'#!/bin/sh\n{says}\nexec {tools.compiler()} -D_FORTIFY_SOURCE=2 "$@"\n')
    wrapped.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapped))
    sources = [PLANTED, Path(__file__).with_name("planted_simt_main.cpp")]
    done = simt.run(simt.build(sources, tmp_path / "planted"), "shuffles", "none")
    assert done.returncode == 0, done.stderr


def test_a_grid_of_nothing_is_no_launch(sanitized: Path) -> None:
    done = simt.run(sanitized, "no_rows", "none")
    assert done.returncode == -signal.SIGABRT
    assert "launch with a grid" in done.stderr


def test_nvcc_takes_the_same_source() -> None:
    if (nvcc := tools.nvcc()) is None:
        pytest.skip("no nvcc here to compile the planted kernels with")
    options = ["-std=c++17", "-arch=sm_90", "-cubin", "-Werror=all-warnings"]
    assert compiled(nvcc, [PLANTED], options=options, headers=[simt.INCLUDE], host_compiler=tools.compiler())
