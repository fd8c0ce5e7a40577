"""The tile sizes of the kernels. They are static tables, so that no training step waits for a tuner.

`tables.json` has a section for each architecture ("sm_90", "gfx942"), and a section "default" for everything that those
leave out. Each entry gives its reason. `python -m bench tune` writes a GPU's section.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..gpu import architecture as architecture

TABLES = Path(__file__).with_name("tables.json")


class EnergyTile(NamedTuple):
    """A program's tile of `rows` samples x `block` elements. rows 0: samples are cut into chunks of `block`."""

    rows: int
    block: int
    num_warps: int


class ProductTile(NamedTuple):
    """The tile of a matrix product: rows and columns of the result, and depth of a step."""

    rows: int
    columns: int
    depth: int
    num_warps: int
    num_stages: int


_current: dict[str, Any] | None = None


def _tables() -> dict[str, Any]:
    global _current
    if _current is None:
        _current = json.loads(TABLES.read_text())
    return _current


def _entry(op: str, arch: str, name: str) -> Any:
    sections = _tables()[op]
    return sections.get(arch, {}).get(name) or sections["default"][name]


def power_of_two(count: int) -> int:
    """Return the smallest power of two that is at least `count`."""
    return 1 << max(count - 1, 0).bit_length()


@functools.cache
def energy_tile(elements: int, arch: str) -> EnergyTile:
    """Return the tile for samples of that many elements."""
    for entry in _entry("energy", arch, "rows"):
        if elements <= entry["elements"]:
            block = power_of_two(elements)
            return EnergyTile(max(1, entry["tile"] // block), block, entry["num_warps"])
    chunk = _entry("energy", arch, "chunk")
    return EnergyTile(0, chunk["tile"], chunk["num_warps"])


@functools.cache
def chunk_tile(elements: int, arch: str) -> EnergyTile:
    """Return the tile for samples that are cut into chunks, whatever their length."""
    chunk = _entry("energy", arch, "chunk")
    block = min(chunk["tile"], max(128, power_of_two(elements)))
    return EnergyTile(0, block, chunk["num_warps"] if block == chunk["tile"] else 4)


def has_tf32(arch: str) -> bool:
    """Return True if Triton has tf32 products there, as on NVIDIA from Ampere on.

    AMD's matrix cores multiply float32 itself.
    """
    return not arch.startswith("gfx")


def _kind(dtype: torch.dtype) -> str:
    return {torch.float64: "float64", torch.float32: "float32"}.get(dtype, "16-bit")


@functools.cache
def gram_programs(arch: str, dual: bool = False) -> int:
    """Return the number of programs into which a Gram matrix with fewer tiles is cut."""
    return int(_entry("pulling_away", arch, "dual_programs" if dual else "programs")["count"])


@functools.cache
def gram_tile(side: int, dual: bool, dtype: torch.dtype, arch: str) -> ProductTile:
    """Return the square tile of a [side, side] Gram matrix."""
    entry = _entry("pulling_away", arch, "dual_gram" if dual else "gram")[_kind(dtype)]
    block = min(entry["block"], max(16, power_of_two(side)))
    return ProductTile(block, block, entry["block_k"], _warps(block * block, entry), entry["num_stages"])


@functools.cache
def product_tile(n: int, d: int, dual: bool, dtype: torch.dtype, arch: str) -> ProductTile:
    """Return the tile of the gradient [n, d]: (G - diag r) U in primal, U E in dual."""
    entry = _entry("pulling_away", arch, "dual_product" if dual else "product")[_kind(dtype)]
    rows = min(entry["block_rows"], max(16, power_of_two(n)))
    columns = min(entry["block_columns"], max(16, power_of_two(d)))
    return ProductTile(rows, columns, entry["block_k"], _warps(rows * columns, entry), entry["num_stages"])


def _warps(elements: int, entry: dict[str, Any]) -> int:
    """Return the number of warps: no more than the tile has products of 16 x 16."""
    return int(max(1, min(entry["num_warps"], elements // 256)))


_CACHED = (energy_tile, chunk_tile, gram_programs, gram_tile, product_tile)


@contextlib.contextmanager
def replaced(tables: dict[str, Any]) -> Iterator[None]:
    """Use other tables for launches inside the block, for a tuner's trial."""
    global _current
    before = _tables()
    try:
        _current = tables
        _forget()
        yield
    finally:
        _current = before
        _forget()


def _forget() -> None:
    for cached in _CACHED:
        cached.cache_clear()
