"""Stopping a run politely."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(Exception):
    """A signal has come while something long was under way, which is given up."""


class StopSignals:
    """Inside the `with` block, SIGINT and SIGTERM are noted in `received` for the loop to act upon.

    A second one stops at once, by SystemExit with status 128 + its number. Python delivers signals to the
    main thread alone, so in any other thread this does nothing. The handlers that were there come back at the
    end.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None: a handler that wasn't installed from Python, which can't be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise a StoppedError if a signal has come."""
        if self.received is not None:
            raise StoppedError

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = number
