"""Journal files of trials. The system locks them, an incomplete last line is repaired, and a damaged line is named."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from ..._console import Tolerant, say
from .storage import PATIENCE, SECONDS_OF_A_TRY, SQLITE_HEAD, Storage, StorageError, asked, head_of

_HEAD = b'{"op_code":'
_PIECE = 1 << 16
_LONGEST_LINE = 1 << 26  # bytes; the studies' own have 20,000 at most


def open_journal(given: Path) -> Storage:
    """Open a journal. It is created if it isn't there.

    Args:
        given: the path that the user named.

    Raises:
        StorageError: the file is something else, or is damaged.
        OSError: the file can't be read or written.
    """
    path = Path(os.path.realpath(given))  # one lock for all names of the file and for all working directories
    # Optuna's own lock has the ending .lock.
    lock = FileLock(f"{path}.flock", timeout=SECONDS_OF_A_TRY)
    journal: list[_Journal] = []

    def place() -> str:
        return f", line {journal[0].line}" if journal else ""

    def opened() -> BaseStorage:
        if path.exists():
            _check_journal(path, str(given))
            with lock:
                mend(path, str(given))
        path.parent.mkdir(parents=True, exist_ok=True)
        journal[:] = [_Journal(str(path), _JournalLock(path, str(given), lock))]
        return JournalStorage(journal[0])

    return Storage(str(given), asked(str(given), opened, PATIENCE, place), lock, place)


class _Journal(JournalFileBackend):
    """Optuna's journal, which also knows the number of the line that is being read."""

    line = 0

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        self.line = log_number_from + 1
        for log in super().read_logs(log_number_from):
            yield log
            self.line += 1


class _JournalLock(JournalFileOpenLock):
    """The lock of a journal. The system releases it when its process is killed. Taking it repairs a cut last line.

    Optuna's own locks are files that a killed process leaves behind. A process that finds such a file waits for 30 s
    and then breaks the lock, even if it is held.
    """

    def __init__(self, path: Path, name: str, lock: FileLock) -> None:
        super().__init__(str(path))
        self._path, self._name = path, name
        self._guard = lock
        self._left: tuple[int, int] | None = None  # the file's inode number and size after the last write

    def acquire(self) -> bool:
        self._guard.acquire()
        try:
            self._check_that_it_is_the_same()
            mend(self._path, self._name)
        except BaseException:
            self._guard.release()
            raise
        return True

    def release(self) -> None:
        with contextlib.suppress(OSError):
            found = self._path.stat()
            self._left = found.st_ino, found.st_size
        self._guard.release()

    def _check_that_it_is_the_same(self) -> None:
        """Raise a StorageError if the file was removed, replaced or cut since the last write: trial numbers would mean
        others."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            now = -1, -1
        else:
            now = found.st_ino, found.st_size
        left = self._left or now
        if now == (-1, -1) or now[0] != left[0] or now[1] < left[1]:
            got = "got a journal that was deleted, replaced or cut while the study ran, expected the same one"
            raise StorageError(f"{self._name}: {got}; the same command goes on with what is there now")


def mend(path: Path, name: str) -> None:
    """Remove the last line of a journal if a kill, a full disk or a power cut has left it incomplete, and print a note.

    Nothing is lost: no process has been told that an incomplete line was written.

    Args:
        path: the path of the journal.
        name: the journal's name as it is shown to the user.

    Raises:
        StorageError: the file isn't a journal.
        OSError: the file can't be read or written.
    """
    with path.open("r+b") as file:
        start, line = _last_line(file)
        if not line or (line.endswith(b"\n") and _is_entry(line)):
            return
        if len(line) >= _LONGEST_LINE:
            raise StorageError(f"{name}: got a last line of {len(line):,} bytes and more, expected a journal of trials")
        _check_journal(path, name)
        if _is_entry(line):  # only the newline is missing
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
        else:
            file.truncate(start)
            told = f"{name}: took out the last line, which was cut short; nothing that was finished is lost"
            say(told, Tolerant(sys.stderr))
        file.flush()
        os.fsync(file.fileno())


def _check_journal(path: Path, name: str) -> None:
    """Raise a StorageError if a file holds something else, because trials would be added to it."""
    head = head_of(path, name, "a journal of trials")
    if head == SQLITE_HEAD:
        raise StorageError(f"{name}: got an SQLite database, expected its address: --storage sqlite:///{name}")
    begins = head.replace(b" ", b"")[: len(_HEAD)]  # older versions of Optuna wrote a space after the colon
    if not _HEAD.startswith(begins):  # a part of _HEAD is an incomplete first line
        raise StorageError(f"{name}: got another kind of file, expected a journal of trials or a new name")


def _last_line(file: BinaryIO) -> tuple[int, bytes]:
    """Return the offset and the bytes of the last line, with its newline. At most about _LONGEST_LINE bytes are
    read."""
    end = file.seek(0, os.SEEK_END)
    start, line = end, b""
    while start > 0 and len(line) < _LONGEST_LINE:
        start = max(0, start - _PIECE)
        file.seek(start)
        line = file.read(min(_PIECE, end - start - len(line))) + line
        if (before := line.rfind(b"\n", 0, -1)) >= 0:
            return start + before + 1, line[before + 1 :]
    return start, line


def _is_entry(line: bytes) -> bool:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "op_code" in found
