"""Tests that a compile is the one that Triton's JIT would do for the same launch. The JIT itself is asked, with a
driver without a GPU.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed (Linux only)")

import torch
import triton
import triton.language as tl

from gpuless.triton import Specialization, flattened, jit_specializations
from launches import TARGETS, Launch
from planted_compile import GOOD, PLANTED, asserts, plain, rounded, uncompilable, unspecialized
from planted_triton import Rows, double_rows_launch


def plain_launch(pointer: Any, number: Any, scale: Any, flag: Any, kernel: Any = plain) -> Launch:
    arguments = {"p": pointer, "number": number, "scale": scale, "flag": flag, "BLOCK": 64, "DTYPE": tl.float32}
    return Launch(kernel, (1,), arguments, num_warps=2, num_stages=2)


NUMBERS = (-(2**63), -(2**31) - 1, -(2**31), -16, -1, 0, 1, 2, 8, 15, 16, 17, 1024, 2**31 - 1, 2**31, 2**40, 2**63 - 1)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool)
LAUNCHES = {
    **{f"number {number}": plain_launch(torch.empty(4), number, 1.0, False) for number in (*NUMBERS, 2**63, None)},
    **{f"pointer {dtype}": plain_launch(torch.empty(4, dtype=dtype), 3, 1.0, False) for dtype in DTYPES},
    "offset by 4 bytes": plain_launch(torch.empty(8)[1:], 3, 1.0, False),
    "offset by 16 bytes": plain_launch(torch.empty(8)[4:], 3, 1.0, False),
    "3 GB": plain_launch(torch.empty(3 << 30, dtype=torch.uint8, device="meta"), 3, 1.0, False),
    "scale 0": plain_launch(torch.empty(4), 3, 0.0, False),
    "scale None": plain_launch(torch.empty(4), 3, None, False),
    "scale a pointer": plain_launch(torch.empty(4), 3, torch.empty(()), False),
    "flag": plain_launch(torch.empty(4), 3, 1.0, True),
    "number 1, unspecialized": plain_launch(torch.empty(4), 1, 1.0, True, unspecialized),
    "number 16, unspecialized": plain_launch(torch.empty(4), 16, 1.0, True, unspecialized),
    "number 2**40, unspecialized": plain_launch(torch.empty(4), 2**40, 1.0, True, unspecialized),
    "number None, unspecialized": plain_launch(torch.empty(4), None, 1.0, True, unspecialized),
    "tuples": double_rows_launch(
        Rows(torch.empty(2, 48), None, 48, 48), Rows(torch.empty(4)[1:], torch.empty(3), 3, 1), torch.empty(5)
    ),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LAUNCHES)
def test_specialized_as_by_the_jit(name: str, target: str) -> None:
    launch = LAUNCHES[name]
    with jit_specializations(target) as found:
        launch.kernel[launch.grid](**launch.arguments, **launch.options)
    assert found == [launch.specialize(target)]


def hints_of(special: Specialization) -> dict[str, Any]:
    names = list(special.signature)
    return {names[position]: hints for (position,), hints in special.hints.items() if hints}


def test_what_the_rules_are() -> None:
    """The rules are written out for one launch, so that the comparisons with the JIT cannot agree on nothing."""
    launch = plain_launch(torch.empty(4, dtype=torch.bfloat16), 48, 2.5, True)
    found = launch.specialize("sm_80")
    kinds = {"p": "*bf16", "number": "i32", "scale": "fp32", "flag": "u1", "BLOCK": "constexpr", "DTYPE": "constexpr"}
    assert found.signature == kinds
    assert found.constants == {(4,): 64, (5,): tl.float32}
    assert hints_of(found) == {"p": [["tt.divisibility", 16]], "number": [["tt.divisibility", 16]]}
    assert found.runtime_arguments() == ("p", "number", "scale", "flag")
    one = plain_launch(torch.empty(8)[1:], 1, None, False).specialize("sm_80")
    assert one.runtime_arguments() == ("p", "flag")
    assert one.constants == {(1,): 1, (2,): None, (4,): 64, (5,): tl.float32}
    assert hints_of(one) == {}
    assert plain_launch(torch.empty(4), 2**31, 1.0, True).specialize("sm_80").signature["number"] == "i64"
    plain_one = plain_launch(torch.empty(4), 1, 1.0, True, unspecialized).specialize("sm_80")
    assert plain_one.signature["number"] == "i32"


def test_members_of_tuples_are_arguments_of_their_own() -> None:
    """Members of tuples are arguments of their own, except the constants: a pointer that is None, and a stride of 1."""
    sums = torch.empty(2, 5)[0]
    first, second = Rows(torch.empty(2, 48), None, 48, 40), Rows(torch.empty(3, 1), torch.empty(3, 1), 1, 17)
    launch = double_rows_launch(first, second, sums)
    arguments = flattened(launch.arguments)
    assert list(arguments) == [
        *(f"{rows}.{member}" for rows in ("first", "second") for member in Rows._fields),
        *("n", "to.0", "to.1", "BLOCK"),
    ]
    assert arguments["second.p_twice"] is second.p_twice
    assert arguments["to.0"] is sums
    special = launch.specialize("sm_80")
    assert special.constants == {(0, 1): None, (1, 2): 1, (3, 1): 1, (4,): 128}
    assert {path for path, hints in special.hints.items() if hints} == {(0, 0), (0, 2), (1, 0), (1, 1), (3, 0)}
    widths = {
        **{"first.p_x": "u64", "first.stride": "u32", "first.elements": "u32"},
        **{"second.p_x": "u64", "second.p_twice": "u64", "second.elements": "u32", "n": "u32", "to.0": "u64"},
    }
    artifact = launch.compile()
    assert special.runtime_arguments() == artifact.runtime_arguments == tuple(widths)
    assert re.findall(r"\.param \.(\w+)", artifact.ptx) == [*widths.values(), "u64", "u64"]


@pytest.mark.parametrize("target", TARGETS)
def test_parameters_are_the_runtime_arguments(target: str) -> None:
    """The kernel's parameters are the runtime arguments, and two pointers to Triton's scratch memory."""
    artifact = GOOD["center"]().compile(target)
    assert artifact.runtime_arguments == ("x", "out", "n")
    if artifact.ptx:
        assert re.findall(r"\.param \.(\w+)", artifact.ptx) == ["u64", "u64", "u32", "u64", "u64"]
        assert f".target {target}" in artifact.ptx
        assert re.findall(r"\.reqntid (\d+)", artifact.ptx) == [str(4 * 32)]
    else:
        assert re.findall(r"\.size: +(\d+)", artifact.amdgcn) == ["8", "8", "4", "8", "8"]
        assert re.findall(r"\.max_flat_workgroup_size: +(\d+)", artifact.amdgcn) == [str(4 * 64)]
    assert (artifact.name, artifact.num_warps) == ("center", 4)


def test_shared_memory_is_told() -> None:
    """The artifact tells its shared memory: 4 warps exchange their sums, a float each."""
    assert GOOD["center"]().compile("sm_80").shared == 4 * 4


def test_other_specializations_are_other_code() -> None:
    good = GOOD["center"]()
    first = good.compile()
    for other in (
        Launch(good.kernel, (8,), {**good.arguments, "n": 1000}, 4),
        Launch(good.kernel, (8,), {**good.arguments, "BLOCK": 2048}, 4),
        Launch(good.kernel, (8,), good.arguments, 8),
        PLANTED["x not aligned"](),
    ):
        assert other.compile().ptx != first.ptx


def test_debug_compiles_assertions_in() -> None:
    launch = Launch(asserts, (1,), {"p": torch.empty(4, dtype=torch.int32), "n": 3}, 1)
    quiet, checked = launch.compile("sm_80"), launch.compile("sm_80", debug=True)
    assert "__assertfail" not in quiet.ptx
    messages = {
        bytes(map(int, numbers.split(", "))).decode() for numbers in re.findall(r"= \{(\d+(?:, \d+)+)\}", checked.ptx)
    }
    assert any("n is positive" in message for message in messages)
    assert any("overflow" in message for message in messages)


@pytest.mark.parametrize("environment", ["0", "1"])
def test_options_of_the_launch_are_heard(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of the launch count more than Triton's defaults and the environment."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", environment)
    arguments = {"p": torch.empty(4), "a": 2.0, "b": 3.0}
    apart = Launch(rounded, (1,), arguments, 1).compile("sm_80").ptx
    assert "fma" not in apart
    assert re.search(r"mul(\.rn)?\.f32", apart)
    assert re.search(r"add(\.rn)?\.f32", apart)
    assert "fma" in Launch(rounded, (1,), arguments, 1, enable_fp_fusion=True).compile("sm_80").ptx


def test_what_does_not_compile_is_an_error() -> None:
    launch = Launch(uncompilable, (1,), {"p": torch.empty(4)}, 1)
    with pytest.raises(triton.compiler.errors.CompilationError, match="power of 2"):
        launch.compile("sm_80")


def test_only_jit_functions_compile() -> None:
    with pytest.raises(TypeError, match=r"no @triton\.jit function"):
        Launch(lambda: None, (1,), {}, 1).compile("sm_80")


def test_machine_code_is_nvidias_only() -> None:
    with pytest.raises(ValueError, match="gfx942, which is not NVIDIA's"):
        _ = GOOD["center"]().compile("gfx942").sass
