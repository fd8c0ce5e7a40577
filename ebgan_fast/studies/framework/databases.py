"""Databases of trials: SQLite files and servers."""

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

_TABLES = ("studies", "study_", "trials", "trial_", "version_info", "alembic_version")  # Optuna's names begin so
_TIMES_TO_MAKE_TABLES = 5  # tries: processes that create a server's tables at the same time make each other fail
_SECONDS_BETWEEN_TIMES = 0.5
_PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # by module


def open_sqlite(name: str, url: URL) -> Storage:
    """Open an SQLite file. It is created if it isn't there.

    Args:
        name: the file's address as it is shown to the user.
        url: the file's address.

    Raises:
        StorageError: the file is something else, or is damaged.
        OSError: the file can't be read or written.
    """
    if url.database in (None, "", ":memory:") or url.query:
        raise StorageError(f"storage: got the address {name}, expected that of a file, such as sqlite:///trials.db")
    given = Path(str(url.database))
    path = Path(os.path.realpath(given))  # so that all names of the file lead to the same lock
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
    """Raise a StorageError if a file holds something else, because tables of trials would be added to it."""
    head = head_of(path, name, "an SQLite database")
    if head not in (b"", SQLITE_HEAD):
        raise StorageError(f"{name}: got another kind of file, expected an SQLite database or a new name")
    _own_tables(path, name)


def _own_tables(path: Path, name: str) -> list[str]:
    """Return the tables of an incomplete database, all of them empty. Return none if the database is complete or new.

    SQLite writes each table by itself. The version is written last, so it shows that all tables are there. An
    incomplete database may also lack an index, so the process that finds it creates all tables again.

    Raises:
        StorageError: the database holds something else, or has lost tables.
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
    raise StorageError(
        f"{name}: got a database without the tables of trials, expected one that has them, or a new name"
    )


def _take_out(path: Path, tables: Sequence[str]) -> None:
    with contextlib.closing(sqlite3.connect(path, SECONDS_OF_A_TRY)) as database:
        for table in tables:
            database.execute(f'DROP TABLE "{table}"')
        database.commit()


def open_server(name: str, url: URL) -> Storage:
    """Open a database on a server. Its tables are created if there are none.

    Args:
        name: the address as it is shown to the user, without a password.
        url: the address.

    Raises:
        StorageError: the server doesn't answer, or its driver is missing.
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
                time.sleep(_SECONDS_BETWEEN_TIMES)  # another process has just created the same tables
        raise AssertionError("the loop returns or raises")

    # Don't wait for a server that isn't there at the start: the address may be wrong. Wait for it in later calls.
    return Storage(name, asked(name, opened, 0.0), nullcontext())


def _missing_driver(error: ImportError) -> str:
    """Return a sentence that says which package to install for a database."""
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    module = (cause.name or "").partition(".")[0]
    return f"got no driver ({first_line(cause)}), expected one: pip install {_PACKAGES.get(module, module)}"
