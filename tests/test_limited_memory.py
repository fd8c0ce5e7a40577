from __future__ import annotations

import pytest

from .limited_memory import Fork, error_within, needs_linux

pytestmark = needs_linux

ROOM = 64 << 20


def take(amount: int) -> None:
    bytearray(amount)


def fail() -> None:
    raise ValueError("one\ntwo")


@pytest.fixture
def holes() -> object:
    """Let this process keep memory for its next allocations: blocks below 32 MiB, freed beneath live blocks."""
    bytearray(31 << 20)  # after this, glibc takes blocks up to this size from its heap, not from the system
    blocks = [bytearray(20 << 20) for _ in range(20)]
    live = [bytearray(200 << 10) for _ in range(100)]
    del blocks
    return live


def test_the_limit_holds_whatever_this_process_keeps(fork: Fork, holes: object) -> None:
    assert error_within(fork, ROOM, take, 2 * ROOM) == ("MemoryError", "")
    assert error_within(fork, ROOM, take, ROOM // 2) == ("", "")


def test_an_error_is_told(fork: Fork) -> None:
    assert error_within(fork, ROOM, fail) == ("ValueError", "one\ntwo")


def test_a_process_that_dies_fails_the_test(fork: Fork) -> None:
    with pytest.raises(AssertionError):
        error_within(fork, ROOM, exit, 3)
