"""A guard against work without an end in Python: the test fails, in place of keeping the others waiting.

Work inside one call of C, such as the hash of a tuple, isn't interrupted: the test process ends with a traceback.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

_SECONDS = 60.0  # of the processor. What is guarded takes less than one, and where it fails hours.


@contextlib.contextmanager
def ends() -> Iterator[None]:
    """Fail the test once the block has computed for a minute, whatever errors the block catches."""

    def fail(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"it has computed for {_SECONDS:.0f} s without an end")

    before = signal.signal(signal.SIGVTALRM, fail)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
    faulthandler.dump_traceback_later(10 * _SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
