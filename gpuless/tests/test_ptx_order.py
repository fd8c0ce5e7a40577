"""Tests of the order between accesses in the PTX simulator, and of the races where nothing orders them."""

from __future__ import annotations

import numpy as np
import pytest

from gpuless.ptx import Race, Report
from ptx_snippets import run

REGISTERS = "b64 at, b64 far, b32 v, b32 w, b32 x, b32 cta, b32 ctas, b32 sum"
SHARED = ".shared .align 16 .b8 buffer[512];"
SLOT = "mov.u32 %x, buffer; shl.b32 %w, %thread, 2; add.u32 %w, %w, %x;"


def shared(body: str, threads: int = 64) -> Report:
    return run(SLOT + body, np.zeros(256, np.float32), registers=REGISTERS, declarations=SHARED, threads=threads)


def test_a_barrier_orders_shared_memory_both_ways() -> None:
    """Shared memory is written, read by other threads, and written again."""
    write, read = "st.shared.b32 [%w], %thread;", "xor.b32 %x, %w, 128; ld.shared.b32 %v, [%x];"
    shared(f"{write} bar.sync 0; {read} bar.sync 0; {write}")
    with pytest.raises(Race, match="load at byte 128 of shared memory, written by thread 32"):
        shared(f"{write} {read}")
    with pytest.raises(Race, match="store at byte 0 of shared memory, read by thread 32"):
        shared(f"{write} bar.sync 0; {read} {write}")
    with pytest.raises(Race, match=r"store at byte .* of shared memory, written by thread"):
        shared(f"{write} xor.b32 %x, %w, 128; st.shared.b32 [%x], %thread;")


def test_lanes_of_a_warp_need_a_barrier_too_but_a_small_one() -> None:
    write, read = "st.shared.b32 [%w], %thread;", "xor.b32 %x, %w, 4; ld.shared.b32 %v, [%x];"
    shared(f"{write} bar.warp.sync -1; {read}")
    with pytest.raises(Race, match="written by thread 1"):
        shared(f"{write} {read}")
    across = "xor.b32 %x, %w, 128; ld.shared.b32 %v, [%x];"
    with pytest.raises(Race, match="written by thread 32"):
        shared(f"{write} bar.warp.sync -1; {across}")


def test_every_reader_is_remembered() -> None:
    """Only one of many readers of an element is ordered before the write."""
    body = """
    setp.eq.u32 %p0, %thread, 0; setp.ne.u32 %p1, %thread, {left_out};
    @%p0 st.shared.b32 [buffer], 1;
    bar.sync 0;
    @%p1 ld.shared.b32 %v, [buffer];
    bar.warp.sync -1;
    @%p0 st.shared.b32 [buffer], 2;
    """
    shared(body.format(left_out=99), threads=32)
    for other in (37, 63):
        with pytest.raises(Race, match="store at byte 0 of shared memory, read by thread"):
            shared(body.format(left_out=other))


def test_lanes_that_store_different_values_to_one_place_race() -> None:
    shared("st.shared.b32 [buffer], 5;", threads=32)
    with pytest.raises(Race, match="two lanes of one instruction store different values"):
        shared("st.shared.b32 [buffer], %thread;", threads=32)
    with pytest.raises(Race, match="two lanes of one instruction store different values"):
        run("st.global.b32 [%address0], %thread;", np.zeros(1, np.float32), registers=REGISTERS)


def test_global_memory_between_warps_of_a_cta() -> None:
    to = "mad.lo.u64 %at, %index, 4, %address0; st.global.b32 [%at], %thread;"
    read = "mul.wide.u32 %far, %thread, 4; xor.b64 %far, %far, 128; add.u64 %far, %far, %address0;"
    read += "ld.global.b32 %v, [%far];"
    run(f"{to} bar.sync 0; {read}", np.zeros(64, np.float32), registers=REGISTERS, threads=64)
    with pytest.raises(Race, match=r"load at byte 128 of argument 0, written by thread 32 of CTA \(0, 0, 0\)"):
        run(to + read, np.zeros(64, np.float32), registers=REGISTERS, threads=64)


@pytest.mark.parametrize("seed", range(3))
def test_ctas_that_touch_the_same_bytes_race_whichever_runs_first(seed: int) -> None:
    counter = np.zeros(1, np.int32)
    increment = "setp.eq.u32 %p0, %thread, 0; @%p0 ld.global.b32 %v, [%address0]; add.u32 %v, %v, 1;"
    body = increment + "@%p0 st.global.b32 [%address0], %v;"
    with pytest.raises(Race, match="load at byte 0 of argument 0, written by thread 0 of CTA"):
        run(body, counter, registers=REGISTERS, grid=(3,), seed=seed)
    counter[:] = 0
    run("red.relaxed.gpu.global.add.u32 [%address0], 1;", counter, registers=REGISTERS, grid=(3,), seed=seed)
    assert counter.item() == 96


def test_a_read_before_another_ctas_write_is_a_race() -> None:
    """CTA 0 reads what CTA 1 writes. The race is found in both orders of the CTAs."""
    body = """
    mov.u32 %cta, %ctaid.x; setp.eq.u32 %p0, %cta, 0;
    @%p0 ld.global.b32 %v, [%address0];
    @!%p0 st.global.b32 [%address0], 1;
    """
    seen = set()
    for seed in range(8):
        with pytest.raises(Race) as caught:
            run(body, np.zeros(1, np.float32), registers=REGISTERS, grid=(2,), seed=seed)
        seen.add(str(caught.value).split()[0])
    assert seen == {"load", "store"}


def test_overlapping_arrays_are_one_memory() -> None:
    whole = np.zeros(64, np.float32)
    body = "mov.u32 %cta, %ctaid.x; setp.eq.u32 %p0, %cta, 0;"
    body += "@%p0 st.global.b32 [%address0+64], 1; @!%p0 ld.global.b32 %v, [%address1];"
    run(body, whole[:32], whole[17:], registers=REGISTERS, grid=(2,))
    with pytest.raises(Race):
        run(body, whole[:32], whole[16:], registers=REGISTERS, grid=(2,))


LAST_ARRIVER = """
    mov.u32 %cta, %ctaid.x; mov.u32 %ctas, %nctaid.x;
    // every thread's partial: partials[cta][thread] = 100 cta + thread
    mad.lo.u32 %v, %cta, 100, %thread;
    mov.u32 %x, %ntid.x;
    mad.lo.u32 %w, %cta, %x, %thread;
    mul.wide.u32 %at, %w, 4;
    add.u64 %at, %at, %address0;
    st.global.b32 [%at], %v;
    {before}
    // thread 0 counts the CTA in, and tells the others by shared memory
    setp.eq.u32 %p0, %thread, 0;
    {early}
    @%p0 {atomic} %v, [%address1], 1;
    {after}
    @%p0 st.shared.b32 [buffer], %v;
    bar.sync 0;
    ld.shared.b32 %v, [buffer];
    add.u32 %v, %v, 1;
    setp.ne.u32 %p1, %v, %ctas;
    @%p1 bra DONE;
    // the last one adds up every CTA's partials of its thread
    mov.u32 %sum, 0; mov.u32 %cta, 0; mov.u32 %x, %ntid.x;
LOOP:
    mad.lo.u32 %w, %cta, %x, %thread;
    mul.wide.u32 %at, %w, 4;
    add.u64 %at, %at, %address0;
    ld.global.cg.b32 %v, [%at];
    add.u32 %sum, %sum, %v;
    add.u32 %cta, %cta, 1;
    setp.lt.u32 %p1, %cta, %ctas;
    @%p1 bra LOOP;
    mad.lo.u64 %at, %index, 4, %address2;
    st.global.b32 [%at], %sum;
    @%p0 st.global.b32 [%address1], 0;
DONE:
"""
CORRECT = {"before": "bar.sync 0;", "early": "", "atomic": "atom.acq_rel.gpu.global.add.u32", "after": ""}


def last_arriver(seed: int = 0, ctas: int = 5, **changes: str) -> tuple[list[int], int]:
    partials = np.zeros(ctas * 64, np.int32)
    counter, result = np.zeros(1, np.int32), np.zeros(64, np.int32)
    run(
        LAST_ARRIVER.format(**(CORRECT | changes)),
        *(partials, counter, result),
        registers=REGISTERS,
        declarations=SHARED,
        threads=64,
        grid=(ctas,),
        seed=seed,
    )
    return result.tolist(), counter.item()


FENCED = "fence.acq_rel.gpu; @%p0 atom.relaxed.gpu.global.add.u32"
LEGAL = {
    "acq_rel": {},
    "system scope": {"atomic": "atom.acq_rel.sys.global.add.u32"},
    "fences": {"atomic": FENCED, "after": "fence.acq_rel.gpu;"},
    "membar": {"before": "bar.sync 0; membar.gl;", "atomic": "atom.global.add.u32", "after": "membar.gl;"},
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", LEGAL)
def test_the_last_cta_to_arrive_may_read_what_all_stored(name: str, seed: int) -> None:
    result, counter = last_arriver(seed, **LEGAL[name])
    assert result == [100 * (0 + 1 + 2 + 3 + 4) + 5 * thread for thread in range(64)]
    assert counter == 0


EARLY_LOAD = """
    mov.u32 %x, %ntid.x; sub.u32 %w, %ctas, 1; sub.u32 %w, %w, %cta; mad.lo.u32 %w, %w, %x, %thread;
    mul.wide.u32 %at, %w, 4; add.u64 %at, %at, %address0; ld.global.cg.b32 %sum, [%at];
"""
BROKEN = {
    "relaxed": {"atomic": "atom.relaxed.gpu.global.add.u32"},
    "release only": {"atomic": "atom.release.gpu.global.add.u32"},
    "acquire only": {"atomic": "atom.acquire.gpu.global.add.u32"},
    "scope of the CTA": {"atomic": "atom.acq_rel.cta.global.add.u32"},
    "no barrier before the atomic": {"before": ""},
    "a barrier of the warp before it": {"before": "bar.warp.sync -1;"},
    "a load before the atomic": {"early": EARLY_LOAD},
    "no fence after a relaxed atomic": {
        "before": "bar.sync 0; membar.gl;",
        "atomic": "atom.relaxed.gpu.global.add.u32",
    },
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_last_arriver_is_a_race(name: str, seed: int) -> None:
    with pytest.raises(Race, match=r"of argument [01], (written|read) by thread \d+ of CTA"):
        last_arriver(seed, **BROKEN[name])


def test_the_readers_need_the_barrier_after_the_atomic() -> None:
    """Only thread 0 has acquired, so the other threads would read too early."""
    changed = LAST_ARRIVER.format(**CORRECT).replace(
        "@%p0 st.shared.b32 [buffer], %v;\n    bar.sync 0;\n    ld.shared.b32 %v, [buffer];",
        "@!%p0 ld.relaxed.gpu.global.b32 %v, [%address1]; @!%p0 sub.u32 %v, %v, 1;",
    )
    assert "buffer" not in changed
    tensors = (
        np.zeros(320, np.int32),
        np.zeros(1, np.int32),
        np.zeros(64, np.int32),
    )
    with pytest.raises(Race, match=r"load at byte \d+ of argument 0"):
        run(changed, *tensors, registers=REGISTERS, threads=64, grid=(5,))


PASSING = """
    // CTA 0 writes data and raises the flag; whoever sees it raised reads the data
    mov.u32 %cta, %ctaid.x; setp.eq.u32 %p0, %cta, 0;
    setp.eq.and.u32 %p1, %thread, {thread}, %p0;
    @%p1 st.global.b32 [%address0], 42;
    setp.eq.and.u32 %p1, %thread, 0, %p0;
    @%p1 {store} [%address1], 1;
    @%p0 bra DONE;
    {load} %v, [%address1];
    {fence}
    setp.eq.u32 %p0, %v, 0;
    @%p0 bra DONE;
    ld.global.b32 %w, [%address0];
    mad.lo.u64 %at, %index, 4, %address2;
    st.global.b32 [%at], %w;
DONE:
"""


def passed(seed: int, store: str, load: str, fence: str = "", thread: int = 0) -> list[int]:
    data, flag, to = (np.zeros(size, np.int32) for size in (1, 1, 32))
    body = PASSING.format(store=store, load=load, fence=fence, thread=thread)
    run(body, data, flag, to, registers=REGISTERS, grid=(2,), seed=seed)
    return to.tolist()


RELEASE, ACQUIRE = "st.release.gpu.global.b32", "ld.acquire.gpu.global.b32"


def test_a_release_that_is_acquired_passes_a_message() -> None:
    """Both orders of the two CTAs occur: one sees the flag raised; the other does not and reads nothing."""
    assert {tuple(passed(seed, RELEASE, ACQUIRE)) for seed in range(8)} == {(42,) * 32, (0,) * 32}
    fenced = {tuple(passed(seed, RELEASE, "ld.relaxed.gpu.global.b32", "fence.acq_rel.gpu;")) for seed in range(8)}
    assert fenced == {(42,) * 32, (0,) * 32}


@pytest.mark.parametrize(
    ("store", "load", "thread"),
    [
        ("st.relaxed.gpu.global.b32", ACQUIRE, 0),
        (RELEASE, "ld.relaxed.gpu.global.b32", 0),
        ("st.global.b32", "ld.global.b32", 0),
        (RELEASE, ACQUIRE, 1),
    ],
    ids=["relaxed store", "relaxed load", "plain", "stored by another thread"],
)
def test_a_message_without_release_or_acquire_is_a_race(store: str, load: str, thread: int) -> None:
    seeds = range(8)
    races = 0
    for seed in seeds:
        try:
            passed(seed, store, load, thread=thread)
        except Race:
            races += 1
    assert races >= 1
    if "relaxed" not in store + load and thread == 0:
        assert races == len(seeds)


def test_knowledge_is_passed_on() -> None:
    """Each CTA adds 1 to the number that the CTA before it left. It knows that number only through the knowledge passed
    on.
    """
    body = """
    mov.u32 %cta, %ctaid.x; setp.eq.u32 %p0, %thread, 0;
    @%p0 atom.acq_rel.gpu.global.add.u32 %v, [%address1], 0;
    @%p0 ld.global.b32 %w, [%address0];
    @%p0 add.u32 %w, %w, 1;
    @%p0 st.global.b32 [%address0], %w;
    @%p0 atom.acq_rel.gpu.global.add.u32 %v, [%address1], 1;
    """
    for seed in range(4):
        data, turn = np.zeros(1, np.int32), np.zeros(1, np.int32)
        run(body, data, turn, registers=REGISTERS, grid=(6,), seed=seed)
        assert data.item() == 6
