"""A guard against work without an end: a test that hangs fails, in place of keeping the others waiting."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_SECONDS = 60.0  # of the processor. What is guarded takes less than one, and where it fails hours.


@contextlib.contextmanager
def ends() -> Iterator[None]:
    """Raise an AssertionError in the block once it has computed for a minute."""

    def fail(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it has computed for {_SECONDS:.0f} s without an end")

    before = signal.signal(signal.SIGVTALRM, fail)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
