"""Tests of shuffles, votes and barriers in the PTX simulator, and of its errors if a part of a warp is missing."""

from __future__ import annotations

import numpy as np
import pytest

from gpuless.ptx import Divergence, Endless, simulate
from ptx_snippets import evaluate, kernel

LANES = np.arange(64, dtype=np.uint32)


def shuffled(mode: str, by: int, width: int = 32) -> list[int]:
    """Return what a shuffle gives 64 threads that each hold their own number, in segments of `width` lanes."""
    segment = 32 - width
    clamp = segment << 8 | (0 if mode == "up" else 31)
    return evaluate(f"shfl.sync.{mode}.b32 %d, %a, {by}, {clamp}, -1;", {"a": LANES}, np.uint32).tolist()


@pytest.mark.parametrize("by", [1, 2, 4, 8, 16])
def test_butterfly(by: int) -> None:
    assert shuffled("bfly", by) == [thread ^ by for thread in range(64)]


@pytest.mark.parametrize("width", [32, 8])
def test_other_shuffles_stay_in_their_segment(width: int) -> None:
    first = [thread - thread % width for thread in range(64)]
    assert shuffled("idx", 5, width) == [start + 5 for start in first]
    assert shuffled("up", 3, width) == [max(t - 3, t if t - 3 < first[t] else 0) for t in range(64)]
    assert shuffled("down", 3, width) == [t + 3 if t + 3 < first[t] + width else t for t in range(64)]


def test_the_predicate_of_a_shuffle_says_whether_the_source_was_in_range() -> None:
    body = "shfl.sync.down.b32 %d|%p0, %a, 3, 31, -1; selp.u32 %d, 1, 0, %p0;"
    assert evaluate(body, {"a": LANES}, np.uint32).tolist() == [int(thread % 32 + 3 < 32) for thread in range(64)]


def test_votes() -> None:
    odd_first = "and.b32 %d, %a, 33; setp.eq.u32 %p0, %d, 1;"  # odd threads of the first warp
    got = evaluate(f"{odd_first} vote.sync.ballot.b32 %d, %p0, -1;", {"a": LANES}, np.uint32)
    assert got.tolist() == [0xAAAAAAAA] * 32 + [0] * 32
    got = evaluate(f"{odd_first} vote.sync.any.pred %p1, %p0, -1; selp.u32 %d, 1, 0, %p1;", {"a": LANES}, np.uint32)
    assert got.tolist() == [1] * 32 + [0] * 32
    got = evaluate(f"{odd_first} vote.sync.all.pred %p1, !%p0, -1; selp.u32 %d, 1, 0, %p1;", {"a": LANES}, np.uint32)
    assert got.tolist() == [0] * 32 + [1] * 32


@pytest.mark.parametrize(("operation", "combine"), [("add", sum), ("min", min), ("max", max)])
def test_reductions_of_a_warp(operation: str, combine) -> None:
    got = evaluate(f"redux.sync.{operation}.u32 %d, %a, -1;", {"a": LANES}, np.uint32)
    assert got.tolist() == [combine(range(32))] * 32 + [combine(range(32, 64))] * 32


def test_half_a_warp_may_shuffle_by_itself() -> None:
    body = "mov.u32 %d, 99; setp.lt.u32 %p0, %a, 16; @%p0 shfl.sync.bfly.b32 %d, %a, 1, 31, 0xffff;"
    assert evaluate(body, {"a": LANES}, np.uint32).tolist() == [t ^ 1 if t < 16 else 99 for t in range(64)]


PARTIAL = {
    "shuffle": "@%p0 shfl.sync.bfly.b32 %d, %a, 1, 31, -1;",
    "vote": "@%p0 vote.sync.ballot.b32 %d, %p1, -1;",
    "reduction": "@%p0 redux.sync.add.u32 %d, %a, -1;",
    "warp barrier": "@%p0 bar.warp.sync -1;",
    "elected thread": "@%p0 elect.sync %d|%p2, -1;",
}


@pytest.mark.parametrize("name", PARTIAL)
def test_named_lanes_that_are_missing_are_divergence(name: str) -> None:
    with pytest.raises(Divergence, match=r"lanes .* are named and not there"):
        evaluate(f"setp.lt.u32 %p0, %a, 40; setp.eq.u32 %p1, %a, 0; {PARTIAL[name]}", {"a": LANES}, np.uint32)


def test_a_shuffle_from_a_lane_that_is_not_there_is_divergence() -> None:
    """A shuffle whose mask names only the lower half is divergence if lane 0 reads lane 16."""
    body = "setp.lt.u32 %p0, %a, 16; @%p0 shfl.sync.bfly.b32 %d, %a, 16, 31, 0xffff;"
    with pytest.raises(Divergence, match="not there"):
        evaluate(body, {"a": LANES}, np.uint32)


BARRIERS = {
    "at different barriers": "setp.lt.u32 %p0, %a, 16; @%p0 bra ELSE; bar.sync 0; bra END; ELSE: bar.sync 0; END:",
    "having ended": "setp.lt.u32 %p0, %a, 40; @%p0 bar.sync 0;",
}


@pytest.mark.parametrize("message", BARRIERS)
def test_a_barrier_for_some_threads_is_divergence(message: str) -> None:
    with pytest.raises(Divergence, match=message):
        evaluate(BARRIERS[message], {"a": LANES}, np.uint32)


def test_threads_that_part_meet_again_before_a_barrier() -> None:
    body = "mov.u32 %d, 1; setp.lt.u32 %p0, %a, 16; @%p0 bra END; add.u32 %d, %d, %a; END: bar.sync 0;"
    assert evaluate(body, {"a": LANES}, np.uint32).tolist() == [1 if t < 16 else t + 1 for t in range(64)]


def test_a_loop_that_waits_for_another_cta_is_told() -> None:
    body = "WAIT: ld.acquire.gpu.global.b32 %v, [%address0]; setp.eq.u32 %p0, %v, 0; @%p0 bra WAIT;"
    text, flag = kernel(1, "b32 v", body), np.zeros(1, np.int32)
    with pytest.raises(Endless, match="1000 instructions in one CTA"):
        simulate(text, grid=1, threads=32, arguments=[flag], instruction_limit=1000)
