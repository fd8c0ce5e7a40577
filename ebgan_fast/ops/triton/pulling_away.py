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

_ROWS = 8  # of the primal matrix that one program finishes
_ROW_BLOCK = 256
_STRIP = 32


class _Loss(NamedTuple):
    """A loss that weight times the term is added to."""

    value: Tensor
    weight: Tensor | float


def _float32_precision(arch: str) -> str:
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
        return _float32_precision(arch)
    return _float32_precision(arch) if dual else "tf32"


def _product_precision(dtype: torch.dtype, arch: str) -> str:
    """A 16-bit gradient keeps 11 bits at most: what tf32 keeps of gram and units."""
    if dtype in (torch.float16, torch.bfloat16) and tables.has_tf32(arch):
        return "tf32"
    return "ieee" if dtype == torch.float64 else _float32_precision(arch)


def _splits(depth: int, tiles: int, tile: tables.ProductTile, arch: str) -> tuple[int, int]:
    """Into how many parts of what depth each Gram tile is cut."""
    steps = -(-depth // tile.depth)
    # At least 4 steps each, so that partial sums stay fewer than what they add up.
    wanted = max(1, min(tables.gram_programs(arch) // tiles, steps // 4))
    split_depth = -(-steps // wanted) * tile.depth
    return -(-depth // split_depth), split_depth


def pulling_away_term(code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1/(N(N-1)) sum over i != j of cos^2(s_i, s_j): [N, ...] -> (value, norms, gram), all acc.

    norms is [N], the lengths of the codes; gram is [m, m] with m = min(N, d), d the elements of a code. Both are for
    `pulling_away_term_backward` alone (pulling_away_kernels.py says what gram holds).
    """
    return _forward(Code(code), None)


def _forward(view: Code, loss: _Loss | None) -> tuple[Tensor, Tensor, Tensor]:
    """In one launch when N <= 128 and N <= d, else in two."""
    code, n, d = view.code, view.n, view.elements
    device, wide = code.device, accumulation_dtype(code.dtype)
    side = min(n, d)
    norms, gram = code.new_empty(n, dtype=wide), code.new_empty((side, side), dtype=wide)
    if n < 2:
        return code.new_zeros((), dtype=wide), norms.zero_(), gram.zero_()
    value = code.new_empty((), dtype=wide)
    dual = d < n
    if dual:
        _row_norms(view, norms)
    arch = tables.architecture(device)
    tile = tables.gram_tile(side, dual, code.dtype, arch)
    per_side = -(-side // tile.rows)
    tiles = per_side * (per_side + 1) // 2
    splits, split_depth = _splits(n if dual else d, tiles, tile, arch)
    ending = _ending(value, loss)
    arguments: dict[str, Any] = {
        "p_code": code,
        "p_norms": norms,
        "p_gram": gram,
        "p_partials": code.new_empty(tiles * splits * tile.rows**2, dtype=wide),
        "p_tile_sums": code.new_empty(tiles, dtype=wide) if dual else None,
        "p_counters": counters(device, tiles * -(-splits // 8) + tiles + 1),
        "p_value": value,
        "p_loss": ending["p_loss"],
        "code_stride": view.stride,
        "n": n,
        "d": d,
        "splits": splits,
        "split_depth": split_depth,
        "tiles": tiles,
        "weight": ending["weight"],
        "WEIGHT_IS_POINTER": ending["WEIGHT_IS_POINTER"],
        "ADDS_TO_LOSS": ending["ADDS_TO_LOSS"],
        "DUAL": dual,
        "SINGLE": tiles == 1,
        "PRECISION": _gram_precision(code.dtype, dual, arch),
        "ACC": acc_of(wide),
        "BLOCK": tile.rows,
        "BLOCK_K": tile.depth,
        "STRIP": min(_STRIP, tile.rows),
    }
    kernel = pulling_away_kernels.gram_matrix
    launch.run(Launch(kernel, (tiles * splits,), arguments, tile.num_warps, tile.num_stages))
    if tiles > 1 and not dual:
        _finish_rows(norms, gram, n, ending)
    return value, norms, gram


def _ending(value: Tensor, loss: _Loss | None) -> dict[str, Any]:
    """The arguments by which a kernel stores the value and adds it to a loss."""
    weight, is_pointer = coefficient(loss.weight, value.dtype, value.device) if loss else (0.0, False)
    return {
        "p_value": value,
        "p_loss": loss.value if loss else None,
        "weight": weight,
        "WEIGHT_IS_POINTER": is_pointer,
        "ADDS_TO_LOSS": loss is not None,
    }


def _finish_rows(norms: Tensor, gram: Tensor, n: int, ending: dict[str, Any]) -> None:
    arguments = {
        "p_norms": norms,
        "p_gram": gram,
        "p_row_sums": torch.empty_like(norms),
        "p_counter": counters(norms.device, 1),
        "p_value": ending["p_value"],
        "p_loss": ending["p_loss"],
        "n": n,
        "weight": ending["weight"],
        "WEIGHT_IS_POINTER": ending["WEIGHT_IS_POINTER"],
        "ADDS_TO_LOSS": ending["ADDS_TO_LOSS"],
        "ACC": acc_of(norms.dtype),
        "ROWS": _ROWS,
        "BLOCK": _ROW_BLOCK,
    }
    launch.run(Launch(pulling_away_kernels.finish_rows, (-(-n // _ROWS),), arguments, num_warps=4))


def _row_norms(view: Code, norms: Tensor) -> None:
    block = min(1024, tables.power_of_two(view.elements))
    rows = max(1, 1024 // block)
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
    """In one launch."""
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
