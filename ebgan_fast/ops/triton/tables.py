"""Which tile sizes the kernels use: static tables, so that no training step ever waits for a tuner.

`tables.json` holds one section per architecture ("sm_90", "gfx942") and a "default" for those without; each entry says
why it is what it is. `python -m bench tune` measures and writes a section on a machine that has that GPU.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

TABLES = Path(__file__).with_name("tables.json")


class EnergyTile(NamedTuple):
    """ROWS samples x `block` elements by one program; rows 0 stands for samples cut into chunks of `block`."""

    rows: int
    block: int
    num_warps: int


class ProductTile(NamedTuple):
    """The tile of a matrix product: rows and columns of the result, depth of a step."""

    rows: int
    columns: int
    depth: int
    num_warps: int
    num_stages: int


@functools.cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(TABLES.read_text())
    return tables


@functools.cache
def architecture(device: torch.device) -> str:
    """"sm_90", "gfx942" or the like; "default" where there is no GPU."""
    if device.type != "cuda":
        return "default"
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).partition(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def _section(op: str, device: torch.device) -> Any:
    sections = _tables()[op]
    return sections.get(architecture(device), sections["default"])


def power_of_two(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << max(count - 1, 0).bit_length()


@functools.cache
def energy_tile(elements: int, device: torch.device) -> EnergyTile:
    """The tile for samples of that many elements."""
    section = _section("energy", device)
    for entry in section["rows"]:
        if elements <= entry["elements"]:
            block = power_of_two(elements)
            return EnergyTile(max(1, entry["tile"] // block), block, entry["num_warps"])
    return EnergyTile(0, section["chunk"]["tile"], section["chunk"]["num_warps"])


@functools.cache
def chunk_tile(elements: int, device: torch.device) -> EnergyTile:
    """The tile for samples cut into chunks, whatever their length."""
    chunk = _section("energy", device)["chunk"]
    block = min(chunk["tile"], max(128, power_of_two(elements)))
    return EnergyTile(0, block, chunk["num_warps"] if block == chunk["tile"] else 4)
