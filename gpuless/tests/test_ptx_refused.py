"""Tests that PTX which the simulator does not know is refused and never taken for something else."""

from __future__ import annotations

import numpy as np
import pytest

from gpuless.ptx import Unsupported, simulate
from ptx_snippets import evaluate, kernel, run

REGISTERS = "b32 a, b32 b, b32 c, b32 d, b64 e, b16 h"

REFUSED = [
    "add.rz.f32 %a, %b, %c;",
    "fma.rp.f32 %a, %b, %c, %d;",
    "add.sat.s32 %a, %b, %c;",
    "add.cc.u32 %a, %b, %c;",
    "mul24.lo.u32 %a, %b, %c;",
    "cvt.rn.satfinite.bf16.f32 %h, %a;",
    "cvt.rn.e4m3x2.f32 %h, %a, %b;",
    "min.xorsign.abs.f32 %a, %b, %c;",
    "prmt.b32.f4e %a, %b, %c, %d;",
    "rcp.approx.ftz.f64 %e, %e;",
    "mul.f32.bf16 %a, %h, %c;",
    "ld.global.v3.b32 {%a, %b, %c}, [%address0];",
    "ld.shared::cluster.b32 %a, [%b];",
    "bar.sync 1, 64;",
    "bar.arrive 0, 64;",
    "barrier.cluster.arrive;",
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%a], [%address0], 16, [%b];",
    "mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 {%a,%a,%a,%a}, {%a,%a,%a,%a}, {%b,%b}, {%c,%c,%c,%c};",
    "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%a,%a}, {%a,%a,%a,%a}, {%b,%b}, {%c,%c};",
    "mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%a,%a,%a,%a}, {%a,%a}, {%b,%b}, {%c,%c,%c,%c}, %d, 0;",
    "wgmma.fence.sync.aligned;",
    "call.uni something, (%a);",
    "mov.u32 %a, %clock;",
    "mov.u32 %a, %nothing;",
]


@pytest.mark.parametrize("instruction", REFUSED)
def test_refused(instruction: str) -> None:
    with pytest.raises(Unsupported):
        run(instruction, np.zeros(8, np.float32), registers=REGISTERS)


@pytest.mark.parametrize(("opcode", "sign"), [("add", 1), ("sub", -1)])
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_sums_of_a_narrow_and_a_wide_operand(opcode: str, sign: int, kind: str) -> None:
    """In add.f32.bf16 the first operand has 16 bits, and all other operands have 32."""
    generator = np.random.default_rng(0)
    drawn = generator.standard_normal(64).astype(np.float32)
    bits = (
        drawn.astype(np.float16).view(np.uint16) if kind == "f16" else (drawn.view(np.uint32) >> 16).astype(np.uint16)
    )
    narrow = bits.view(np.float16) if kind == "f16" else (bits.astype(np.uint32) << 16).view(np.float32)
    narrow = narrow.astype(np.float64)
    wide = generator.standard_normal(64).astype(np.float32)
    inputs = {"a": bits, "b": wide.view(np.uint32)}
    got = evaluate(f"{opcode}.rn.f32.{kind} %d, %a, %b;", inputs, np.float32)
    assert (got == (narrow + sign * wide.astype(np.float64)).astype(np.float32)).all()
    product = evaluate(f"fma.rn.f32.{kind} %d, %a, %a, %b;", inputs, np.float32)
    assert (product == (narrow**2 + wide).astype(np.float32)).all()


def test_a_maximum_shows_what_nobody_wrote_with_odd_seeds() -> None:
    """Registers that were never written show in a maximum with odd seeds. max drops the NaN of even seeds."""
    body = "setp.lt.u32 %p0, %thread, 16; @%p0 mov.b32 %a, 0f3F800000; max.f32 %a, %a, 0f00000000;"
    body += "mad.lo.u64 %e, %index, 4, %address0; st.global.b32 [%e], %a;"
    to = np.empty(32, np.float32)
    run(body, to, registers=REGISTERS, seed=0)
    assert to.tolist() == 16 * [1.0] + 16 * [0.0]
    run(body, to, registers=REGISTERS, seed=1)
    assert (to[16:] > 1e38).all()


def test_the_kernel_has_to_be_named_if_there_are_several() -> None:
    one = kernel(0, "", "")
    two = one + one.partition(".address_size 64")[2].replace("snippet", "other")
    with pytest.raises(Unsupported, match="got 2 kernels"):
        simulate(two, grid=(1,), threads=32, arguments=[])
    assert simulate(two, grid=(1,), threads=32, arguments=[], entry="other").ctas == 1
