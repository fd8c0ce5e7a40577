"""The pulling-away term on a GPU: which form, which kernels, which tiles, which precision.

Functions take codes of float64, float32, bfloat16 or float16 in any layout (`layout.py`), know nothing of autograd,
check nothing (`functional.py` does), write no input and never wait for the device. "acc" is float32, or float64 for
float64 codes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout import Code
from ..precision import allows_tf32
from ..reference import accumulation_dtype
from ..workspace import counters
from . import launch, pulling_away_gradient_kernels, pulling_away_kernels, tables
from .energy import acc_of, coefficient, mean_energy
from .launch import Launch

_ROW_NORMS = 1024  # elements that a program of `row_norms` has at a time
_FEWEST_STEPS = 4  # of a split, so that what it leaves is not much more than what it reads
_ROWS = 2  # of gram that one program finishes: the fewer, the more programs read all the norms
_FINISHED = 4096  # sums that it loads at a time, 8 a thread; the compiler unrolls loops by 4. Twice as many spilled
_FINISHING_WARPS = 16
_SPLITS, _COLUMNS = 16, 1024  # at a time, at most


class _Loss(NamedTuple):
    """A loss that weight times the term is added to."""

    value: Tensor
    weight: Tensor | float


def float32_precision(arch: str) -> str:
    """How float32 products run: as exact as float32, in three tensor-core products, unless the user allows tf32."""
    if not tables.has_tf32(arch):
        return "ieee"
    return "tf32" if allows_tf32() else "tf32x3"


def _gram_precision(dtype: torch.dtype, dual: bool, arch: str) -> str:
    """16-bit codes are exact in tensor cores (primal); their units are not 16-bit numbers, and E is what is left after
    the trace is taken out (dual), so those run as float32."""
    if dtype == torch.float64:
        return "ieee"
    if dtype == torch.float32:
        return float32_precision(arch)
    return float32_precision(arch) if dual else "tf32"


def _product_precision(dtype: torch.dtype, arch: str) -> str:
    """A 16-bit gradient stores 10 bits at most: what tf32 stores of gram and units."""
    if dtype in (torch.float16, torch.bfloat16) and tables.has_tf32(arch):
        return "tf32"
    return "ieee" if dtype == torch.float64 else float32_precision(arch)


class Cut(NamedTuple):
    """A Gram matrix in programs: tiles on and below its diagonal, each cut along its depth."""

    tiles: int
    splits: int
    split_depth: int
    """A multiple of the tile's step."""

    @property
    def alone(self) -> bool:
        """True if all of the matrix is one program's."""
        return self.tiles == self.splits == 1


def cut(side: int, depth: int, dual: bool, tile: tables.ProductTile, arch: str) -> Cut:
    """Cut the [side, side] Gram matrix of sums over `depth` into about as many programs as the tables say."""
    per_side = -(-side // tile.rows)
    tiles = per_side * (per_side + 1) // 2
    steps = -(-depth // tile.depth)
    wanted = max(1, min(tables.gram_programs(arch, dual) // tiles, steps // _FEWEST_STEPS))
    split_depth = -(-steps // wanted) * tile.depth
    return Cut(tiles, -(-depth // split_depth), split_depth)


def pulling_away_term(code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1/(N(N-1)) sum over i != j of cos^2(s_i, s_j): [N, ...] -> (value, norms, gram), all acc.

    norms is [N], the lengths of the codes; gram is [m, m] with m = min(N, d), d the elements of a code. Both are for
    `pulling_away_term_backward` alone (pulling_away_kernels.py says what gram holds).
    """
    return _forward(Code(code), None)


def _forward(view: Code, loss: _Loss | None) -> tuple[Tensor, Tensor, Tensor]:
    """The Gram matrix in one launch and its end in another; codes of d < N have their norms before. A code of so few
    elements that one program does for all of them ends in the first: `Cut.alone`."""
    code, n, d = view.code, view.n, view.elements
    wide = accumulation_dtype(code.dtype)
    side = min(n, d)
    norms, gram = code.new_empty(n, dtype=wide), code.new_empty((side, side), dtype=wide)
    if n < 2:
        return code.new_zeros((), dtype=wide), norms.zero_(), gram.zero_()
    value = code.new_empty((), dtype=wide)
    dual = d < n
    if dual:
        _row_norms(view, norms)
    arch = tables.architecture(code.device)
    tile = tables.gram_tile(side, dual, code.dtype, arch)
    parts = cut(side, n if dual else d, dual, tile, arch)
    # One split's products are the matrix already, and become gram where they lie.
    products = gram if parts.splits == 1 else code.new_empty((parts.splits, side, side), dtype=wide)
    squares = None if parts.alone else code.new_empty((parts.splits, 1 if dual else n), dtype=wide)
    weight, is_pointer = coefficient(loss.weight, wide, code.device) if loss else (0.0, False)
    ending = {
        "p_value": value,
        "p_loss": loss.value if loss else None,
        "n": n,
        "d": d,
        "splits": parts.splits,
        "weight": weight,
        "WEIGHT_IS_POINTER": is_pointer,
        "ADDS_TO_LOSS": loss is not None,
        "DUAL": dual,
        "ACC": acc_of(wide),
    }
    arguments = {
        "p_code": code,
        "p_norms": norms,
        "p_products": products,
        "p_squares": squares,
        "p_value": value,
        "p_loss": ending["p_loss"],
        "code_stride": view.stride,
        "n": n,
        "d": d,
        "splits": parts.splits,
        "split_depth": parts.split_depth,
        "weight": weight,
        "WEIGHT_IS_POINTER": is_pointer,
        "ADDS_TO_LOSS": loss is not None,
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
        _finish_rows(products, squares, norms, gram, ending)
    return value, norms, gram


def _finish_rows(products: Tensor, squares: Tensor, norms: Tensor, gram: Tensor, ending: dict[str, Any]) -> None:
    side = gram.shape[0]
    at_a_time = min(tables.power_of_two(squares.shape[0]), _SPLITS)
    arguments = {
        "p_products": products,
        "p_squares": squares,
        "p_norms": norms,
        "p_gram": gram,
        "p_row_sums": torch.empty_like(norms[:side]),
        "p_counter": counters(norms.device, 1),
        **ending,
        "ROWS": _ROWS,
        "BLOCK": min(max(16, tables.power_of_two(side)), _COLUMNS, _FINISHED // (_ROWS * at_a_time)),
        "SPLITS": at_a_time,
    }
    kernel = pulling_away_kernels.finish_rows
    launch.run(Launch(kernel, (-(-side // _ROWS),), arguments, _FINISHING_WARPS))


def _row_norms(view: Code, norms: Tensor) -> None:
    block = min(_ROW_NORMS, tables.power_of_two(view.elements))
    rows = max(1, _ROW_NORMS // block)
    arguments = {
        "p_code": view.code,
        "p_norms": norms,
        "code_stride": view.stride,
        "n": view.n,
        "d": view.elements,
        "ACC": acc_of(norms.dtype),
        "ROWS": rows,
        "BLOCK": block,
    }
    launch.run(Launch(pulling_away_kernels.row_norms, (-(-view.n // rows),), arguments, num_warps=4))


def pulling_away_term_backward(grad: Tensor, code: Tensor, norms: Tensor, gram: Tensor) -> Tensor:
    """Gradient of `pulling_away_term` to the code for the 0-d upstream gradient grad."""
    return _backward(grad, code, Code(code), norms.contiguous(), gram.contiguous())


def _backward(upstream: Tensor | float, code: Tensor, view: Code, norms: Tensor, gram: Tensor) -> Tensor:
    """The gradient for an upstream gradient, in one launch."""
    output = view.gradient(code)
    n, d, device = view.n, view.elements, code.device
    if n < 2:
        output.filled.zero_()
        return output.finish()
    dual = d < n
    arch = tables.architecture(device)
    tile = tables.product_tile(n, d, dual, code.dtype, arch)
    upstream, is_pointer = coefficient(upstream, norms.dtype, device)
    column_tiles = -(-d // tile.columns)
    arguments = {
        "p_code": view.code,
        "p_norms": norms,
        "p_gram": gram,
        "p_grad": output.filled,
        "code_stride": view.stride,
        "grad_stride": output.stride,
        "n": n,
        "d": d,
        **({} if dual else {"column_tiles": column_tiles}),
        "upstream": upstream,
        "UPSTREAM_IS_POINTER": is_pointer,
        **({"SINGLE": column_tiles == 1} if dual else {}),
        "PRECISION": _product_precision(code.dtype, arch),
        "ACC": acc_of(norms.dtype),
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_K": tile.depth,
    }
    kernels = pulling_away_gradient_kernels
    kernel = kernels.dual_gradient if dual else kernels.primal_gradient
    programs = -(-n // tile.rows) * (1 if dual else column_tiles)
    launch.run(Launch(kernel, (programs,), arguments, tile.num_warps, tile.num_stages))
    return output.finish()


def generator_loss(
    recon_fake: Tensor,
    fake: Tensor,
    code: Tensor | None,
    pt_weight: Tensor | float,
    norm: str,
    need: list[bool],
) -> tuple[Tensor | None, ...]:
    """mean(E_fake) + pt_weight * PT(code) and every gradient (for upstream 1); without a code, PT is 0.

    One launch for the energies; the pulling-away term's adds to their loss. need says which of recon_fake, fake and
    code get a gradient; the others' are None.
    Returns (loss, energy [N], pulling_away, grad_recon, grad_fake, grad_code).
    """
    loss, energy, grad_recon, grad_fake = mean_energy(recon_fake, fake, norm, need[0], need[1])
    if code is None:
        return loss, energy, loss.new_zeros(()), grad_recon, grad_fake, None
    view = Code(code)
    pulling_away, norms, gram = _forward(view, _Loss(loss, pt_weight))
    grad_code = _backward(pt_weight, code, view, norms, gram) if need[2] else None
    return loss, energy, pulling_away, grad_recon, grad_fake, grad_code
