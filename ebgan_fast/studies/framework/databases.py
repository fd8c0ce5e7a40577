"""Databases of trials: an SQLite file or a server."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from filelock import FileLock
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, NoSuchModuleError, ProgrammingError

from ..._console import first_line
from .storage import PATIENCE, SECONDS_OF_A_TRY, SQLITE_HEAD, Storage, StorageError, asked, head_of, passing

_TABLES = ("studies", "study_", "trials", "trial_", "version_info", "alembic_version")  # beginnings of Optuna's
_TIMES_TO_MAKE_TABLES = 5  # processes that make a server's tables at once get in each other's way
_SECONDS_BETWEEN_TIMES = 0.5
_PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # of drivers


def open_sqlite(name: str, url: URL) -> Storage:
    """Open an SQLite file, or make it if there is none.

    Args:
        name: its address as the user may read it.
        url: its address.

    Raises:
        StorageError: it is something else, or damaged.
        OSError: it can't be read or written.
    """
    if url.database in (None, "", ":memory:") or url.query:
        raise StorageError(f"storage: got the address {name}, expected that of a file, such as sqlite:///trials.db")
    given = Path(str(url.database))
    path = Path(os.path.realpath(given))  # one lock, whatever the file is called
    lock = FileLock(f"{path}.lock", timeout=SECONDS_OF_A_TRY)
    address = url.set(database=str(path)).render_as_string(hide_password=False)

    def opened() -> BaseStorage:
        if not path.parent.is_dir():
            raise StorageError(f"{name}: got the folder {given.parent}, which isn't there, expected one that is")
        if path.exists():
            _check_sqlite(path, str(given))
        with lock:
            if path.exists():
                _take_out(path, _own_tables(path, str(given)))
            return RDBStorage(address, {"connect_args": {"timeout": SECONDS_OF_A_TRY}})

    return Storage(name, asked(name, opened, PATIENCE), lock)


def _check_sqlite(path: Path, name: str) -> None:
    """Raise a StorageError for a file of something else, to which tables of trials would be added."""
    head = head_of(path, name, "an SQLite database")
    if head not in (b"", SQLITE_HEAD):
        raise StorageError(f"{name}: got a file of something else, expected an SQLite database or a new name")
    _own_tables(path, name)


def _own_tables(path: Path, name: str) -> list[str]:
    """Return the tables of a database whose making was cut short, all empty; none if it is whole or new.

    SQLite keeps each table by itself, and the version, which comes last, shows that all are there. Some may lack an
    index, so that a process which finds them makes all anew.

    Raises:
        StorageError: a database of something else, or one that has lost tables.
    """
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", SECONDS_OF_A_TRY, uri=True)
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
    with contextlib.closing(sqlite3.connect(path, SECONDS_OF_A_TRY)) as database:
        for table in tables:
            database.execute(f'DROP TABLE "{table}"')
        database.commit()


def open_server(name: str, url: URL) -> Storage:
    """Open a server's database, and make its tables if there are none.

    Args:
        name: its address without a password.
        url: its address.

    Raises:
        StorageError: it doesn't answer, or its driver is missing.
    """
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
                if (reason := passing(error)) is not None:
                    way_out = "start it, or correct the address"
                    raise StorageError(f"{name}: got {reason}, expected one that answers; {way_out}") from error
                if not isinstance(error, (IntegrityError, ProgrammingError)) or number == _TIMES_TO_MAKE_TABLES:
                    raise
                time.sleep(_SECONDS_BETWEEN_TIMES)  # another process has just made the same tables
        raise AssertionError("the loop returns or raises")

    # A server that isn't there is a mistake in the address; one that goes away later is waited for.
    return Storage(name, asked(name, opened, 0.0), nullcontext())


def _missing_driver(error: ImportError) -> str:
    """Say what to install for a database."""
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    module = (cause.name or "").partition(".")[0]
    return f"got no driver ({first_line(cause)}), expected one: pip install {_PACKAGES.get(module, module)}"
