"""Decode and crop images in order, in this process or in several worker processes."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageFile

from .. import _allowed
from .errors import DataError
from .sources import Source
from .sources.names import image_formats
from .worker import Square, decoded_squares

_PER_TASK = 16  # images that a process takes at a time
_PATIENCE = 10.0  # seconds that a process has to end after it closed its output
_BYTES = 400 << 20  # a worker that decodes photographs: 40 MB of its own, and 8 bytes for each of 45 megapixels

_PACKAGE = Path(__file__).parents[1]
# A worker is a new process, not a fork: a script needs no main guard, and no process with threads is forked. It imports
# only the modules that it needs: 0.3 s and 40 MB, where importing the whole packages takes 2.7 s and 230 MB.
# Python would let it import from the current folder, which may hold a stranger's files: sys.path is replaced first.
_WORKER = """
import sys
package, *sys.path = sys.argv[1:]
import signal, types
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
for name, folder in (("ebgan_fast", package), ("ebgan_fast.data", package + "/data")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from ebgan_fast.data.worker import serve
serve()
"""


def allowed_workers() -> int:
    """Return the number of workers that this process's share of processors and memory allows, at least 1."""
    memory = _allowed.memory()
    return max(1, min(_allowed.processors(), _allowed.processors() if memory is None else memory // _BYTES))


def _without_interrupts() -> None:
    """Block Ctrl-C in this thread and in the processes that it starts.

    A worker ignores Ctrl-C only once its first lines have run; before, it would print a traceback.
    """
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _has_own_formats() -> bool:
    """Return True if another package, such as pillow_heif, has added formats to Pillow."""
    image_formats()  # loads all formats of Pillow itself
    return any(not getattr(opened[0], "__module__", "").startswith("PIL.") for opened in Image.OPEN.values())


class Reader:
    """A reader that decodes and crops the images of a source.

    Args:
        source: the images.
        size: the side of the squares in pixels.
        workers: the number of processes. 1: this process reads the images itself. It also does so, for any number, if
            Python is embedded in another program, or if a package has added formats to Pillow in this process, which
            workers wouldn't know.
    """

    def __init__(self, source: Source, size: int, workers: int) -> None:
        self._source, self._size, self._workers = source, size, workers
        several = workers > 1 and bool(sys.executable) and not _has_own_formats()
        # Each thread sends its tasks to a process of its own.
        self._threads = ThreadPoolExecutor(workers, initializer=_without_interrupts) if several else None
        self._own = threading.local()  # each thread's process
        self._told: set[subprocess.Popen[bytes]] = set()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._starting = threading.Lock()
        self._closed = False

    def read(self, wanted: range) -> Iterator[Square]:
        """Give the square of each image in `wanted`, in order, or the report of a failure in its place.

        Raises:
            DataError: a process ended, for example because memory ran out. The message names its images.
        """
        tasks = iter([wanted[first : first + _PER_TASK] for first in range(0, len(wanted), _PER_TASK)])
        if self._threads is None:
            for task in tasks:
                yield from decoded_squares(self._source, self._size, task)
            return
        # Three tasks a worker keep all workers busy. With all tasks sent at once, a whole shard would wait in memory.
        ahead = deque(self._threads.submit(self._ask, task) for task in itertools.islice(tasks, 3 * self._workers))
        while ahead:
            results = ahead.popleft().result()
            ahead.extend(self._threads.submit(self._ask, task) for task in itertools.islice(tasks, 1))
            yield from results

    def close(self) -> None:
        """End the processes."""
        with self._starting:
            self._closed = True
        for process in self._processes:
            process.kill()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # closing flushes, which fails: the process has ended
                    assert pipe is not None
                    pipe.close()
        self._source.close()

    def _ask(self, task: range) -> list[Square]:
        """Send a task to this thread's process, and return the answer."""
        if not hasattr(self._own, "process"):
            self._own.process = self._started()
        process: subprocess.Popen[bytes] = self._own.process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process not in self._told:
                settings = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
                pickle.dump((self._source, self._size, settings), process.stdin, pickle.HIGHEST_PROTOCOL)
                self._told.add(process)
            pickle.dump(task, process.stdin)
            process.stdin.flush()
            results: list[Square] = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise DataError(self._why(process, task)) from error
        return results

    def _started(self) -> subprocess.Popen[bytes]:
        with self._starting:
            if self._closed:
                raise DataError("the reading of images has ended")
            process = subprocess.Popen(
                [sys.executable, "-c", _WORKER, str(_PACKAGE), *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # keeps Ctrl-C away on Windows
            )
            self._processes.append(process)
            return process

    def _why(self, process: subprocess.Popen[bytes], task: range) -> str:
        try:
            status = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        how = f"ended with status {status}"
        if status < 0:
            how = f"was killed by signal {-status} ({signal.strsignal(-status)})"
            how += ", perhaps for want of memory" if -status == signal.SIGKILL else ""
        return (
            f"a process that reads images {how}, at {self._source.name(task[0])} to {self._source.name(task[-1])}; the "
            "same command goes on after the last whole shard, and takes less memory with fewer workers"
        )
