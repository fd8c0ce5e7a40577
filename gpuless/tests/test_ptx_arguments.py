"""Tests of a simulated kernel's arguments: NumPy arrays and torch tensors, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from gpuless.ptx import OutOfBounds, simulate
from ptx_snippets import kernel, run

REGISTERS = "b64 at, b32 v"
DOUBLE = """
    mad.lo.u64 %at, %index, 4, %address0;
    ld.global.b32 %v, [%at];
    add.f32 %v, %v, %v;
    mad.lo.u64 %at, %index, 4, %address1;
    st.global.b32 [%at], %v;
"""


def test_an_array_is_read_and_written_in_place() -> None:
    source, to = np.arange(64, dtype=np.float32), np.zeros((8, 8), np.float32)
    run(DOUBLE, source, to, registers=REGISTERS, threads=64)
    assert to.ravel().tolist() == list(range(0, 128, 2))


def test_so_is_a_tensor() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    source, to = torch.arange(64.0), torch.zeros(8, 8)
    run(DOUBLE, source, to, registers=REGISTERS, threads=64)
    assert to.ravel().tolist() == list(range(0, 128, 2))


def test_a_view_of_a_tensor_ends_with_its_last_element() -> None:
    """A view of 20 rows of 2 elements, 3 apart, ends 59 elements after its own start."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    view = torch.zeros(100, dtype=torch.bfloat16)[10:70].view(20, 3)[:, :2]
    run("st.global.b16 [%address0+116], 0;", view, registers=REGISTERS)
    with pytest.raises(OutOfBounds, match="byte 118 of argument 0, which has 118"):
        run("st.global.b16 [%address0+118], 0;", view, registers=REGISTERS)


def test_an_array_that_may_only_be_read() -> None:
    source, to = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    source.flags.writeable = False
    run(DOUBLE, source, to, registers=REGISTERS, threads=64)
    for write in ("st.global.b32 [%address0], 0;", "red.global.add.u32 [%address0], 1;"):
        with pytest.raises(OutOfBounds, match="to argument 0, which may only be read"):
            run(write, source, registers=REGISTERS)
    assert source[0] == 0


def test_a_number_of_numpy_is_a_number() -> None:
    text = """.visible .entry one(.param .u64 to, .param .u32 v) { .reg .b64 %to; .reg .b32 %v;
    ld.param.u64 %to, [to]; ld.param.u32 %v, [v]; st.global.b32 [%to], %v; ret; }"""
    to = np.zeros(1, np.int32)
    simulate(text, grid=1, threads=32, arguments=[to, np.int32(7)])
    assert to[0] == 7


def test_what_is_not_on_the_cpu_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(TypeError, match=r"got a tensor on meta, expected one on the CPU: tensor\.cpu\(\)"):
        simulate(kernel(1, "", ""), grid=1, threads=32, arguments=[torch.empty(4, device="meta")])


def test_strides_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="expected none below zero: copy the array"):
        simulate(kernel(1, "", ""), grid=1, threads=32, arguments=[np.zeros(4, np.float32)[::-1]])
