"""A storage of trials, and the waiting for it.

Every call goes through `Storage.ask`. It waits while other processes hold the file or the server is away, so that a
short lock doesn't lose a result that took hours. Problems that waiting can't solve end in an error of one sentence.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from filelock import Timeout
from optuna.exceptions import DuplicatedStudyError, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from sqlalchemy.exc import DBAPIError, OperationalError

from ..._console import Tolerant, first_line, say

optuna.logging.set_verbosity(optuna.logging.WARNING)

_Answer = TypeVar("_Answer")

PATIENCE = 1800.0  # seconds to wait for a lock, a full disk, or a server that is away
SECONDS_OF_A_TRY = 5.0  # for which one try waits for a lock
_SECONDS_TO_A_WORD = 10.0  # of waiting, until a line tells the user the reason
_SECONDS_BETWEEN_WORDS = 60.0
_SECONDS_BETWEEN_TRIES = 0.5

SQLITE_HEAD = b"SQLite format 3\0"  # the first bytes of an SQLite file
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class StorageError(ValueError):
    """The error of a storage that can't be used. The message is one sentence that names the storage."""


class Storage:
    """An open storage.

    Attributes:
        name: the address without a password, as it is shown to the user.
        trials: Optuna's interface to the storage.
        lock: the lock that is held while a trial changes hands. A thread that has it may take it again. SQLite needs
            it: without it, two of 40 trials went to both of two processes. A database server locks the row of the trial
            itself.
    """

    def __init__(
        self, name: str, trials: BaseStorage, lock: AbstractContextManager[Any], place: Callable[[], str] = str
    ) -> None:
        self.name = name
        self.trials = trials
        self.lock = lock
        self._place = place

    def ask(self, call: Callable[[], _Answer], patience: float = PATIENCE) -> _Answer:
        """Return the result of a call to the storage. Call again after obstacles that may pass, such as another
        process's lock.

        Args:
            call: a function that may be called again after it failed.
            patience: the number of seconds to wait at most.

        Raises:
            StorageError, OSError: the storage fails. The message names it.
            UpdateFinishedTrialError: the trial is closed.
        """
        return asked(self.name, call, patience, self._place)


def asked(
    name: str, call: Callable[[], _Answer], patience: float = PATIENCE, place: Callable[[], str] = str
) -> _Answer:
    """Return the result of a call to a storage, as `Storage.ask` does.

    Args:
        name: the storage's name as it is shown to the user.
        call: a function that may be called again after it failed.
        patience: the number of seconds to wait at most.
        place: returns the place of an error in the storage, or an empty text if it isn't known.
    """
    began = time.monotonic()
    next_word = began + _SECONDS_TO_A_WORD
    while True:
        try:
            return call()
        except (StorageError, UpdateFinishedTrialError, DuplicatedStudyError, MemoryError):
            raise
        except Exception as error:  # Optuna, SQLAlchemy or any driver may have raised it
            reason = passing(error)
            now = time.monotonic()
            if reason is None or now - began >= patience:
                raise _in_a_sentence(name, place(), error, reason) from error
        if now >= next_word:
            next_word = now + _SECONDS_BETWEEN_WORDS
            say(f"{name}: got {reason}, for {now - began:.0f} s; waiting", Tolerant(sys.stderr))
        stop_if_orphaned()
        time.sleep(_SECONDS_BETWEEN_TRIES)


def head_of(path: Path, name: str, expected: str) -> bytes:
    """Return the first bytes of a plain file, as many as identify an SQLite file.

    Args:
        path: the file.
        name: the file's name as it is shown to the user.
        expected: words for the kind of file that is expected.

    Raises:
        StorageError: the path isn't a plain file.
        OSError: the file can't be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise StorageError(f"{name}: got a folder, pipe or device, expected {expected} or a new name")
    with path.open("rb") as file:
        return file.read(len(SQLITE_HEAD))


def stop_if_orphaned() -> None:
    """Raise a KeyboardInterrupt if this process's parent was killed, because nobody waits for its work any more."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise KeyboardInterrupt


def passing(error: Exception) -> str | None:
    """Return words for the obstacle that caused an error, if it may pass by itself. Otherwise return None."""
    if isinstance(error, Timeout):
        return "a lock of another process"
    if isinstance(error, OSError):
        return "a full disk" if error.errno in _NO_ROOM else None
    cause = _cause(error)
    told = _driver_error(cause)
    if isinstance(told, sqlite3.Error):
        words = str(told)
        if "is locked" in words:
            return "a lock of another process"
        return "a full disk" if "disk is full" in words else None
    if not isinstance(cause, DBAPIError):
        return None
    # An OperationalError tells of the server's state, not of the query: it restarts, is full or can't be reached.
    if cause.connection_invalidated or isinstance(cause, OperationalError):
        return f"a server that can't be used ({_words(cause)})"
    return None


def _in_a_sentence(name: str, place: str, error: Exception, reason: str | None) -> Exception:
    """Return the error that tells the user in one sentence why a storage can't be used."""
    if isinstance(error, OSError) and not isinstance(error, Timeout):
        is_other = error.filename and os.path.realpath(error.filename) != os.path.realpath(name)
        return error if is_other else OSError(error.errno, error.strerror or str(error), name)
    if reason is not None:
        return StorageError(f"{name}: got {reason}, expected access to the trials; the same command goes on")
    return StorageError(
        f"{name}{place}: got {_words(error)}, expected what a study wrote; another --out starts a new study"
    )


def _words(error: Exception) -> str:
    told = _driver_error(_cause(error))
    kind = "" if isinstance(told, (DBAPIError, sqlite3.Error)) else f"{type(told).__name__}: "
    return f"{kind}{first_line(told)}"


def _driver_error(error: BaseException) -> BaseException:
    """Return the error of the database driver inside SQLAlchemy's error, or the error itself if there is none."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _cause(error: BaseException) -> BaseException:
    """Return SQLAlchemy's error behind Optuna's StorageInternalError, which says nothing itself, or the error
    itself."""
    return error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
