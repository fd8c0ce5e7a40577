"""Tests of a value that several threads load and one overwrites: a race only if another thread's copy goes anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from gpuless.ptx import Race
from ptx_snippets import run

REGISTERS = "b64 at, b32 v, b32 w, b32 x"
LOAD = "ld.global.b32 %v, [%address0];"
STORE = "setp.eq.u32 %p0, %thread, 0; @%p0 st.global.b32 [%address0], %w;"


def increment(between: str = "", after: str = "", store: str = STORE) -> np.ndarray:
    """Run 64 threads that load an int and add one to it. One thread stores the sum."""
    number, other = np.full(1, 41, np.int32), np.zeros(64, np.int32)
    body = f"{LOAD} add.u32 %w, %v, 1; {between} {store} {after}"
    run(body, number, other, registers=REGISTERS, threads=64, declarations=".shared .align 4 .b8 buffer[256];")
    return number


EVERY = "mad.lo.u64 %at, %index, 4, %address1; st.global.b32 [%at], "
OTHERWISE = {
    "stored elsewhere": f"{EVERY} %v;",
    "stored elsewhere, changed": f"mul.lo.u32 %x, %w, 3; {EVERY} %x;",
    "stored where it points": "cvt.u64.u32 %at, %v; and.b64 %at, %at, 63; mad.lo.u64 %at, %at, 4, %address1;"
    + "setp.eq.u32 %p2, %thread, 0; @%p2 st.global.b32 [%at], 1;",
    "branched on": "setp.gt.u32 %p1, %v, 10; @%p1 bra END; add.u32 %x, %x, 1;\nEND:",
    "guarding a store": f"setp.gt.u32 %p1, %v, 10; @%p1 {EVERY} 7;".replace("@%p1 mad", "mad").replace(
        " st.", " @%p1 st."
    ),
    "sent to other lanes": "shfl.sync.bfly.b32 %x, %v, 1, 31, -1;",
    "sent through shared memory": "mov.u32 %x, buffer; mad.lo.u32 %x, %thread, 4, %x; st.shared.b32 [%x], %v;",
    "added atomically": "red.relaxed.gpu.global.add.u32 [%address1], %v;",
}


def test_copies_that_go_nowhere() -> None:
    assert increment().item() == 42
    assert increment("mul.lo.u32 %x, %v, 5; mov.u32 %v, %x;").item() == 42


@pytest.mark.parametrize("where", OTHERWISE)
@pytest.mark.parametrize("position", ["between", "after"])
def test_copies_that_go_somewhere(where: str, position: str) -> None:
    with pytest.raises(Race, match=r"store at byte 0 of argument 0, read by thread \d+ of CTA \(0, 0, 0\)"):
        increment(**{position: OTHERWISE[where]})
    increment(**{position: OTHERWISE[where]}, store=f"bar.sync 0; {STORE}")


def test_a_copy_of_another_load_is_no_excuse() -> None:
    """A second load of the number races with the store, as the value of that load goes elsewhere."""
    reader = "setp.ne.u32 %p1, %thread, 0; @%p1 ld.global.b32 %x, [%address0]; st.global.b32 [%address1], %x;"
    with pytest.raises(Race):
        increment(reader)


def test_a_store_of_another_cta_is_still_a_race() -> None:
    number = np.zeros(1, np.int32)
    with pytest.raises(Race, match="of CTA"):
        run(f"{LOAD} add.u32 %w, %v, 1; {STORE}", number, registers=REGISTERS, grid=(2,))
