"""The launches of the pulling-away term: the choice of form, kernels, tiles and precision.

`../protocol.py` defines them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...pulling_away import Term
from ...tensors import CodeLayout, Coefficient, Gradient
from ..gpu import allows_tf32, counters
from . import launch, pulling_away_gradient_kernels, pulling_away_kernels, tables
from .energy import acc_of, coefficient
from .launch import Launch

_ROW_LENGTHS = 1024  # elements that a program of `row_lengths` loads at a time
_FEWEST_STEPS = 4  # the fewest steps of a split, so that it writes not much more than it reads
_ROWS = 2  # rows of the residual per program; with fewer rows, more programs read all the lengths
_FINISHED = 4096  # sums loaded at a time, 8 a thread; the compiler unrolls loops by 4, and 8192 sums spilled
_FINISHING_WARPS = 16
_SPLITS, _COLUMNS = 16, 1024  # at most, loaded at a time


def float32_precision(arch: str) -> str:
    """Return the precision of float32 products: "tf32" if the user allows it, else one as exact as float32.

    On tensor cores that is "tf32x3", three products of tf32 numbers.
    """
    if not tables.has_tf32(arch):
        return "ieee"
    return "tf32" if allows_tf32() else "tf32x3"


def _gram_precision(dtype: torch.dtype, dual: bool, arch: str) -> str:
    """Return the precision of the Gram product.

    In primal, products of 16-bit codes are exact in tensor cores. In dual, the operands are normalized rows, which are
    not 16-bit numbers, and E is what remains after the trace is taken out. So dual products of 16-bit codes run as
    those of float32.
    """
    if dtype == torch.float64:
        return "ieee"
    if dtype == torch.float32:
        return float32_precision(arch)
    return float32_precision(arch) if dual else "tf32"


def _product_precision(dtype: torch.dtype, arch: str) -> str:
    """Return the precision of the gradient's product.

    A 16-bit gradient stores at most 10 bits, the same number as tf32 keeps of the residual and the units.
    """
    if dtype in (torch.float16, torch.bfloat16) and tables.has_tf32(arch):
        return "tf32"
    return "ieee" if dtype == torch.float64 else float32_precision(arch)


class Cut(NamedTuple):
    """The split of a Gram matrix into programs: tiles on and below its diagonal, each cut along its depth."""

    tiles: int
    splits: int
    split_depth: int
    """The depth of a split, a multiple of the tile's step."""

    @property
    def alone(self) -> bool:
        """True if one program computes the whole matrix."""
        return self.tiles == self.splits == 1


def cut(side: int, depth: int, dual: bool, tile: tables.ProductTile, arch: str) -> Cut:
    """Return a split of the [side, side] Gram matrix of sums over `depth`, with about the tables' number of
    programs."""
    per_side = -(-side // tile.rows)
    tiles = per_side * (per_side + 1) // 2
    steps = -(-depth // tile.depth)
    wanted = max(1, min(tables.gram_programs(arch, dual) // tiles, steps // _FEWEST_STEPS))
    split_depth = -(-steps // wanted) * tile.depth
    return Cut(tiles, -(-depth // split_depth), split_depth)


def term(term: Term) -> None:
    """Launch the Gram matrix, and a second kernel that finishes it. Codes of d < N have their lengths computed before.

    If one program can compute the whole matrix (`Cut.alone`), the first kernel also finishes it.
    """
    layout, lengths, residual = term.code, term.lengths, term.residual
    code, n, d, wide = layout.code, layout.n, layout.elements, lengths.dtype
    side = min(n, d)
    dual = d < n
    if dual:
        _row_lengths(layout, lengths)
    arch = tables.architecture(code.device)
    tile = tables.gram_tile(side, dual, code.dtype, arch)
    parts = cut(side, n if dual else d, dual, tile, arch)
    # With one split, the products are the matrix already, and become the residual in the same memory.
    products = residual if parts.splits == 1 else code.new_empty((parts.splits, side, side), dtype=wide)
    squares = None if parts.alone else code.new_empty((parts.splits, 1 if dual else n), dtype=wide)
    adds_to_loss = term.loss is not None
    weight, is_pointer = coefficient(term.weight, wide, code.device) if adds_to_loss else (0.0, False)
    ending = {
        "p_value": term.value,
        "p_loss": term.loss,
        "n": n,
        "d": d,
        "splits": parts.splits,
        "weight": weight,
        "WEIGHT_IS_POINTER": is_pointer,
        "ADDS_TO_LOSS": adds_to_loss,
        "DUAL": dual,
        "ACC": acc_of(wide),
    }
    arguments = {
        "p_code": code,
        "p_lengths": lengths,
        "p_products": products,
        "p_squares": squares,
        "p_value": term.value,
        "p_loss": term.loss,
        "code_stride": layout.stride,
        "n": n,
        "d": d,
        "splits": parts.splits,
        "split_depth": parts.split_depth,
        "weight": weight,
        "WEIGHT_IS_POINTER": is_pointer,
        "ADDS_TO_LOSS": adds_to_loss,
        "DUAL": dual,
        "SINGLE": parts.tiles == 1,
        "ALONE": parts.alone,
        "PRECISION": _gram_precision(code.dtype, dual, arch),
        "ACC": acc_of(wide),
        "BLOCK": tile.rows,
        "BLOCK_K": tile.depth,
    }
    kernel = pulling_away_kernels.gram_matrix
    launch.run(Launch(kernel, (parts.tiles * parts.splits,), arguments, tile.num_warps, tile.num_stages))
    if squares is not None:
        _finish_rows(layout, products, squares, lengths, residual, ending)


def _finish_rows(
    layout: CodeLayout, products: Tensor, squares: Tensor, lengths: Tensor, residual: Tensor, ending: dict[str, Any]
) -> None:
    side, code = residual.shape[0], layout.code
    is_ranged = not ending["DUAL"] and code.dtype != torch.float16
    at_a_time = min(tables.power_of_two(squares.shape[0]), _SPLITS)
    arguments = {
        "p_products": products,
        "p_squares": squares,
        "p_code": code if is_ranged else None,
        "p_lengths": lengths,
        "p_residual": residual,
        "p_row_sums": lengths.new_empty(side),
        "p_counter": counters(lengths.device, 1),
        "code_stride": layout.stride,
        **ending,
        "ROWS": _ROWS,
        "BLOCK": min(max(16, tables.power_of_two(side)), _COLUMNS, _FINISHED // (_ROWS * at_a_time)),
        "SPLITS": at_a_time,
    }
    kernel = pulling_away_kernels.finish_rows
    launch.run(Launch(kernel, (-(-side // _ROWS),), arguments, _FINISHING_WARPS))


def _row_lengths(layout: CodeLayout, lengths: Tensor) -> None:
    block = min(_ROW_LENGTHS, tables.power_of_two(layout.elements))
    rows = max(1, _ROW_LENGTHS // block)
    arguments = {
        "p_code": layout.code,
        "p_lengths": lengths,
        "code_stride": layout.stride,
        "n": layout.n,
        "d": layout.elements,
        "ACC": acc_of(lengths.dtype),
        "ROWS": rows,
        "BLOCK": block,
    }
    launch.run(Launch(pulling_away_kernels.row_lengths, (-(-layout.n // rows),), arguments, num_warps=4))


def term_gradient(term: Term, upstream: Coefficient, grad: Gradient) -> None:
    """Launch the kernel of the gradient, one launch."""
    layout, lengths = term.code, term.lengths
    code, n, d, device = layout.code, layout.n, layout.elements, lengths.device
    dual = d < n
    arch = tables.architecture(device)
    tile = tables.product_tile(n, d, dual, code.dtype, arch)
    upstream, is_pointer = coefficient(upstream, lengths.dtype, device)
    column_tiles = -(-d // tile.columns)
    arguments = {
        "p_code": code,
        "p_lengths": lengths,
        "p_residual": term.residual,
        "p_grad": grad.filled,
        "code_stride": layout.stride,
        "grad_stride": grad.stride,
        "n": n,
        "d": d,
        **({} if dual else {"column_tiles": column_tiles}),
        "upstream": upstream,
        "UPSTREAM_IS_POINTER": is_pointer,
        **({"SINGLE": column_tiles == 1} if dual else {}),
        "PRECISION": _product_precision(code.dtype, arch),
        "ACC": acc_of(lengths.dtype),
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_K": tile.depth,
    }
    kernels = pulling_away_gradient_kernels
    kernel = kernels.dual_gradient if dual else kernels.primal_gradient
    programs = -(-n // tile.rows) * (1 if dual else column_tiles)
    launch.run(Launch(kernel, (programs,), arguments, tile.num_warps, tile.num_stages))
