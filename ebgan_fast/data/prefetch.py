"""The next items of an iteration, made by a thread while the last one is in use."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

_LOOK_EVERY = 0.1  # seconds between two looks of a waiting thread at whether it is to end


class Prefetcher(Generic[_Item]):
    """Takes items off an endless iterator ahead of time.

    The thread ends with `close`, with the last reference to the prefetcher, or with the interpreter.

    Args:
        items: run in the thread alone. It must not refer to the prefetcher, or to what holds it.
        ahead: how many items may wait, at least 1.
    """

    def __init__(self, items: Iterator[_Item], ahead: int) -> None:
        self._ready: queue.Queue[_Item | BaseException] = queue.Queue(ahead)
        ending = threading.Event()
        thread = threading.Thread(
            target=_work, args=(items, self._ready, ending), name="ebgan_fast image reader", daemon=True
        )
        thread.start()
        self._end = weakref.finalize(self, _stop, ending, thread)

    def next(self) -> _Item:
        """The next item; raises what the iterator raised in its place, after which there are no more."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """End the thread and wait for it."""
        self._end()


def _stop(ending: threading.Event, thread: threading.Thread) -> None:
    ending.set()
    if thread is not threading.current_thread():  # where the garbage collector may run this
        thread.join()


def _work(
    items: Iterator[_Item],
    ready: queue.Queue[_Item | BaseException],
    ending: threading.Event,
) -> None:
    try:
        for item in items:
            if not _put(ready, item, ending):
                return
    except BaseException as error:  # next() raises it
        _put(ready, error, ending)


def _put(ready: queue.Queue[_Item | BaseException], item: _Item | BaseException, ending: threading.Event) -> bool:
    while not ending.is_set():
        try:
            ready.put(item, timeout=_LOOK_EVERY)
            return True
        except queue.Full:
            continue
    return False
