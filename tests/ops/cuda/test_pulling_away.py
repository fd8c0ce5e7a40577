"""The pulling-away term of backend cuda in the simulators.

It runs as C++ with threads in any order, beside guard pages, and as PTX, which also shows races.
"""

from __future__ import annotations

import itertools
import shutil

import pytest
import torch
from torch import Tensor

from . import marks  # isort: skip  (skips the module where no simulator can be built)

from ebgan_fast.ops import reference
from ebgan_fast.ops.tensors import DTYPES as DTYPES_OF_C
from gpuless.ptx import OutOfBounds, Race

from ..budget import ULPS, pulling_away_sums
from ..cases import DTYPES, every_dtype
from . import building
from .energy_cases import Simulator, laid_out, leaves_of, random
from .pulling_away_cases import check, code_of, run
from .stand_ins import in_ptx, in_simt, needs_nvcc, on_cuda

pytestmark = marks.slow

# N, d. Primal where N <= d, else dual. A tile of 64, whole or cut in two.
SMALL = [(2, 2), (3, 7), (33, 97), (3, 1), (9, 4), (300, 5)]
# A tile of 128, and three of them; a few splits, and more than 8. Dual: one split and two, with several tiles.
LARGE = [(64, 140), (5, 1160), (65, 70), (130, 131), (150, 66)]
# Many tiles with many splits. Only for bfloat16, which takes one product where float32 takes three: 7 s, not 30.
BOTH = [(130, 520), (150, 129), (300, 129)]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        *itertools.product(SMALL, DTYPES),
        *itertools.product(LARGE, (torch.float32, torch.bfloat16)),
        *itertools.product(BOTH, (torch.bfloat16,)),
    ],
    ids=str,
)
def test_value_and_gradient(shape: tuple[int, int], dtype: torch.dtype) -> None:
    code = code_of(*shape, dtype)
    check(run(in_simt, code, seed=sum(shape)), code)


@needs_nvcc
@every_dtype
@pytest.mark.parametrize("shape", [(3, 7), (33, 97), (9, 4), (70, 33)], ids=str)
def test_value_and_gradient_in_ptx(shape: tuple[int, int], dtype: torch.dtype) -> None:
    code = code_of(*shape, dtype)
    check(run(in_ptx, code, seed=sum(shape)), code)


@needs_nvcc
@pytest.mark.parametrize("shape", [(65, 70), (130, 131)], ids=str)
def test_large_tiles_in_ptx(shape: tuple[int, int]) -> None:
    code = code_of(*shape, torch.bfloat16)
    check(run(in_ptx, code), code)


@marks.everywhere
@every_dtype
@pytest.mark.parametrize("layout", ["offset", "wide_rows", "odd_rows"])
@pytest.mark.parametrize("shape", [(5, 40), (40, 8)], ids=["primal", "dual"])
def test_layouts(simulator: Simulator, dtype: torch.dtype, layout: str, shape: tuple[int, int]) -> None:
    code = code_of(*shape, dtype, layout)
    check(run(simulator, code), code)


@marks.everywhere
@pytest.mark.parametrize("shape", [(5, 40), (40, 8)], ids=["primal", "dual"])
def test_an_upstream_gradient_in_memory_is_the_number(simulator: Simulator, shape: tuple[int, int]) -> None:
    code = code_of(*shape, torch.float32)
    number = run(simulator, code, -0.375)
    check(number, code, -0.375)
    assert all(map(torch.equal, number, run(simulator, code, torch.tensor(-0.375))))


@marks.everywhere
@pytest.mark.parametrize("shape", [(5, 40), (130, 131), (40, 8)], ids=["one tile", "many tiles", "dual"])
def test_the_loss_gets_the_weighted_value(simulator: Simulator, shape: tuple[int, int]) -> None:
    """The loss is the value times `pt_weight`, given as a number or in memory."""
    code, recon = code_of(*shape, torch.bfloat16), torch.zeros(shape[0], 4, dtype=torch.bfloat16)
    weight = torch.tensor(0.3)
    with simulator([code, recon, weight], 0):
        results = [
            on_cuda.generator_loss(recon, recon, code, it, "mse", 1.0, [False, False, shape[0] < 100])
            for it in (0.3, weight)
        ]
    for loss, _, value, *_, gradient in results:
        assert loss is not None
        assert torch.equal(loss, torch.tensor(0.3) * value)
        assert gradient is None or torch.equal(gradient, results[0][-1])


@marks.everywhere
@pytest.mark.parametrize("shape", [(5, 40), (40, 8)], ids=["primal", "dual"])
def test_the_upstream_of_a_loss_reaches_the_code(simulator: Simulator, shape: tuple[int, int]) -> None:
    """The upstream multiplies `pt_weight`; each is given as a number and in memory."""
    code, recon = code_of(*shape, torch.float32), torch.zeros(shape[0], 4)
    expected = run(simulator, code, 0.375 * 0.5)[1]
    numbers, tensors = (0.375, 0.5), (torch.tensor(0.375), torch.tensor(0.5))
    for weight, upstream in itertools.product(*zip(numbers, tensors, strict=True)):
        with simulator([code, recon, *tensors], 0):
            *_, gradient = on_cuda.generator_loss(recon, recon, code, weight, "mse", upstream, [False, False, True])
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize("shape", [(5, 1160), (130, 131), (300, 20)], ids=str)
def test_no_order_changes_a_bit(shape: tuple[int, int]) -> None:
    code = code_of(*shape, torch.bfloat16)
    one, other = (run(in_simt, code, seed=seed) for seed in range(2))
    assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("shape", [(5, 600), (300, 9)], ids=["primal", "dual"])
def test_tf32_is_for_those_who_allow_it(shape: tuple[int, int]) -> None:
    """float32 products run in tf32 only where torch's switch allows it.

    One product of rounded factors is off by about 2^-12 of its size. Three products, which split the factors, are not.
    """
    code = code_of(*shape, torch.float32)
    (leaf,) = leaves_of([code])
    (truth,) = torch.autograd.grad(reference.pulling_away_term(leaf), leaf)
    errors = []
    for precision in ("highest", "high"):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            errors.append(((run(in_simt, code)[1] - truth).norm() / truth.norm()).item())
        finally:
            torch.set_float32_matmul_precision(before)
    assert errors[0] < (ULPS + pulling_away_sums(code)) * torch.finfo(torch.float32).eps
    # Four factors are rounded to 11 bits, each off by 2^-11 at most.
    assert 2.0**-14 < errors[1] < 2.0**-9


@marks.everywhere
@pytest.mark.parametrize("shape", [(5, 40), (40, 8)], ids=["primal", "dual"])
def test_nan_reaches_the_value(simulator: Simulator, shape: tuple[int, int]) -> None:
    code = code_of(*shape, torch.float32)
    code[2, 3] = torch.nan
    value, gradient = run(simulator, code)
    assert value.isnan()
    assert gradient[3].isnan().any()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@needs_nvcc
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)  # float64 has only tiles of 64: for gradcheck, not for speed
@pytest.mark.parametrize("n", [64, 128])
def test_a_code_is_read_once_each_way(n: int, dtype: torch.dtype) -> None:
    """Forward and backward read the code once each, in one launch each; their other traffic is the residual.

    No code here is zeros; test_out_of_range.py has rows of zeros.
    """
    code = laid_out(random(n, 128, n, dtype), "plain")
    with in_ptx([code]) as simulation:
        value, *left = on_cuda.pulling_away_term(code)
        gradient = on_cuda.pulling_away_term_backward(torch.ones_like(value), code, *left)
    assert len(simulation.reports) == 2
    assert simulation.moved(0, code) == simulation.moved(1, code) == (_bytes(code), 0)
    assert simulation.moved(1, gradient) == (0, _bytes(code))
    written = [it for it in simulation.traffic[1] if it.bytes_written]
    assert len(written) == 1
    assert all(report.float_atomics == 0 for report in simulation.reports)


@needs_nvcc
def test_what_the_splits_leave_is_read_once_by_many_blocks() -> None:
    """In the second launch, each block reads two rows of every split's matrix, and the lengths of all codes.

    So no block alone adds up the whole matrix.
    """
    n, splits = 64, 4
    code = laid_out(random(n, splits * 4 * 64, n, torch.bfloat16), "plain")  # four steps of 128 bytes for each split
    with in_ptx([code]) as simulation:
        _, _, residual = on_cuda.pulling_away_term(code)
    first, second = simulation.reports
    assert simulation.moved(0, code) == (_bytes(code), 0)
    assert (first.ctas, second.ctas) == (splits, n // 2)
    matrix, squares = _bytes(residual), 4 * n
    assert first.bytes_written == splits * (matrix + squares)
    # Each of the four warps that share a row also reads that row's length. The last block reads the sums of the rows.
    rows = n * 4 * splits * 4
    counted = second.ctas * 4 + 4 * n
    assert second.bytes_read <= splits * matrix + second.ctas * splits * squares + rows + counted
    assert simulation.moved(1, residual)[1] == matrix


def _splits(n: int, d: int, dtype: torch.dtype) -> int:
    """Return the number of splits, computed from the size of the workspace.

    Each split leaves a matrix and all lengths, or in the dual form one number. Besides there is a sum for each row.
    """
    kernels, code = building.load(building.simulated() / "_simulated.so").cuda, (0, d, n, d)
    partials, counters = kernels.pulling_away_workspace(DTYPES_OF_C[dtype], (code, 0, 0, 0, 0, 0, 0.0))
    side = min(n, d)
    splits, rest = divmod(partials - side, side**2 + (n if n <= d else 1))
    assert rest == 0
    assert counters == 1
    return int(splits)


# A step is 128 bytes of a row, in the dual form 32 samples. A tile is up to 128 samples, in the dual form 64 elements.
SPLITS = [
    ((64, 16384), torch.float32, 1, 16384 // (4 * 32)),  # as many as the depth allows
    ((128, 16384), torch.float32, 1, 16384 // (4 * 32)),
    ((128, 16384), torch.bfloat16, 1, 16384 // (4 * 64)),
    ((64, 131072), torch.float32, 1, 128),  # 32 steps each, the fewest that give no more than 132 splits
    ((128, 32768), torch.float32, 1, 128),
    ((2048, 512), torch.float32, 36, 264 // 36),
    ((2048, 256), torch.float32, 10, 2048 // (4 * 32)),
    ((2048, 128), torch.bfloat16, 3, 2048 // (4 * 32)),
]


@pytest.mark.parametrize(("shape", "dtype", "tiles", "splits"), SPLITS, ids=str)
def test_multiprocessors_are_busy_where_the_depth_allows_it(
    shape: tuple[int, int], dtype: torch.dtype, tiles: int, splits: int
) -> None:
    """The splits keep an H100's 132 multiprocessors busy where the depth allows it; two dual blocks run on each."""
    assert _splits(*shape, dtype) == splits
    assert tiles * splits <= (264 if shape[0] > shape[1] else 132)


BARRIER = "    __syncthreads();  // the previous tile must have been read\n"
READY = (
    "    put_factor<G>(next_left, left, code, i, k);\n"
    "    if (!is_diagonal) put_factor<G>(next_right, right, code, j, k);\n    __syncthreads();\n"
)
NO_BARRIER = {"pulling_away_kernels.cuh": (BARRIER, "")}
NOT_READY = {"pulling_away_kernels.cuh": (READY, READY.replace("    __syncthreads();\n", ""))}
ONE_ROW_TOO_MANY = {"tiles.cuh": ("if (l >= from.lines ||", "if (l > from.lines ||")}
TOO_SOON = {"pulling_away_kernels.cuh": ("    __syncthreads();  // the previous chunk must have been read\n", "")}
PLANTED: dict[str, tuple[dict[str, tuple[str, str]], tuple[int, int], type[Exception], str]] = {
    "tile_overwritten": (NO_BARRIER, (5, 100), Race, "of shared memory"),
    "tile_not_ready": (NOT_READY, (5, 40), Race, "of shared memory"),
    "sums_overwritten": (TOO_SOON, (130, 520), Race, "of shared memory"),
    "one_row_too_many": (ONE_ROW_TOO_MANY, (5, 40), OutOfBounds, "load of"),
}


@needs_nvcc
@pytest.mark.parametrize("name", PLANTED)
def test_bugs_in_ptx(name: str) -> None:
    changes, shape, error, message = PLANTED[name]
    csrc = building.planted(f"pulling_away_{name}", changes)
    code = code_of(*shape, torch.float32)
    with pytest.raises(error, match=message), in_ptx([code], csrc=csrc):
        on_cuda.pulling_away_term(code)


def _built(name: str, changes: dict[str, tuple[str, str]], sanitizers: str) -> str:
    """Build the changed kernels, or the unchanged ones with every dtype, and return their folder."""
    csrc = building.planted(f"pulling_away_{name}", changes, every_dtype=not changes)
    building.library(csrc, csrc, ("pulling_away.cu",), sanitizers)
    shutil.copy(building.simulated() / "_simulated.so", csrc)
    return str(csrc)


def test_a_bug_in_simt() -> None:
    done = building.ended("run_pulling_away", _built("tile_not_ready_in_simt", NOT_READY, ""))
    assert done.returncode == 1
    assert "AssertionError" in done.stderr


def test_no_access_that_address_sanitizer_sees() -> None:
    """AddressSanitizer finds no wrong access to shared memory or to a thread's own arrays.

    Neither lies next to a guard page.
    """
    environment = building.address_sanitizer()
    if environment is None:
        pytest.skip("the compiler comes without AddressSanitizer")
    folder = _built("with_addresses", {}, "address")
    done = building.ended("run_pulling_away", folder, "every_dtype", **environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("n", "d"), [*itertools.product((0, 1), (1, 5)), (3, 0)])
def test_fewer_than_two_codes_or_no_elements(n: int, d: int) -> None:
    code = torch.ones(n, d)
    value, *left = on_cuda.pulling_away_term(code)
    gradient = on_cuda.pulling_away_term_backward(torch.ones(()), code, *left)
    assert value.item() == 0.0
    assert not gradient.any()
