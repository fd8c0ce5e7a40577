"""Read which resources and instructions a compiled kernel uses from its machine code, and check them against budgets.

No number here is a time. The numbers are exact for one release of the compiler: two compiles without a cache give the
same bytes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import sass

if TYPE_CHECKING:
    from .triton import Artifact


@dataclass(frozen=True)
class Chip:
    """The limits of one multiprocessor (AMD: compute unit), which decide how many blocks fit on it."""

    lanes: int  # threads of a warp
    registers: int  # 32-bit registers of each of the 4 schedulers
    register_granule: int  # a warp gets registers in multiples of this number
    shared: int  # bytes
    shared_reserved: int  # bytes that every block takes in addition to its own
    shared_granule: int  # a block gets shared memory in multiples of these bytes
    warps: int
    blocks: int

    @property
    def shared_limit(self) -> int:
        """The most bytes of shared memory that one block may use."""
        return self.shared - self.shared_reserved


_SCHEDULERS = 4
_TENSOR_MEMORY = 512  # columns of a multiprocessor
_KB = 1024

CHIPS = {
    "sm_75": Chip(32, 16384, 256, 64 * _KB, 0, 256, warps=32, blocks=16),
    "sm_80": Chip(32, 16384, 256, 164 * _KB, _KB, 128, warps=64, blocks=32),
    "sm_86": Chip(32, 16384, 256, 100 * _KB, _KB, 128, warps=48, blocks=16),
    "sm_89": Chip(32, 16384, 256, 100 * _KB, _KB, 128, warps=48, blocks=24),
    "sm_90": Chip(32, 16384, 256, 228 * _KB, _KB, 128, warps=64, blocks=32),
    "sm_100": Chip(32, 16384, 256, 228 * _KB, _KB, 128, warps=64, blocks=32),
    "sm_120": Chip(32, 16384, 256, 100 * _KB, _KB, 128, warps=48, blocks=24),
    "gfx942": Chip(64, 512 * 64, 8 * 64, 64 * _KB, 0, 512, warps=32, blocks=32),
}


@dataclass(frozen=True)
class Resources:
    """The resources that one kernel uses. Counts are of instructions in the code, not of executions. Widths are bits
    per thread.
    """

    target: str
    registers: int  # of a thread; AMD: vector registers, with those for accumulation
    stack: int  # bytes of a thread
    spills: int  # accesses of the stack; AMD: spilled registers
    shared: int  # bytes of a block
    loads: dict[int, int]  # from global memory into registers: the count for each width
    stores: dict[int, int]  # the count for each width
    async_loads: dict[int, int]  # from global to shared memory without registers: the count for each width
    tensor_core: int
    float_atomics: int  # additions in Triton's IR; a later compiler stage may turn each into a loop
    integer_atomics: int  # all other atomics
    barriers: int
    instructions: int
    occupancy: float  # the share of the multiprocessor's warps that are resident at once; 0 if no block fits

    @property
    def wide_loads(self) -> int:
        return _count(self.loads, 128, None) + _count(self.async_loads, 128, None)

    @property
    def wide_stores(self) -> int:
        return _count(self.stores, 128, None)

    @property
    def scalar_loads(self) -> int:
        return _count(self.loads, 0, 32) + _count(self.async_loads, 0, 32)

    @property
    def scalar_stores(self) -> int:
        return _count(self.stores, 0, 32)


def _count(by_width: dict[int, int], least: int, most: int | None) -> int:
    return sum(count for width, count in by_width.items() if width >= least and (most is None or width <= most))


def occupancy(target: str, registers: int, shared: int, num_warps: int, tensor_memory: int = 0) -> float:
    """Return the share of a multiprocessor's warps that are resident at once.

    Registers, shared memory, tensor memory, warps and blocks limit it.

    Args:
        target: The GPU, a key of CHIPS.
        registers: The registers of a thread.
        shared: The bytes of shared memory of a block.
        num_warps: The warps of a block.
        tensor_memory: The columns of tensor memory of a block.
    """
    chip = CHIPS[target]
    registers_of_warp = _round_up(max(registers, 1) * chip.lanes, chip.register_granule)
    warps_by_registers = _SCHEDULERS * (chip.registers // registers_of_warp)
    limits = [chip.blocks, chip.warps // num_warps, warps_by_registers // num_warps]
    shared_of_block = _round_up(shared + chip.shared_reserved, chip.shared_granule)
    if shared_of_block:
        limits.append(chip.shared // shared_of_block)
    if tensor_memory:
        limits.append(_TENSOR_MEMORY // tensor_memory)
    return min(limits) * num_warps / chip.warps


def _round_up(value: int, granule: int) -> int:
    return -(-value // granule) * granule


def measure(artifact: Artifact) -> Resources:
    """Return the resources of a compiled Triton kernel."""
    return measure_all([artifact])[0]


def measure_all(artifacts: Sequence[Artifact]) -> list[Resources]:
    """Return the resources of compiled Triton kernels. All of them share one run of nvdisasm, so many cost little more
    than one.
    """
    names: dict[bytes, list[str]] = {}
    for target in {artifact.target for artifact in artifacts if artifact.ptx}:
        binaries = [artifact.binary for artifact in artifacts if artifact.target == target]
        codes = [b"".join(sass.code_of(binary).values()) for binary in binaries]
        names.update(zip(binaries, sass.instructions(target, codes), strict=True))
    return [_measure_nvidia(it, names[it.binary]) if it.ptx else _measure_amd(it) for it in artifacts]


def _atomics(artifact: Artifact) -> tuple[int, int]:
    """Return the number of additions of floats, and of all other atomics."""
    additions = len(re.findall(r"\btt\.atomic_rmw fadd\b", artifact.ttir))
    return additions, len(re.findall(r"\btt\.atomic_(?:rmw|cas)\b", artifact.ttir)) - additions


_TENSOR_SASS = re.compile(r"[A-Z]G?MMA|UTC\w*MMA")
_WIDTHS = {"256": 256, "128": 128, "64": 64, "U16": 16, "S16": 16, "U8": 8, "S8": 8}


def _sass_width(modifiers: list[str]) -> int:
    """Return the bits that an instruction like LDG.E.128 moves: 32 unless a modifier gives another width."""
    return next((_WIDTHS[modifier] for modifier in modifiers if modifier in _WIDTHS), 32)


def _measure_nvidia(artifact: Artifact, names: Iterable[str]) -> Resources:
    found = measure_sass(
        artifact.target, artifact.usage, names, artifact.shared, artifact.num_warps, artifact.tensor_memory
    )
    float_atomics, integer_atomics = _atomics(artifact)
    return replace(found, float_atomics=float_atomics, integer_atomics=integer_atomics)


def measure_sass(
    target: str, usage_line: str, names: Iterable[str], shared: int, num_warps: int, tensor_memory: int = 0
) -> Resources:
    """Return the resources of one kernel, without Triton.

    Args:
        target: The GPU, a key of CHIPS.
        usage_line: The line that cuobjdump -res-usage prints for the kernel.
        names: The kernel's instructions, like "LDG.E.128".
        shared: The bytes of shared memory of a block.
        num_warps: The warps of a block.
        tensor_memory: The columns of tensor memory of a block.

    Raises:
        ValueError: If the line has no registers.
    """
    usage = re.search(r"REG:(\d+) STACK:(\d+)", usage_line)
    if usage is None:
        raise ValueError(f"no registers in cuobjdump's answer: {usage_line!r}")
    registers = int(usage[1])
    kinds: Counter[str] = Counter()
    widths: dict[str, Counter[int]] = {kind: Counter() for kind in ("LDG", "STG", "LDGSTS")}
    atomics: Counter[bool] = Counter()  # the key is True for atomics on floats
    for name in names:
        kind, *modifiers = name.split(".")
        kinds[kind] += 1
        if kind in widths:
            widths[kind][_sass_width(modifiers)] += 1
        if kind in ("ATOM", "ATOMG", "RED", "REDG"):
            atomics[any(re.fullmatch(r"B?F\d+\w*", modifier) for modifier in modifiers)] += 1
    return Resources(
        target=target,
        registers=registers,
        stack=int(usage[2]),
        spills=kinds["LDL"] + kinds["STL"],
        shared=shared,
        loads=dict(widths["LDG"]),
        stores=dict(widths["STG"]),
        async_loads=dict(widths["LDGSTS"]),
        tensor_core=sum(count for kind, count in kinds.items() if _TENSOR_SASS.fullmatch(kind)),
        float_atomics=atomics[True],
        integer_atomics=atomics[False],
        barriers=kinds["BAR"],
        instructions=kinds.total() - kinds["NOP"],
        occupancy=occupancy(target, registers, shared, num_warps, tensor_memory),
    )


_GCN = re.compile(r"^\t((?:s|v|ds|buffer|global|flat|scratch)_\w+)(.*)$", re.MULTILINE)
_GCN_MEMORY = re.compile(r"(?:buffer|global|flat)_(load|store)_(?:lds_)?([a-z]+?)(x[234])?(?:_d16)?(?:_hi)?")
_GCN_WIDTHS = {"dword": 32, "ushort": 16, "sshort": 16, "short": 16, "ubyte": 8, "sbyte": 8, "byte": 8}


def _metadata(artifact: Artifact, name: str) -> int:
    found = re.search(rf"^\s+(?:- )?\.{name}:\s+(\d+)$", artifact.amdgcn, re.MULTILINE)
    if found is None:
        raise ValueError(f"no .{name} in the code for {artifact.target}")
    return int(found[1])


def _measure_amd(artifact: Artifact) -> Resources:
    names: Counter[str] = Counter()
    widths: dict[str, Counter[int]] = {kind: Counter() for kind in ("load", "store", "lds")}
    for name, operands in _GCN.findall(artifact.amdgcn):
        names[name] += 1
        access = _GCN_MEMORY.fullmatch(name)
        if access:
            kind = "lds" if "_lds_" in name or re.search(r"\blds\b", operands) else access[1]
            widths[kind][_GCN_WIDTHS[access[2]] * int((access[3] or "x1")[1:])] += 1
    registers = _metadata(artifact, "vgpr_count")
    float_atomics, integer_atomics = _atomics(artifact)
    return Resources(
        target=artifact.target,
        registers=registers,
        stack=_metadata(artifact, "private_segment_fixed_size"),
        spills=_metadata(artifact, "vgpr_spill_count") + _metadata(artifact, "sgpr_spill_count"),
        shared=artifact.shared,
        loads=dict(widths["load"]),
        stores=dict(widths["store"]),
        async_loads=dict(widths["lds"]),
        tensor_core=sum(count for name, count in names.items() if re.match(r"v_s?mfma", name)),
        float_atomics=float_atomics,
        integer_atomics=integer_atomics,
        barriers=names["s_barrier"],
        instructions=names.total() - names["s_nop"],
        occupancy=occupancy(artifact.target, registers, artifact.shared, artifact.num_warps),
    )


Budget = dict[str, float]

_AT_MOST = (
    *("registers", "stack", "spills", "shared", "scalar_loads", "scalar_stores"),
    *("float_atomics", "instructions"),
)
_AT_LEAST = ("wide_loads", "wide_stores", "tensor_core", "occupancy")


def violations(resources: Resources, budget: Mapping[str, float]) -> list[str]:
    """Return one line for each number that breaks the budget, and for shared memory beyond the chip's limit.

    Raise ValueError if the budget has an unknown name.
    """
    unknown = set(budget) - {*_AT_MOST, *_AT_LEAST}
    if unknown:
        raise ValueError(f"no such budget: {', '.join(sorted(unknown))}")
    found = []
    limit = CHIPS[resources.target].shared_limit
    if resources.shared > limit:
        found.append(f"shared: got {resources.shared}, {resources.target} has {limit} for a block")
    for key in (*_AT_MOST, *_AT_LEAST):
        if key not in budget:
            continue
        got, expected = getattr(resources, key), budget[key]
        if got > expected and key in _AT_MOST:
            found.append(f"{key}: got {got:g}, expected at most {expected:g}")
        if got < expected and key in _AT_LEAST:
            found.append(f"{key}: got {got:g}, expected at least {expected:g}")
    return found


def budget_of(resources: Resources) -> Budget:
    """Return a budget that these resources just meet. Instructions get a tenth more, because every edit changes their
    number.
    """
    budget: Budget = {key: getattr(resources, key) for key in (*_AT_MOST, *_AT_LEAST)}
    budget["instructions"] = resources.instructions * 11 // 10
    return budget


def read_budgets(path: Path) -> dict[str, Budget]:
    """Return the budgets of a file by their names. `write_budgets` wrote the file."""
    budgets: dict[str, Budget] = json.loads(path.read_text())
    return budgets


def write_budgets(path: Path, budgets: Mapping[str, Mapping[str, float]]) -> None:
    """Write one line for each budget, sorted, so that a diff shows only the budgets that changed."""
    lines = [f"  {json.dumps(name)}: {json.dumps(budgets[name], sort_keys=True)}" for name in sorted(budgets)]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
