"""The knobs of `tune`: the entries of the Triton kernels' tables, the values to try, and the cases to try them on."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..subjects import cases
from ..subjects.cases import Case

Entry = dict[str, Any]
Tables = dict[str, Any]

SWEEPS = 3
"""Most times that the groups of one knob are gone through, by default."""

_WARPS = (1, 2, 4, 8, 16)
_BOTH = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Knob:
    """One entry of the tables: `tables[op][architecture][path[0]][path[1]]...`."""

    op: str
    path: tuple[str | int, ...]
    groups: tuple[Mapping[str, Sequence[int]], ...]
    """Groups of fields that are turned together, with the values to try."""
    cases: tuple[Case, ...]
    dtypes: tuple[torch.dtype, ...]

    @property
    def name(self) -> str:
        """The op and the path."""
        return " ".join(map(str, (self.op, *self.path)))

    def current(self, tables: Tables, architecture: str) -> Entry:
        """Return the entry in use on an architecture."""
        entry = section_of(tables[self.op], architecture, self.path[0])
        for key in self.path[1:]:
            entry = entry[key]
        return entry

    def turned(self, tables: Tables, architecture: str, entry: Entry) -> Tables:
        """Return the tables with another entry in the architecture's section.

        The entry's siblings are copied into that section too.

        Args:
            tables: The tables, which stay as they are.
            architecture: The architecture.
            entry: The other entry.
        """
        tables = copy.deepcopy(tables)
        sections = tables[self.op]
        whole = copy.deepcopy(section_of(sections, architecture, self.path[0]))
        if len(self.path) == 1:
            whole = entry
        else:
            whole[self.path[1]] = entry
        sections.setdefault(architecture, {})[self.path[0]] = whole
        return tables

    def alternatives(self, entry: Entry) -> Iterator[list[Entry]]:
        """Yield the other entries that make sense, a list for each group."""
        for group in self.groups:
            turns = [dict(zip(group, values, strict=True)) for values in itertools.product(*group.values())]
            others = [{**entry, **turn} for turn in turns]
            yield [other for other in others if other != entry and _makes_sense(other)]


def section_of(sections: Mapping[str, Any], architecture: str, name: str | int) -> Any:
    """Return a section of an op's tables: the architecture's own, or the default."""
    return sections.get(architecture, {}).get(name) or sections["default"][name]


def _makes_sense(entry: Entry) -> bool:
    """Return True if an entry is worth a trial.

    A tile of the energies must hold a sample, and give a thread 4 to 64 elements. A tile of a product must give a
    thread 8 to 128 sums.
    """
    threads = 32 * entry.get("num_warps", 1)
    if "tile" in entry:
        return entry["tile"] >= entry.get("elements", 0) and 4 <= entry["tile"] // threads <= 64
    if "block" in entry:
        return 8 <= entry["block"] ** 2 // threads <= 128
    if "block_rows" in entry:
        return 8 <= entry["block_rows"] * entry["block_columns"] // threads <= 128
    return True


def _tile(path: tuple[str | int, ...], tiles: Sequence[int], *terms: Case, **group: Sequence[int]) -> Knob:
    groups = ({"tile": tiles, "num_warps": _WARPS}, *([group] if group else []))
    return Knob("energy", path, groups, terms, _BOTH)


def _matrix(name: str, blocks: Mapping[str, Sequence[int]], codes: Sequence[tuple[int, int]]) -> Iterator[Knob]:
    groups = ({**blocks, "num_warps": (2, 4, 8)}, {"block_k": (16, 32, 64, 128), "num_stages": (1, 2, 3, 4)})
    for kind, dtype in (("float32", torch.float32), ("16-bit", torch.bfloat16)):
        terms = tuple(cases.pulling_away(*code) for code in codes)
        yield Knob("pulling_away", (name, kind), groups, terms, (dtype,))


def _programs(name: str, counts: Sequence[int], codes: Sequence[tuple[int, int]]) -> Knob:
    terms = tuple(cases.pulling_away(*code) for code in codes)
    return Knob("pulling_away", (name,), ({"count": counts},), terms, _BOTH)


_WIDE = ((64, 16384), (128, 16384), (128, 1024), (512, 1024))  # at least as many elements as codes: the primal form
_MANY = ((2048, 64), (4096, 256), (2048, 512))  # the dual form
_SQUARE = {"block": (32, 64, 128)}
_OBLONG = {"block_rows": (16, 32, 64, 128), "block_columns": (32, 64, 128, 256)}

KNOBS: tuple[Knob, ...] = (
    _tile(("rows", 0), (256, 512, 1024, 2048), cases.discriminator(64, 64), cases.discriminator(256, 256)),
    _tile(("rows", 1), (2048, 4096), cases.discriminator(64, 784), cases.discriminator(256, 2048)),
    _tile(("rows", 2), (8192, 16384), cases.discriminator(64, 1, 64, 64), cases.discriminator(64, 8192)),
    # With elements 8192 the row serves no sample: all samples beyond the row before are cut into chunks.
    _tile(("rows", 3), (16384, 32768), cases.discriminator(64, 3, 64, 64), elements=(8192, 16384)),
    _tile(
        ("chunk",),
        (2048, 4096, 8192, 16384),
        cases.discriminator(64, 3, 128, 128),
        cases.discriminator(16, 3, 256, 256),
        cases.energy(64, 3, 64, 64),  # whose gradient is always cut into chunks
    ),
    *_matrix("gram", _SQUARE, _WIDE),
    _programs("programs", (16, 32, 64, 96, 132, 192, 264), ((64, 16384), (128, 16384), (64, 65536))),
    _programs("dual_programs", (36, 66, 132, 264, 396, 528), _MANY),
    *_matrix("product", _OBLONG, _WIDE),
    *_matrix("dual_gram", _SQUARE, _MANY),
    *_matrix("dual_product", _OBLONG, _MANY),
)


def dump(tables: Any, depth: int = 0) -> str:
    """Return the tables as JSON, one entry a line."""
    indent = "  " * depth
    if isinstance(tables, dict) and any(isinstance(value, (dict, list)) for value in tables.values()):
        lines = [f"{indent}  {json.dumps(key)}: {dump(value, depth + 1)}" for key, value in tables.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(tables, list):
        return "[\n" + ",\n".join(f"{indent}  {dump(value, depth + 1)}" for value in tables) + f"\n{indent}]"
    return json.dumps(tables)
