"""The next items of an iteration, made by a thread while the last one is in use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

_LOOK_EVERY = 0.1  # seconds between two looks of a waiting thread at whether it is to end


class Prefetcher(Generic[_Item]):
    """Takes items off an endless iterator ahead of time.

    Args:
        items: run in the thread alone.
        ahead: how many items may wait, at least 1.
    """

    def __init__(self, items: Iterator[_Item], ahead: int) -> None:
        self._items = items
        self._ready: queue.Queue[_Item | BaseException] = queue.Queue(ahead)
        self._ending = threading.Event()
        # A daemon: an interpreter that ends without close() doesn't wait for it.
        self._thread = threading.Thread(target=self._work, name="ebgan_fast image reader", daemon=True)
        self._thread.start()

    def next(self) -> _Item:
        """The next item; raises what the iterator raised in its place."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            self.close()
            raise item
        return item

    def close(self) -> None:
        """End the thread and wait for it."""
        self._ending.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # next() raises it
            self._put(error)

    def _put(self, item: _Item | BaseException) -> bool:
        while not self._ending.is_set():
            try:
                self._ready.put(item, timeout=_LOOK_EVERY)
                return True
            except queue.Full:
                continue
        return False
