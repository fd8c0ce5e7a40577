"""Codes whose squared lengths leave the range of the sums, in the simulators.

The term must not change, as a cosine does not depend on lengths.
"""

from __future__ import annotations

import pytest
import torch

from . import marks  # isort: skip  (skips the module where no simulator can be built)

from gpuless.ptx import Race

from ..cases import DTYPES
from . import building
from .energy_cases import Simulator, laid_out, random
from .pulling_away_cases import check, code_of, code_to_scale, run, scaled, scales_of
from .stand_ins import in_ptx, in_simt, needs_nvcc, on_cuda

pytestmark = marks.slow

# N, d. Primal: one block, splits, one tile of 128 (float64: three of 64). Dual: one block, splits, three tiles.
SHAPES = [(5, 40), (5, 580), (65, 70), (9, 4), (300, 5), (140, 65)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_rows_of_every_length(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Rows of very different lengths in one batch, with a row of zeros, give the right term.

    float16 takes no part, as its rows never leave the range.
    """
    code, scales = code_to_scale(*shape, dtype), scales_of(shape[0], dtype)
    check(run(in_simt, scaled(code, scales), seed=sum(shape)), code, scales=scales)


def test_rows_of_every_length_in_three_tiles_of_128() -> None:
    code, scales = code_to_scale(130, 131, torch.bfloat16), scales_of(130, torch.bfloat16)
    check(run(in_simt, scaled(code, scales)), code, scales=scales)


@needs_nvcc
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("shape", [(5, 40), (6, 580), (9, 4), (70, 33)], ids=str)
def test_rows_of_every_length_in_ptx(shape: tuple[int, int], dtype: torch.dtype) -> None:
    code, scales = code_to_scale(*shape, dtype), scales_of(shape[0], dtype)
    check(run(in_ptx, scaled(code, scales), seed=sum(shape)), code, scales=scales)


@marks.everywhere
@pytest.mark.parametrize("layout", ["offset", "wide_rows", "odd_rows"])
@pytest.mark.parametrize("shape", [(5, 40), (40, 8)], ids=["primal", "dual"])
def test_layouts(simulator: Simulator, layout: str, shape: tuple[int, int]) -> None:
    code, scales = code_to_scale(*shape, torch.bfloat16), scales_of(shape[0], torch.bfloat16)
    check(run(simulator, scaled(code, scales, layout)), code, scales=scales)


@pytest.mark.parametrize("exponent", [-126, -60, 60, 127])
def test_all_rows_of_one_length_in_splits(exponent: int) -> None:
    """Rows from the least normal numbers to the largest are right where the depth is cut into splits.

    At the largest, a tf32 part may be infinite, and its square NaN. The upstream keeps the gradients away from both
    ends. test_row_scale.py has codes of one split.
    """
    code, scales = code_to_scale(5, 300, torch.float32), torch.full((5,), 2.0**exponent, dtype=torch.float64)
    upstream = 2.0 ** (exponent // 2)
    check(run(in_simt, scaled(code, scales), upstream), code, upstream, scales)


@pytest.mark.parametrize("shape", [(5, 40), (5, 580), (9, 4)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_codes_in_range_keep_their_bits(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """A power of two changes no bit of a term whose rows stay in range.

    The path for rows out of range sums in float64 and would give other numbers.
    """
    code = code_of(*shape, dtype)
    value, gradient = run(in_simt, code)
    for scale in (2.0**-30, 2.0**30):
        other_value, other_gradient = run(in_simt, laid_out(code * scale, "plain"))
        assert torch.equal(other_value, value)
        assert torch.equal(other_gradient, gradient / scale)


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(2, 2), (5, 40), (5, 580), (9, 4)], ids=str)
def test_no_infinite_code_is_hidden(number: float, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """An infinite or NaN number makes the term NaN, also where the only other code is a row of zeros."""
    values = random(*shape, 0, dtype)
    values[1], values[0, 1] = 0, number
    value, gradient = run(in_simt, laid_out(values, "plain"))
    assert value.isnan()
    assert gradient[0].isnan().all()
    assert gradient[2:].isnan().all()


@needs_nvcc
@pytest.mark.parametrize("rows", [slice(1, 1), slice(1, 2), slice(0, 64)], ids=["none", "one", "all"])
def test_rows_of_zeros_are_read_once_more(rows: slice) -> None:
    """Each row of zeros is read once more: by the blocks that hold its squares, never by those that finish the rows."""
    values = random(64, 1024, 0, torch.bfloat16)
    values[rows] = 0
    code = laid_out(values, "plain")
    with in_ptx([code]) as simulation:
        on_cuda.pulling_away_term(code)
    zeros = code[rows].numel() * code.element_size()
    assert simulation.moved(0, code) == (code.numel() * code.element_size() + zeros, 0)
    assert simulation.moved(1, code) == (0, 0)


NOT_PUT = {"pulling_away_kernels.cuh": ("  __syncwarp();  // all cosines must be stored before others read them\n", "")}


@needs_nvcc
def test_a_bug_in_ptx() -> None:
    csrc = building.planted("pulling_away_not_put", NOT_PUT)
    code = scaled(code_to_scale(5, 40, torch.float32), scales_of(5, torch.float32))
    with pytest.raises(Race, match="of shared memory"), in_ptx([code], csrc=csrc):
        on_cuda.pulling_away_term(code)
