"""What is compiled is what Triton's JIT would compile at that launch: it is asked, with a driver that has no GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton compiles the kernels that are judged here")

import triton.language as tl  # noqa: E402

import ebgan_fast.ops.triton as ops  # noqa: E402
from ebgan_fast.ops.triton import launch as launching  # noqa: E402
from ebgan_fast.ops.triton.launch import Launch  # noqa: E402

from .compiled import TARGETS, Specialisation, compile_launch, specialise  # noqa: E402
from .planted_compile import GOOD, PLANTED, asserts, plain, rounded, uncompilable, unspecialised  # noqa: E402


class Driver:
    """As much of a driver as the JIT asks before it compiles."""

    def __init__(self, target: str) -> None:
        self.target = target

    def get_current_target(self) -> Any:
        return TARGETS[self.target]

    def get_current_device(self) -> str:
        return self.target

    def get_current_stream(self, device: str) -> int:
        return 0


def specialised_by_jit(launch: Launch, target: str, monkeypatch: pytest.MonkeyPatch) -> Specialisation:
    """What the JIT would hand to the compiler, were this launch run on that target."""
    seen = []

    def record(key, signature, device, constants, options, hints, warmup):  # type: ignore[no-untyped-def]
        seen.append(Specialisation(signature, constants, hints, options))

    with monkeypatch.context() as patch:
        patch.setattr(triton.runtime.driver, "_active", Driver(target))
        patch.setattr(launch.kernel, "device_caches", defaultdict(launch.kernel.create_binder))
        patch.setattr(launch.kernel, "_do_compile", record)
        launching.run(launch)
    return seen[0]


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
    "number 1, unspecialised": plain_launch(torch.empty(4), 1, 1.0, True, unspecialised),
    "number 16, unspecialised": plain_launch(torch.empty(4), 16, 1.0, True, unspecialised),
    "number 2**40, unspecialised": plain_launch(torch.empty(4), 2**40, 1.0, True, unspecialised),
    "number None, unspecialised": plain_launch(torch.empty(4), None, 1.0, True, unspecialised),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LAUNCHES)
def test_specialised_as_by_the_jit(name: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = LAUNCHES[name]
    assert specialise(launch, target) == specialised_by_jit(launch, target, monkeypatch)


def recorded_launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """Those of every op, in float32 and bfloat16."""
    launches: list[Launch] = []
    with monkeypatch.context() as patch:
        patch.setattr(launching, "run", launches.append)
        for dtype in (torch.float32, torch.bfloat16):
            for elements in (784, 49152):
                batch = torch.zeros(3, elements, dtype=dtype)
                ops.discriminator_loss(batch, batch, batch, batch, 1.0, "l2", [True] * 4)
            for n, d in ((6, 1000), (200, 24)):
                code = torch.zeros(n, d, dtype=dtype)
                _, norms, gram = ops.pulling_away_term(code)
                ops.pulling_away_term_backward(torch.ones(()), code, norms, gram)
    return launches


@pytest.mark.parametrize("target", TARGETS)
def test_the_ops_launches_are_specialised_as_by_the_jit(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launches = recorded_launches(monkeypatch)
    assert len({launch.kernel for launch in launches}) > 5
    for launch in launches:
        assert specialise(launch, target) == specialised_by_jit(launch, target, monkeypatch)


def hints_of(special: Specialisation) -> dict[str, Any]:
    names = list(special.signature)
    return {names[position]: hints for (position,), hints in special.hints.items() if hints}


def test_what_the_rules_are() -> None:
    """Written out for one launch, so that agreement with the JIT is not agreement on nothing."""
    launch = plain_launch(torch.empty(4, dtype=torch.bfloat16), 48, 2.5, True)
    found = specialise(launch, "sm_80")
    kinds = {"p": "*bf16", "number": "i32", "scale": "fp32", "flag": "u1", "BLOCK": "constexpr", "DTYPE": "constexpr"}
    assert found.signature == kinds
    assert found.constants == {(4,): 64, (5,): tl.float32}
    assert hints_of(found) == {"p": [["tt.divisibility", 16]], "number": [["tt.divisibility", 16]]}
    assert found.runtime_arguments() == ("p", "number", "scale", "flag")
    one = specialise(plain_launch(torch.empty(8)[1:], 1, None, False), "sm_80")
    assert one.runtime_arguments() == ("p", "flag")
    assert one.constants == {(1,): 1, (2,): None, (4,): 64, (5,): tl.float32}
    assert hints_of(one) == {}
    assert specialise(plain_launch(torch.empty(4), 2**31, 1.0, True), "sm_80").signature["number"] == "i64"
    plain_one = specialise(plain_launch(torch.empty(4), 1, 1.0, True, unspecialised), "sm_80")
    assert plain_one.signature["number"] == "i32"


@pytest.mark.parametrize("target", TARGETS)
def test_parameters_are_the_runtime_arguments(target: str) -> None:
    """And two pointers to Triton's scratch memory."""
    artefact = compile_launch(GOOD["center"](), target)
    assert artefact.runtime_arguments == ("x", "out", "n")
    if artefact.ptx:
        assert re.findall(r"\.param \.(\w+)", artefact.ptx) == ["u64", "u64", "u32", "u64", "u64"]
        assert f".target {target}" in artefact.ptx
        assert re.findall(r"\.reqntid (\d+)", artefact.ptx) == [str(4 * 32)]
    else:
        assert re.findall(r"\.size: +(\d+)", artefact.amdgcn) == ["8", "8", "4", "8", "8"]
        assert re.findall(r"\.max_flat_workgroup_size: +(\d+)", artefact.amdgcn) == [str(4 * 64)]
    assert (artefact.name, artefact.num_warps) == ("center", 4)


def test_shared_memory_is_told() -> None:
    """4 warps exchange their sums, a float each."""
    assert compile_launch(GOOD["center"](), "sm_80").shared == 4 * 4


def test_equal_specialisations_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    good = GOOD["center"]()
    first = compile_launch(good, "sm_80")
    with monkeypatch.context() as patch:
        patch.setattr(triton, "compile", lambda *arguments, **options: pytest.fail("compiled again"))
        assert compile_launch(Launch(good.kernel, (3,), {**good.arguments, "n": 1008}, 4), "sm_80") is first
    for other in (
        Launch(good.kernel, (8,), {**good.arguments, "n": 1000}, 4),
        Launch(good.kernel, (8,), {**good.arguments, "BLOCK": 2048}, 4),
        Launch(good.kernel, (8,), good.arguments, 8),
        PLANTED["x not aligned"](),
    ):
        assert compile_launch(other, "sm_80").ptx != first.ptx


def test_debug_compiles_assertions_in() -> None:
    launch = Launch(asserts, (1,), {"p": torch.empty(4, dtype=torch.int32), "n": 3}, 1)
    quiet, checked = compile_launch(launch, "sm_80"), compile_launch(launch, "sm_80", debug=True)
    assert "__assertfail" not in quiet.ptx
    messages = {
        bytes(map(int, numbers.split(", "))).decode() for numbers in re.findall(r"= \{(\d+(?:, \d+)+)\}", checked.ptx)
    }
    assert any("n is positive" in message for message in messages)
    assert any("overflow" in message for message in messages)


@pytest.mark.parametrize("environment", ["0", "1"])
def test_multiply_and_add_stay_two_roundings(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Triton's release or the environment say: the ops ask for it, and the compile here must hear them."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", environment)
    ptx = compile_launch(Launch(rounded, (1,), {"p": torch.empty(4), "a": 2.0, "b": 3.0}, 1), "sm_80").ptx
    assert "fma" not in ptx
    assert re.search(r"mul(\.rn)?\.f32", ptx)
    assert re.search(r"add(\.rn)?\.f32", ptx)


def test_what_does_not_compile_is_an_error() -> None:
    launch = Launch(uncompilable, (1,), {"p": torch.empty(4)}, 1)
    with pytest.raises(triton.compiler.errors.CompilationError, match="power of 2"):
        compile_launch(launch, "sm_80")


def test_only_jit_functions_compile() -> None:
    with pytest.raises(TypeError, match=r"no @triton\.jit function"):
        compile_launch(Launch(lambda: None, (1,), {}, 1), "sm_80")


def test_machine_code_is_nvidias_only() -> None:
    with pytest.raises(ValueError, match="gfx942, which is not NVIDIA's"):
        _ = compile_launch(GOOD["center"](), "gfx942").sass


def test_the_interpreter_is_told_apart() -> None:
    """Its kernels are Python: a compile would say something dark about a missing attribute."""
    program = (
        "from tests.simulators.compiled import compile_launch\n"
        "from tests.simulators.planted_compile import GOOD\n"
        "compile_launch(GOOD['center'](), 'sm_80')\n"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "RuntimeError: TRITON_INTERPRET is set" in done.stderr
