"""A storage of trials, and the waiting for it.

Every call goes through `Storage.ask`. It waits while others have the file or the server is away, so that a result that
took hours to measure isn't lost to a lock of seconds. What can't be mended by waiting ends in one sentence.
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

PATIENCE = 1800.0  # seconds that a lock, a full disk or a server that is away is waited for
SECONDS_OF_A_TRY = 5.0  # that one try waits for a lock
_SECONDS_TO_A_WORD = 10.0  # of waiting, before the user is told what for
_SECONDS_BETWEEN_WORDS = 60.0
_SECONDS_BETWEEN_TRIES = 0.5

SQLITE_HEAD = b"SQLite format 3\0"  # the first bytes of an SQLite file
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class StorageError(ValueError):
    """A storage that can't be used, in one sentence that names it."""


class Storage:
    """An open storage.

    Attributes:
        name: the address without a password, as the user may read it.
        trials: Optuna's interface to it.
        lock: held while a trial changes hands. A thread that has it may take it again. SQLite needs it: without it, two
            of 40 trials went to both of two processes. A database server locks the trial's row itself.
    """

    def __init__(
        self, name: str, trials: BaseStorage, lock: AbstractContextManager[Any], place: Callable[[], str] = str
    ) -> None:
        self.name = name
        self.trials = trials
        self.lock = lock
        self._place = place

    def ask(self, call: Callable[[], _Answer], patience: float = PATIENCE) -> _Answer:
        """Return what a call of the storage returns, once nothing that passes is in its way.

        Args:
            call: what may be called again after it failed.
            patience: seconds to wait at most.

        Raises:
            StorageError, OSError: the storage fails; the message names it.
            UpdateFinishedTrialError: the trial is closed.
        """
        return asked(self.name, call, patience, self._place)


def asked(
    name: str, call: Callable[[], _Answer], patience: float = PATIENCE, place: Callable[[], str] = str
) -> _Answer:
    """Return what a call returns, as `Storage.ask` does, of a storage of this name.

    Args:
        name: how the user knows it.
        call: what may be called again after it failed.
        patience: seconds to wait at most.
        place: gives the place in it that an error is at, if that is known.
    """
    began = time.monotonic()
    next_word = began + _SECONDS_TO_A_WORD
    while True:
        try:
            return call()
        except (StorageError, UpdateFinishedTrialError, DuplicatedStudyError, MemoryError):
            raise
        except Exception as error:  # of Optuna, of SQLAlchemy, or of any driver
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
    """Return as many of a plain file's first bytes as tell an SQLite file.

    Args:
        path: the file.
        name: how the user knows it.
        expected: what it should be, in words.

    Raises:
        StorageError: no plain file.
        OSError: it can't be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise StorageError(f"{name}: got a folder, pipe or device, expected {expected} or a new name")
    with path.open("rb") as file:
        return file.read(len(SQLITE_HEAD))


def stop_if_orphaned() -> None:
    """Raise a KeyboardInterrupt in a process whose parent was killed: nobody waits for it any more."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise KeyboardInterrupt


def passing(error: Exception) -> str | None:
    """Return what is in the way if it may pass by itself; else None."""
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
    # A server's error of this class is of its state, not of what was asked: it restarts, is full or out of reach.
    if cause.connection_invalidated or isinstance(cause, OperationalError):
        return f"a server that can't be used ({_words(cause)})"
    return None


def _in_a_sentence(name: str, place: str, error: Exception, reason: str | None) -> Exception:
    """The error of a storage that can't be used, in words for its user."""
    if isinstance(error, OSError) and not isinstance(error, Timeout):
        is_other = error.filename and os.path.realpath(error.filename) != os.path.realpath(name)
        return error if is_other else OSError(error.errno, error.strerror or str(error), name)
    if reason is not None:
        return StorageError(f"{name}: got {reason}, expected to get at the trials; the same command goes on")
    return StorageError(f"{name}{place}: got {_words(error)}, expected what a study wrote; another --out starts anew")


def _words(error: Exception) -> str:
    told = _driver_error(_cause(error))
    kind = "" if isinstance(told, (DBAPIError, sqlite3.Error)) else f"{type(told).__name__}: "
    return f"{kind}{first_line(told)}"


def _driver_error(error: BaseException) -> BaseException:
    """The error of a database's driver, in SQLAlchemy's."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _cause(error: BaseException) -> BaseException:
    """SQLAlchemy's error, of which Optuna makes one that says nothing."""
    return error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
