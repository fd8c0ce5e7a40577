"""Tests of memory in the PTX simulator: bounds, counts, and asynchronous copies."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gpuless.arrays import address
from gpuless.guard_pages import poisoned
from gpuless.ptx import Misaligned, OutOfBounds, Race, Report, Struct, Uninitialized, Unsupported, simulate
from ptx_snippets import kernel, run

HERE = "mad.lo.u64 %at, %index, {size}, %address{number};"  # the thread's element of an argument
AT = "b64 at, b32 v, b32 w, b32 x, b32 y, b32 sum"
SHARED = ".shared .align 16 .b8 buffer[512];"


def at(number: int, size: int = 4) -> str:
    return HERE.format(number=number, size=size)


def test_loads_and_stores_move_the_bytes_of_arrays() -> None:
    source, to = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    run(f"{at(0)} ld.global.b32 %v, [%at]; {at(1)} st.global.b32 [%at], %v;", source, to, registers=AT, threads=64)
    assert np.array_equal(source, to)


def test_a_view_starts_at_its_own_first_element_and_ends_with_its_last() -> None:
    whole = np.zeros(100, np.float32)
    view = whole[10:90].reshape(8, 10)[:, 2:5]  # elements 12 to 84; the gaps in between belong to it
    run(f"{at(0)} add.u64 %at, %at, 160; st.global.b32 [%at], 0f3F800000;", view, registers=AT)
    assert np.flatnonzero(whole).tolist() == list(range(52, 84))
    with pytest.raises(OutOfBounds, match=r"store of 4 bytes at byte 292 of argument 0, which has 292 .*thread 31"):
        run(f"{at(0)} add.u64 %at, %at, 168; st.global.b32 [%at], 0f3F800000;", view, registers=AT)


STRUCT = """
.version 8.5
.target sm_80
.address_size 64
.visible .entry copy(.param .align 8 .b8 both[24], .param .u32 first)
{
    .reg .b64 %from, %to, %at;
    .reg .b32 %v, %step, %first, %thread;
    ld.param.u64 %from, [both];
    ld.param.u32 %step, [both+8];
    ld.param.u64 %to, [both+16];
    ld.param.u32 %first, [first];
    mov.u32 %thread, %tid.x;
    mad.lo.u32 %v, %thread, %step, %first;
    mad.wide.u32 %at, %v, 4, %from;
    ld.global.b32 %v, [%at];
    mad.wide.u32 %at, %thread, 4, %to;
    st.global.b32 [%at], %v;
    ret;
}
"""


def test_pointers_in_a_struct() -> None:
    """Arrays in structs get the numbers after the arguments."""
    source, to = np.arange(64, dtype=np.float32), np.zeros(32, np.float32)
    both = Struct((99).to_bytes(8, "little") + (2).to_bytes(16, "little"), {0: source, 16: to})

    def copy(first: int) -> Report:
        return simulate(STRUCT, grid=(1,), threads=32, arguments=[both, first.to_bytes(4, "little")])

    report = copy(1)
    assert np.array_equal(to, source[1::2])
    assert {number: (it.bytes_read, it.bytes_written) for number, it in report.buffers.items()} == {
        2: (128, 0),
        3: (0, 128),
    }
    with pytest.raises(OutOfBounds, match=r"byte 256 of argument 2, which has 256"):
        copy(2)
    with pytest.raises(TypeError, match="expected 24 bytes"):
        simulate(STRUCT, grid=(1,), threads=32, arguments=[Struct(bytes(16), {0: source}), 1])


OUTSIDE = {
    "the first byte before": ("sub.u64 %at, %address0, 1; ld.global.b8 %v, [%at];", "byte -1 of argument 0"),
    "the last element half": ("ld.global.b32 %v, [%address0+126];", "byte 126 of argument 0, which has 128"),
    "far away": ("ld.global.b32 %v, [%address0+8589934592];", "byte 8589934592 of argument 0"),
    "null": ("mov.u64 %at, 0; ld.global.b32 %v, [%at];", "is in no argument"),
    "vector": ("ld.global.v4.b32 {%v, %w, %x, %y}, [%address0+116];", "load of 16 bytes at byte 116"),
    "negative index": ("mov.s64 %at, -4; add.u64 %at, %at, %address0; st.global.b32 [%at], 0;", "byte -4"),
    "atomic": ("atom.global.add.u32 %v, [%address0+128], 1;", "atomic operation of 4 bytes at byte 128"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_out_of_bounds(name: str) -> None:
    body, message = OUTSIDE[name]
    with pytest.raises(OutOfBounds, match=message):
        run(body, np.zeros(32, np.float32), np.zeros(32, np.float32), registers=AT)


def test_an_error_says_where() -> None:
    body = f"{at(0)} setp.eq.u32 %p0, %thread, 37; @%p0 add.u64 %at, %at, 4096;\n    ld.global.b32 %v, [%at];"
    message = "load of 4 bytes at byte 4244 of argument 0, which has 256 [snippet, CTA (0, 0, 0), thread 37, PTX line "
    with pytest.raises(OutOfBounds, match=re.escape(message)) as caught:
        run(body, np.zeros(64, np.float32), registers=AT, threads=64)
    text = kernel(1, AT, body)
    line = int(re.search(r"PTX line (\d+)", str(caught.value))[1])
    assert text.splitlines()[line - 1].strip() == "ld.global.b32 %v, [%at];"


def test_threads_that_a_guard_leaves_out_touch_nothing() -> None:
    array = np.zeros(20, np.float32)
    body = f"{at(0)} setp.lt.u32 %p0, %thread, 20; @%p0 st.global.b32 [%at], 0f3F800000;"
    report = run(body, array, registers=AT)
    assert array.sum() == 20
    assert report.buffers[0].bytes_written == 80


@pytest.mark.parametrize(("start", "width"), [(1, 8), (2, 16), (1, 16)])
def test_vectors_at_the_real_alignment_of_a_array(start: int, width: int) -> None:
    """A view that begins at an odd element is not aligned for a vector, even if the compiler was told that it is."""
    whole = np.zeros(64, np.float32)
    assert address(whole) % 16 == 0
    registers = "{%v, %w}" if width == 8 else "{%v, %w, %x, %y}"
    body = f"ld.global.v{width // 4}.b32 {registers}, [%address0];"
    run(body, whole[4:], registers=AT)
    with pytest.raises(Misaligned, match=f"load of {width} bytes at byte 0 of argument 0, {4 * start} bytes past"):
        run(body, whole[start:], registers=AT)


def test_traffic_is_counted_as_lanes_ask_for_it() -> None:
    source, to = (poisoned((size,), np.float32, begins=True) for size in (256, 64))  # at the start of a page
    body = f"{at(0, 16)} ld.global.v4.b32 {{%v, %w, %x, %y}}, [%at]; {at(1)} st.global.b32 [%at], %v;"
    report = run(body, source, to, registers=AT, threads=64)
    read, written = report.buffers[0], report.buffers[1]
    assert (read.bytes_read, read.bytes_written, read.sectors_read, dict(read.loads)) == (1024, 0, 32, {128: 64})
    assert (written.bytes_written, written.sectors_written, dict(written.stores)) == (256, 8, {32: 64})
    assert report.bytes_read == 1024


def test_strided_lanes_take_a_sector_each() -> None:
    report = run(f"{at(0, 64)} ld.global.b32 %v, [%at];", np.zeros(512, np.float32), registers=AT)
    assert report.buffers[0].sectors_read == 32
    assert report.buffers[0].bytes_read == 128


def test_atomics_are_counted_apart() -> None:
    counts, sums = np.zeros(1, np.int32), np.zeros(1, np.float32)
    body = "atom.global.add.u32 %v, [%address0], 2; red.global.add.f32 [%address1], 0f3F000000;"
    report = run(body, counts, sums, registers=AT, threads=64)
    assert (counts.item(), sums.item()) == (128, 32)
    assert (report.buffers[0].integer_atomics, report.buffers[0].float_atomics) == (64, 0)
    assert (report.buffers[1].integer_atomics, report.float_atomics) == (0, 64)


def test_atomics_return_what_was_there() -> None:
    counter, order = np.zeros(1, np.int32), np.zeros(64, np.int32)
    body = f"atom.global.add.u32 %v, [%address0], 1; {at(1)} st.global.b32 [%at], %v;"
    run(body, counter, order, registers=AT, threads=64)
    assert sorted(order.tolist()) == list(range(64))


def test_shared_memory_goes_between_threads() -> None:
    to = np.zeros(64, np.int32)
    body = f"""
    shl.b32 %w, %thread, 2; mov.u32 %x, buffer; add.u32 %w, %w, %x;
    st.shared.b32 [%w], %thread;
    bar.sync 0;
    xor.b32 %w, %w, 252;
    ld.shared.b32 %v, [%w];
    {at(0)} st.global.b32 [%at], %v;
    """
    report = run(body, to, registers=AT, threads=64, declarations=SHARED)
    assert to.tolist() == list(range(63, -1, -1))
    assert (report.barriers, report.bank_conflict_factor) == (1, 1.0)


def test_shared_memory_has_an_end() -> None:
    with pytest.raises(OutOfBounds, match="byte 510 of shared memory, which has 512"):
        run("st.shared.b32 [buffer+510], 0;", np.zeros(1, np.float32), registers=AT, declarations=SHARED)
    with pytest.raises(Misaligned):
        run("st.shared.b32 [buffer+2], 0;", np.zeros(1, np.float32), registers=AT, declarations=SHARED)


def test_shared_memory_that_nobody_wrote() -> None:
    with pytest.raises(Uninitialized, match="byte 0 of shared memory"):
        run("ld.shared.b32 %v, [buffer];", np.zeros(1, np.float32), registers=AT, declarations=SHARED)


@pytest.mark.parametrize(("stride", "factor"), [(1, 1), (2, 2), (8, 8), (32, 32), (33, 1)])
def test_bank_conflicts(stride: int, factor: int) -> None:
    """Lanes conflict if their distance in words is a power of two above 1, because there are 32 banks of 4 bytes."""
    text = kernel(1, AT, f"mul.lo.u32 %w, %thread, {4 * stride}; st.shared.b32 [%w], %thread;")
    report = simulate(text, grid=(1,), threads=32, arguments=[np.zeros(1, np.float32)], shared_bytes=33 * 32 * 4)
    assert report.bank_conflict_factor == factor


def test_sixteen_bytes_a_lane_take_four_trips_and_no_conflict() -> None:
    text = kernel(1, AT, "shl.b32 %w, %thread, 4; st.shared.v4.b32 [%w], {%thread, %thread, %thread, %thread};")
    report = simulate(text, grid=(1,), threads=32, arguments=[np.zeros(1, np.float32)], shared_bytes=512)
    assert (report.shared_wavefronts, report.bank_conflict_factor) == (4, 1.0)


COPY = """
    shl.b32 %w, %thread, 4; mov.u32 %x, buffer; add.u32 %w, %w, %x;
    mad.lo.u64 %at, %index, 16, %address0;
    {issue}
    cp.async.commit_group;
    {wait}
    {barrier}
    {read}
    mad.lo.u64 %at, %index, 4, %address1;
    st.global.b32 [%at], %v;
"""
WHOLE = {
    "issue": "cp.async.cg.shared.global [%w], [%at], 16;",
    "wait": "cp.async.wait_group 0;",
    "barrier": "bar.sync 0;",
    "read": "xor.b32 %w, %w, 240; ld.shared.b32 %v, [%w+4];",
}


def copied(**changes: str) -> list[float]:
    source, to = np.arange(128, dtype=np.float32), np.zeros(32, np.float32)
    run(COPY.format(**(WHOLE | changes)), source, to, registers=AT, declarations=SHARED)
    return to.tolist()


def test_asynchronous_copies() -> None:
    assert copied() == [4 * (thread ^ 15) + 1 for thread in range(32)]
    alone = "ld.shared.b32 %v, [%w+4];"  # a thread needs no barrier for its own copy
    assert copied(barrier="", read=alone) == [4 * thread + 1 for thread in range(32)]


def test_a_copy_of_no_bytes_fills_with_zeros_and_reads_nothing() -> None:
    issue = "setp.lt.u32 %p0, %thread, 16; selp.b32 %y, 16, 0, %p0; selp.b64 %at, %at, 0, %p0;"
    issue += "cp.async.cg.shared.global [%w], [%at], 16, %y;"
    assert copied(issue=issue) == [4 * (thread ^ 15) + 1 if thread < 16 else 0 for thread in range(32)]


@pytest.mark.parametrize(
    "changes",
    [{"wait": ""}, {"wait": "cp.async.wait_group 1;"}, {"barrier": ""}],
    ids=["not waited for", "waited for one group less", "no barrier"],
)
def test_a_copy_that_may_not_be_there_yet_is_a_race(changes: dict[str, str]) -> None:
    with pytest.raises(Race, match=r"shared memory, written by (cp.async of )?thread"):
        copied(**changes)


def test_scratch_pointers_that_newer_tritons_pass_may_be_left_out() -> None:
    text = kernel(3, "b32 v", "st.global.b32 [%address0], 7;")
    array = np.zeros(1, np.int32)
    simulate(text, grid=(1,), threads=32, arguments=[array])
    assert array.item() == 7
    with pytest.raises(OutOfBounds, match="in no argument"):
        simulate(kernel(2, "b32 v", "ld.global.b32 %v, [%address1];"), grid=(1,), threads=32, arguments=[array])


def test_arguments_are_passed_by_the_types_of_the_parameters() -> None:
    text = """
    .visible .entry typed(.param .u64 to, .param .f32 a, .param .u32 b, .param .f64 c, .param .u64 d, .param .s32 e)
    {
        .reg .b64 %to; .reg .f32 %a; .reg .b32 %b; .reg .f64 %c; .reg .b64 %d; .reg .b32 %e;
        ld.param.u64 %to, [to]; ld.param.f32 %a, [a]; ld.param.u32 %b, [b]; ld.param.f64 %c, [c];
        ld.param.u64 %d, [d]; ld.param.s32 %e, [e];
        st.global.f32 [%to], %a; st.global.b32 [%to+4], %b; st.global.f64 [%to+8], %c;
        st.global.b64 [%to+16], %d; st.global.b32 [%to+24], %e;
        ret;
    }
    """
    array = np.zeros(28, np.uint8)
    assert address(array) % 8 == 0
    simulate(text, grid=(1,), threads=32, arguments=[array, 0.1, 2**32 - 1, 0.1, 2**63 - 1, -5])
    assert array[:4].view(np.float32)[0] == np.float32(0.1)
    assert array[8:16].view(np.float64)[0] == 0.1
    assert (array[4:8].view(np.uint32)[0], array[16:24].view(np.int64)[0]) == (2**32 - 1, 2**63 - 1)
    assert array[24:28].view(np.int32)[0] == -5


def test_what_is_not_modeled_is_only_an_error_where_a_thread_gets_there() -> None:
    body = "setp.eq.u32 %p0, %thread, {thread}; @%p0 wgmma.fence.sync.aligned;"
    run(body.format(thread=99), np.zeros(1, np.float32))
    with pytest.raises(Unsupported, match=r"not modeled: .*wgmma"):
        run(body.format(thread=9), np.zeros(1, np.float32))


def test_registers_that_nobody_wrote_hold_nan() -> None:
    to = np.zeros(32, np.float32)
    run(f"add.f32 %v, %v, 0f3F800000; {at(0)} st.global.b32 [%at], %v;", to, registers=AT)
    assert np.isnan(to).all()
