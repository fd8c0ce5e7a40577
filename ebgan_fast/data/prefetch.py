"""Make the next items of an iteration in a thread while the caller uses the last one."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

_LOOK_EVERY = 0.1  # seconds after which a waiting thread checks again if it must end


class Prefetcher(Generic[_Item]):
    """A thread that takes items from an endless iterator ahead of time.

    The thread ends with `close`, with the last reference to the prefetcher, or with the interpreter.

    Args:
        items: the iterator. It runs in the thread alone. It must not refer to the prefetcher or to the prefetcher's
            owner, or the last reference would never go.
        ahead: the number of items that may wait, at least 1.
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
        """Return the next item, or raise the error that the iterator raised instead. No items follow an error."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """End the thread and wait for it."""
        self._end()


def _stop(ending: threading.Event, thread: threading.Thread) -> None:
    ending.set()
    if thread is not threading.current_thread():  # the garbage collector may call this in the thread itself
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
