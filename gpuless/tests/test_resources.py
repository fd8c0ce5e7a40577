"""Tests that a planted fault breaks each budget and is reported, and that counts agree with those found by hand."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed (Linux only)")

import triton

from gpuless import sass
from gpuless.resources import (
    CHIPS,
    Resources,
    budget_of,
    measure,
    measure_sass,
    occupancy,
    read_budgets,
    violations,
    write_budgets,
)
from gpuless.triton import Artifact
from planted_compile import GOOD, PLANTED

USAGE = "  REG:20 STACK:0 SHARED:0 LOCAL:0"  # as cuobjdump prints it
ARCHITECTURES = ("sm_80", "sm_90", "gfx942")

# A budget's key, the kernel that sets the budget, and the kernel that breaks it.
FAULTS = [
    ("registers", "center", "one warp"),
    ("stack", "center", "too long a row"),
    ("spills", "center", "too long a row"),
    ("shared", "product", "three stages"),
    ("wide_loads", "center", "x not aligned"),
    ("scalar_loads", "center", "x not aligned"),
    ("wide_stores", "center", "out not aligned"),
    ("scalar_stores", "center", "out not aligned"),
    ("scalar_loads", "center", "odd stride"),
    ("tensor_core", "product", "no dot"),
    ("float_atomics", "total", "float atomics"),
    ("occupancy", "center", "one warp"),
    ("instructions", "center", "unrolled"),
]


@cache
def measured(name: str, target: str) -> Resources:
    launch = {**GOOD, **PLANTED}[name]()
    return measure(launch.compile(target))


@pytest.mark.parametrize("target", ARCHITECTURES)
@pytest.mark.parametrize("name", GOOD)
def test_a_kernel_meets_its_own_budget(name: str, target: str) -> None:
    resources = measured(name, target)
    assert violations(resources, budget_of(resources)) == []
    assert (resources.spills, resources.stack, resources.float_atomics) == (0, 0, 0)
    assert (resources.scalar_loads, resources.scalar_stores) == (0, 1 if name == "total" else 0)


@pytest.mark.parametrize("target", ARCHITECTURES)
@pytest.mark.parametrize(("key", "good", "planted"), FAULTS)
def test_a_planted_fault_breaks_its_budget(key: str, good: str, planted: str, target: str) -> None:
    budget = budget_of(measured(good, target))
    resources = measured(planted, target)
    (line,) = violations(resources, {key: budget[key]})
    bound = "at least" if budget[key] > getattr(resources, key) else "at most"
    assert line == f"{key}: got {getattr(resources, key):g}, expected {bound} {budget[key]:g}"
    assert line in violations(resources, budget)


def test_every_budget_has_a_fault() -> None:
    assert {key for key, _, _ in FAULTS} == set(budget_of(measured("center", "sm_80")))


@pytest.mark.parametrize("target", ARCHITECTURES)
def test_accesses_of_a_row_are_as_wide_as_they_can_be(target: str) -> None:
    accesses = 1024 // (4 * CHIPS[target].lanes * 4)  # 4 warps, 4 floats for each access
    resources = measured("center", target)
    assert (resources.loads, resources.stores) == ({128: accesses}, {128: accesses})


def test_products_per_warp() -> None:
    """4 warps multiply 64 x 64 x 64. HMMA is 16 x 8 x 16 by one warp, HGMMA 64 x 64 x 16 by all four."""
    assert measured("product", "sm_80").tensor_core == (64 // 16) * (64 // 8) * (64 // 16) // 4
    assert measured("product", "sm_90").tensor_core == 64 // 16


def test_async_loads_stand_apart() -> None:
    """A step copies 16 KB, 16 bytes a thread: 8 copies before the loop for the first step, and 8 in the loop for the
    next.
    """
    resources = measured("product", "sm_80")
    assert (resources.loads, resources.async_loads) == ({}, {128: 16})


def test_shared_memory_of_the_chip_is_a_limit_without_a_budget() -> None:
    resources = measured("too many stages", "sm_80")
    assert violations(resources, {}) == [f"shared: got {resources.shared}, sm_80 has {163 * 1024} for a block"]
    assert resources.occupancy == 0


@pytest.mark.parametrize(
    ("target", "limit"), [("sm_80", 163), ("sm_90", 227), ("sm_100", 227), ("sm_120", 99), ("gfx942", 64)]
)
def test_limit_of_shared_memory(target: str, limit: int) -> None:
    full = dataclasses.replace(measured("center", "sm_80"), target=target, shared=limit * 1024)
    assert violations(full, {}) == []
    assert len(violations(dataclasses.replace(full, shared=limit * 1024 + 1), {})) == 1


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(ValueError, match="no such budget: register"):
        violations(measured("center", "sm_80"), {"register": 10})


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every artifact the single instruction EXIT, because those of `_nvidia` have no binary to read."""
    monkeypatch.setattr(sass, "code_of", lambda binary: {})
    monkeypatch.setattr(sass, "instructions", lambda target, codes: [["EXIT"] for _ in codes])


def _nvidia(ttir: str = "", target: str = "sm_80", tensor_memory: int = 0) -> Artifact:
    artifact = Artifact("kernel", target, 4, 0, tensor_memory, (), ttir, ".version 8.8", "", b"")
    artifact.__dict__["usage"] = USAGE
    return artifact


@pytest.mark.usefixtures("no_code")
def test_atomics_are_told_apart() -> None:
    ttir = """
    %3 = tt.atomic_rmw fadd, acq_rel, gpu, %2, %5, %6 : (!tt.ptr<bf16>, bf16, i1) -> bf16
    %4 = tt.atomic_rmw add, acq_rel, gpu, %q, %c1_i32, %true : (!tt.ptr<i32>, i32, i1) -> i32
    %5 = tt.atomic_cas acq_rel, gpu, %q, %c0_i32, %c1_i32 : (!tt.ptr<i32>, i32, i32) -> i32
    """
    resources = measure(_nvidia(ttir))
    assert (resources.float_atomics, resources.integer_atomics) == (1, 2)


def test_instructions_that_look_alike() -> None:
    instructions = [
        *("LDG.E.128 R4, [R2.64]", "@!P0 LDG.E.64.CONSTANT R4, [R2.64]", "LDG.E R4, [R2.64]"),
        *("@P3 LDG.E.U16.CONSTANT R4, [R2.64]", "LDG.E.ENL2.256.STRONG.GPU R4, R8, [R2.64]"),
        *("LDGSTS.E.BYPASS.LTC128B.128 [R2], [R4.64]", "LDGSTS.E.LTC128B [R2], [R4.64]"),
        *("@!UPT STG.E.U8 [R2.64], R4", "STG.E.128 [R2.64], R4"),
        *("LDL.128 R4, [R1]", "@P0 STL [R1+0x8], R4", "LDS.128 R4, [R1]", "STS.64 [R1], R4"),
        *("HMMA.16816.F32 R4, R4, R8, R12", "HGMMA.64x64x16.F32 R4, gdesc[UR4], R24", "UTCHMMA gdesc[UR4], tmem[UR6]"),
        *("LDSM.16.M88.4 R4, [R2]", "BAR.SYNC.DEFER_BLOCKING 0x0", "@P0 BAR.RED.POPC.DEFER_BLOCKING 0x0, P1"),
        *("WARPSYNC R4", "NOP", "NOP"),
    ]
    text = "".join(f"        /*{16 * i:04x}*/                   {line} ;\n" for i, line in enumerate(instructions))
    resources = measure_sass("sm_80", USAGE, sass.names_in(text), shared=0, num_warps=4)
    assert resources.loads == {128: 1, 64: 1, 32: 1, 16: 1, 256: 1}
    assert resources.async_loads == {128: 1, 32: 1}
    assert resources.stores == {8: 1, 128: 1}
    assert (resources.wide_loads, resources.scalar_loads) == (3, 3)
    assert (resources.wide_stores, resources.scalar_stores) == (1, 1)
    assert (resources.spills, resources.tensor_core, resources.barriers) == (2, 3, 2)
    assert resources.instructions == len(instructions) - 2


def test_instructions_of_amd_that_look_alike() -> None:
    lines = [
        *("global_load_dwordx4 v[4:7], v[2:3], off", "buffer_load_dwordx2 v[4:5], v2, s[4:7], 0 offen"),
        *(
            "global_load_ushort v4, v[2:3], off",
            "global_load_short_d16_hi v4, v[2:3], off",
            "flat_load_ubyte v4, v[2:3]",
        ),
        *("buffer_load_dword v2, s[4:7], 0 offen lds", "global_load_lds_dwordx4 v[2:3], off"),
        *("global_store_short_d16_hi v[2:3], v4, off", "buffer_store_dwordx4 v[4:7], v2, s[4:7], 0 offen"),
        *("s_load_dwordx4 s[4:7], s[0:1], 0x0", "ds_read_b128 v[4:7], v2", "scratch_load_dword v4, off, s0"),
        *("v_mfma_f32_32x32x8_f16 v[0:15], v[16:17], v[18:19], v[0:15]", "s_barrier", "s_nop 0"),
    ]
    text = "".join(f"\t{line}\n" for line in lines)
    fields = {"vgpr_count": 64, "private_segment_fixed_size": 12, "vgpr_spill_count": 3, "sgpr_spill_count": 2}
    text += "".join(f"    .{name}:     {value}\n" for name, value in fields.items())
    resources = measure(Artifact("kernel", "gfx942", 4, 0, 0, (), "", "", text, b""))
    assert resources.loads == {128: 1, 64: 1, 16: 2, 8: 1}
    assert resources.async_loads == {32: 1, 128: 1}
    assert resources.stores == {16: 1, 128: 1}
    assert (resources.tensor_core, resources.barriers, resources.instructions) == (1, 1, len(lines) - 1)
    assert (resources.registers, resources.stack, resources.spills) == (64, 12, 5)


# The warps and the KB of shared memory of a multiprocessor, from NVIDIA's table of compute capabilities.
NVIDIAS = {"sm_80": (64, 164), "sm_90": (64, 228), "sm_100": (64, 228), "sm_120": (48, 100)}

OCCUPANCY = r"""
#include "cuda_occupancy.h"
#include <cstdio>
int main() {
    int major, warps, limit, total, threads, registers, shared;
    while (std::scanf("%d %d %d %d", &major, &warps, &limit, &total) == 4) {
        if (std::scanf("%d %d %d", &threads, &registers, &shared) != 3) return 1;
        cudaOccDeviceProp chip{};
        chip.computeMajor = major; chip.maxThreadsPerBlock = 1024; chip.maxThreadsPerMultiprocessor = 32 * warps;
        chip.regsPerBlock = chip.regsPerMultiprocessor = 65536; chip.warpSize = 32; chip.numSms = 100;
        chip.sharedMemPerBlock = 48 << 10; chip.sharedMemPerBlockOptin = limit; chip.reservedSharedMemPerBlock = 1024;
        chip.sharedMemPerMultiprocessor = total;
        cudaOccFuncAttributes kernel{};
        kernel.maxThreadsPerBlock = 1024; kernel.numRegs = registers;
        kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN; kernel.maxDynamicSharedSizeBytes = limit;
        cudaOccDeviceState state{};
        state.carveoutConfig = 100;
        cudaOccResult result{};
        if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &chip, &kernel, &state, threads, shared)) return 1;
        std::printf("%d\n", result.activeBlocksPerMultiprocessor);
    }
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ compiles NVIDIA's occupancy calculator")
def test_occupancy_is_that_of_nvidias_calculator(tmp_path: Path) -> None:
    include = Path(triton.__file__).parent / "backends/nvidia/include"
    if not (include / "cuda_occupancy.h").exists():
        pytest.skip("this Triton has no cuda_occupancy.h")
    (tmp_path / "occupancy.cpp").write_text(OCCUPANCY)
    binary = tmp_path / "occupancy"
    subprocess.run(["g++", f"-I{include}", str(tmp_path / "occupancy.cpp"), "-o", str(binary)], check=True)
    cases = [
        (target, num_warps, registers, shared)
        for target in NVIDIAS
        for num_warps in (1, 2, 4, 8, 16)
        for registers in (16, 32, 33, 40, 41, 64, 72, 96, 104, 128)
        for shared in (0, 1, 127, 1024, 7167, 7168, 7169, 32768, 49152, 98304)
    ]
    lines = []
    for target, num_warps, registers, shared in cases:
        (warps, total), major = NVIDIAS[target], int(target[3:]) // 10
        lines.append(f"{major} {warps} {(total - 1) << 10} {total << 10} {32 * num_warps} {registers} {shared}")
    answer = subprocess.run([str(binary)], input="\n".join(lines), check=True, capture_output=True, text=True).stdout
    for case, blocks in zip(cases, answer.split(), strict=True):
        target, num_warps, registers, shared = case
        ours = occupancy(target, registers, shared, num_warps)
        assert ours == int(blocks) * num_warps / NVIDIAS[target][0], case


@pytest.mark.parametrize("name", ["center", "one warp", "too long a row", "product", "no dot", "unrolled"])
def test_occupancy_by_registers_is_that_of_amds_compiler(name: str) -> None:
    artifact = {**GOOD, **PLANTED}[name]().compile("gfx942")
    (waves,) = re.findall(r"; Occupancy: (\d+)", artifact.amdgcn)
    registers = measured(name, "gfx942").registers
    assert occupancy("gfx942", registers, 0, artifact.num_warps) == int(waves) / 8


@pytest.mark.usefixtures("no_code")
def test_tensor_memory_is_a_limit_of_blocks() -> None:
    """A multiprocessor has 512 columns of tensor memory."""
    artifact = _nvidia(target="sm_100", tensor_memory=256)
    assert measure(artifact).occupancy == 2 * 4 / 64
    assert GOOD["product"]().compile("sm_100").tensor_memory >= 32  # the smallest allocation


def test_a_budget_has_room_for_a_tenth_more_instructions_only() -> None:
    resources = dataclasses.replace(measured("center", "sm_80"), instructions=100)
    budget = budget_of(resources)
    assert violations(dataclasses.replace(resources, instructions=110), budget) == []
    assert len(violations(dataclasses.replace(resources, instructions=111), budget)) == 1
    assert len(violations(dataclasses.replace(resources, registers=resources.registers + 1), budget)) == 1


def test_budgets_come_back_as_they_were_written(tmp_path: Path) -> None:
    budgets = {f"{name} {target}": budget_of(measured(name, target)) for name in GOOD for target in ("sm_80", "gfx942")}
    path, other = tmp_path / "budgets.json", tmp_path / "other.json"
    write_budgets(path, budgets)
    assert read_budgets(path) == budgets
    write_budgets(other, {name: dict(reversed(budgets[name].items())) for name in reversed(budgets)})
    assert path.read_bytes() == other.read_bytes()
    assert [line.split('"')[1] for line in path.read_text().splitlines()[1:-1]] == sorted(budgets)
