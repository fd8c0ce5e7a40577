"""A guard against endless loops in Python: the test fails, so that the other tests need not wait.

Work inside one call of C, such as the hash of a tuple, can't be interrupted. There the test process ends after ten
minutes with a traceback.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

_SECONDS = 60.0  # of CPU time. The guarded work takes less than one second, or hours if it fails.


@contextlib.contextmanager
def ends() -> Iterator[None]:
    """Fail the test if the block computes for more than a minute, whatever exceptions the block catches."""

    def fail(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"the block has computed for {_SECONDS:.0f} s without an end")

    before = signal.signal(signal.SIGVTALRM, fail)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
    faulthandler.dump_traceback_later(10 * _SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
