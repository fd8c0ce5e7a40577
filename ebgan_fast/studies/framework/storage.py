"""Storages of trials: a journal file, an SQLite file or a database server, opened, locked and waited for.

Every call goes through `Storage.ask`. It waits while others have the file or the server is away, so that a result that
took hours to measure isn't lost to a lock of seconds. What can't be mended by waiting ends in one sentence.
"""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import re
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import DuplicatedStudyError, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
)

from ..._console import Tolerant, first_line, printable, say

optuna.logging.set_verbosity(optuna.logging.WARNING)

_Answer = TypeVar("_Answer")

PATIENCE = 1800.0  # seconds that a lock, a full disk or a server that is away is waited for
_SECONDS_TO_A_WORD = 10.0  # of waiting, before the user is told what for
_SECONDS_BETWEEN_WORDS = 60.0
_SECONDS_BETWEEN_TRIES = 0.5
_SECONDS_OF_A_TRY = 5.0  # that one try waits for a lock
_TIMES_TO_MAKE_TABLES = 5  # processes that make a database's tables at once get in each other's way

_SCHEMES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "oracle", "mssql")
_PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # of drivers
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_SQLITE_HEAD = b"SQLite format 3\0"
_TABLES = ("studies", "study_", "trials", "trial_", "version_info", "alembic_version")  # beginnings of Optuna's
_JOURNAL_HEAD = b'{"op_code":'
_PIECE = 1 << 16
_LONGEST_LINE = 1 << 26  # bytes; the studies' own have 20,000 at most


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
        return _asked(self.name, call, patience, self._place)


def open_storage(address: str) -> Storage:
    """Open a storage, or make it if there is none.

    Args:
        address: of a database, such as sqlite:///grid.db, or the path of a journal file.

    Raises:
        StorageError: it is something else, or can't be read.
        OSError: a file can't be read or written.
    """
    if "\0" in address:
        raise StorageError(f"storage: got the address {_shown(address)}, expected one without a zero")
    scheme = (re.match(r"([a-z0-9]+)(?:\+\w+)?:", address) or ("", ""))[1]
    if "://" not in address:
        if ":" in address.rpartition("@")[0]:  # a user and a password
            expected = "one such as postgresql://user@host/name"
            raise StorageError(f"storage: got the address {_shown(address)}, expected {expected}")
        if scheme in _SCHEMES:
            file = address.partition(":")[2].lstrip("/")
            expected = f"sqlite:///{file}" if scheme == "sqlite" else "one such as postgresql://user@host/name"
            raise StorageError(f"storage: got the address {_shown(address)}, expected {expected}")
        return _journal(Path(address))
    if scheme == "postgres":
        expected = f"postgresql{address.removeprefix('postgres')}"
        raise StorageError(f"storage: got the address {_shown(address)}, expected {_shown(expected)}")
    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
        example = "sqlite:///trials.db or postgresql://user@host/name"
        raise StorageError(f"storage: got the address {_shown(address)}, expected one such as {example}") from error
    if "@" in (url.host or ""):
        raise StorageError(f"storage: got the address {_shown(address)}, expected an @ of a password as %40")
    return (_sqlite if url.get_backend_name() == "sqlite" else _server)(_shown(address), url)


def _shown(address: str) -> str:
    """The address without passwords, whatever is wrong with it."""
    before, at, after = address.rpartition("@")
    if at:
        found = re.fullmatch(r"(\w+(?:\+\w+)?://[^:@/]*)(:[^@/]*)?", before)
        known = f"{found[1]}:***" if found and found[2] else found[1] if found else f"{before.partition(':')[0]}://***"
        address = f"{known}@{after}"
    return printable(re.sub(r"(?i)(?<=[?&])([^=&]*(?:pass|pwd|secret|token)[^=&]*)=[^&]*", r"\1=***", address))


# Waiting.


def _asked(name: str, call: Callable[[], _Answer], patience: float, place: Callable[[], str] = str) -> _Answer:
    began = time.monotonic()
    next_word = began + _SECONDS_TO_A_WORD
    while True:
        try:
            return call()
        except (StorageError, UpdateFinishedTrialError, DuplicatedStudyError, MemoryError):
            raise
        except Exception as error:  # of Optuna, of SQLAlchemy, or of any driver
            reason = _passing(error)
            now = time.monotonic()
            if reason is None or now - began >= patience:
                raise _in_a_sentence(name, place(), error, reason) from error
        if now >= next_word:
            next_word = now + _SECONDS_BETWEEN_WORDS
            say(f"{name}: got {reason}, for {now - began:.0f} s; waiting", Tolerant(sys.stderr))
        stop_if_orphaned()
        time.sleep(_SECONDS_BETWEEN_TRIES)


def stop_if_orphaned() -> None:
    """Raise a KeyboardInterrupt in a process whose parent was killed: nobody waits for it any more."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise KeyboardInterrupt


def _passing(error: Exception) -> str | None:
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


# Journal files.


class _Journal(JournalFileBackend):
    """Optuna's journal, which knows the line that it is at."""

    line = 0

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        self.line = log_number_from + 1
        for log in super().read_logs(log_number_from):
            yield log
            self.line += 1


class _JournalLock(JournalFileOpenLock):
    """A lock that the system takes from a process that is killed, under which a journal that was cut is mended.

    Optuna's own are files that stay behind: whoever finds one waits for 30 s, and then breaks it, held or not.
    """

    def __init__(self, path: Path, name: str, lock: FileLock) -> None:
        super().__init__(str(path))
        self._path, self._name = path, name
        self._guard = lock
        self._left: tuple[int, int] | None = None  # the file's number and its size after the last write

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
        """Raise a StorageError where the file was taken away, replaced or cut since: numbers of trials mean others."""
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


def _journal(given: Path) -> Storage:
    path = Path(os.path.realpath(given))  # one lock, whatever the file is called and wherever the process goes
    # Optuna's own lock has the ending .lock.
    lock = FileLock(f"{path}.flock", timeout=_SECONDS_OF_A_TRY)
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

    return Storage(str(given), _asked(str(given), opened, PATIENCE, place), lock, place)


def mend(path: Path, name: str) -> None:
    """Take the last line out of a journal if a kill, a full disk or a power cut has cut it short, and say so.

    Nothing is lost by it: a line that isn't whole is one that nobody was told of as written.

    Args:
        path: of the journal.
        name: how the user knows it.

    Raises:
        StorageError: no journal.
        OSError: it can't be read or written.
    """
    with path.open("r+b") as file:
        start, line = _last_line(file)
        if not line or (line.endswith(b"\n") and _is_entry(line)):
            return
        if len(line) >= _LONGEST_LINE:
            raise StorageError(f"{name}: got a last line of {len(line):,} bytes and more, expected a journal of trials")
        _check_journal(path, name)
        if _is_entry(line):  # all but its end is there
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
        else:
            file.truncate(start)
            told = f"{name}: took out the last line, which was cut short; nothing that was finished is lost"
            say(told, Tolerant(sys.stderr))
        file.flush()
        os.fsync(file.fileno())


def _check_journal(path: Path, name: str) -> None:
    """Raise a StorageError for a file of something else, to which trials would be added."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise StorageError(f"{name}: got a folder, pipe or device, expected a journal of trials or a new name")
    with path.open("rb") as file:
        head = file.read(len(_SQLITE_HEAD))
    if head == _SQLITE_HEAD:
        raise StorageError(f"{name}: got an SQLite database, expected its address: --storage sqlite:///{name}")
    begins = head.replace(b" ", b"")[: len(_JOURNAL_HEAD)]  # Optuna's older versions wrote a space between
    if not _JOURNAL_HEAD.startswith(begins):  # the beginning of one is a first line that was cut
        raise StorageError(f"{name}: got a file of something else, expected a journal of trials or a new name")


def _last_line(file: BinaryIO) -> tuple[int, bytes]:
    """Return the offset and the bytes of the last line with its newline. Reading stops at _LONGEST_LINE bytes."""
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


# Databases.


def _sqlite(name: str, url: URL) -> Storage:
    if url.database in (None, "", ":memory:") or url.query:
        raise StorageError(f"storage: got the address {name}, expected that of a file, such as sqlite:///trials.db")
    given = Path(str(url.database))
    path = Path(os.path.realpath(given))  # one lock, whatever the file is called
    lock = FileLock(f"{path}.lock", timeout=_SECONDS_OF_A_TRY)
    address = url.set(database=str(path)).render_as_string(hide_password=False)

    def opened() -> BaseStorage:
        if not path.parent.is_dir():
            raise StorageError(f"{name}: got the folder {given.parent}, which isn't there, expected one that is")
        if path.exists():
            _check_sqlite(path, str(given))
        with lock:
            if path.exists():
                _take_out(path, _own_tables(path, str(given)))
            return RDBStorage(address, {"connect_args": {"timeout": _SECONDS_OF_A_TRY}})

    return Storage(name, _asked(name, opened, PATIENCE), lock)


def _check_sqlite(path: Path, name: str) -> None:
    """Raise a StorageError for a file of something else, to which tables of trials would be added."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise StorageError(f"{name}: got a folder, pipe or device, expected an SQLite database or a new name")
    with path.open("rb") as file:
        head = file.read(len(_SQLITE_HEAD))
    if head not in (b"", _SQLITE_HEAD):
        raise StorageError(f"{name}: got a file of something else, expected an SQLite database or a new name")
    _own_tables(path, name)


def _own_tables(path: Path, name: str) -> list[str]:
    """Return the tables of a database whose making was cut short, all empty; none if it is whole or new.

    SQLite keeps each table by itself, and the version, which comes last, shows that all are there. Some may lack an
    index, so that a process which finds them makes all anew.

    Raises:
        StorageError: a database of something else, or one that has lost tables.
    """
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", _SECONDS_OF_A_TRY, uri=True)
    with contextlib.closing(database):
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        tables = [str(table) for (table,) in found]
        filled = {
            table for table in tables if database.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is not None
        }
    if "version_info" in filled and {"studies", "trials"} <= set(tables):
        return []
    if not filled and all(table.startswith(_TABLES) for table in tables):
        return tables
    raise StorageError(f"{name}: got a database of something else, expected one of trials or a new name")


def _take_out(path: Path, tables: Sequence[str]) -> None:
    with contextlib.closing(sqlite3.connect(path, _SECONDS_OF_A_TRY)) as database:
        for table in tables:
            database.execute(f'DROP TABLE "{table}"')
        database.commit()


def _server(name: str, url: URL) -> Storage:
    address = url.render_as_string(hide_password=False)

    def opened() -> BaseStorage:
        for number in range(1, _TIMES_TO_MAKE_TABLES + 1):
            try:
                return RDBStorage(address, {"pool_pre_ping": True})
            except ImportError as error:
                raise StorageError(f"{name}: {_missing_driver(error)}") from error
            except NoSuchModuleError as error:
                kinds = "sqlite, postgresql and mysql"
                raise StorageError(f"{name}: got the database {url.drivername}, expected one of {kinds}") from error
            except DBAPIError as error:
                if (reason := _passing(error)) is not None:
                    way_out = "start it, or correct the address"
                    raise StorageError(f"{name}: got {reason}, expected one that answers; {way_out}") from error
                if not isinstance(error, (IntegrityError, ProgrammingError)) or number == _TIMES_TO_MAKE_TABLES:
                    raise
                time.sleep(_SECONDS_BETWEEN_TRIES)  # another process has just made the same tables
        raise AssertionError("the loop returns or raises")

    # A server that isn't there is a mistake in the address; one that goes away later is waited for.
    return Storage(name, _asked(name, opened, 0.0), nullcontext())


def _missing_driver(error: ImportError) -> str:
    """Say what to install for a database."""
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    module = (cause.name or "").partition(".")[0]
    return f"got no driver ({first_line(cause)}), expected one: pip install {_PACKAGES.get(module, module)}"
