"""A file, row or address that belongs to something else is named in one sentence, and isn't changed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ebgan_fast.studies.framework.storage import StorageError

from . import postgresql
from .storages import refusal
from .test_queue import end, opened, taken


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _sqlite_of_others(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE bookmarks (address TEXT)")
        database.commit()


def _sqlite_that_lost_a_table(path: Path) -> None:
    opened(f"sqlite:///{path}", 1)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE trials")
        database.commit()


OTHERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("margins of the sweep\n"),
    "text without an end": lambda path: path.write_text("margins"),
    "a line of nothing": lambda path: path.write_text("\n"),
    "zeros": lambda path: path.write_bytes(bytes(100)),
    "a folder": lambda path: path.mkdir(),
    "a pipe": _pipe,
    "a loop": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
@pytest.mark.parametrize("other", OTHERS)
def test_a_file_of_something_else_is_named_and_stays(tmp_path: Path, kind: str, other: str) -> None:
    path = tmp_path / "trials"
    OTHERS[other](path)
    before = path.read_bytes() if path.is_file() else None
    assert str(path) in refusal(str(path) if kind == "journal" else f"sqlite:///{path}")
    assert before is None or path.read_bytes() == before


def test_an_sqlite_file_as_a_journal_says_its_address(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    opened(f"sqlite:///{path}", 1)
    assert f"--storage sqlite:///{path}" in refusal(str(path))


@pytest.mark.parametrize("make", [_sqlite_of_others, _sqlite_that_lost_a_table])
def test_a_database_of_something_else_gets_no_tables(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "other.db"
    make(path)
    before = path.read_bytes()
    assert "got a database without the tables of trials" in refusal(f"sqlite:///{path}")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("sqlite:t.db", "storage: got the address sqlite:t.db, expected sqlite:///t.db"),
        ("sqlite:/t.db", "storage: got the address sqlite:/t.db, expected sqlite:///t.db"),
        ("postgresql:name", "got the address postgresql:name, expected one such as postgresql://user@host/name"),
        (
            "postgres://me:secret@host/a",
            "got the address postgres://me:***@host/a, expected postgresql://me:***@host/a",
        ),
        ("sqlite://", "got the address sqlite://, expected that of a file, such as sqlite:///trials.db"),
        ("sqlite:///:memory:", "got the address sqlite:///:memory:, expected that of a file"),
        ("sqlite:////nowhere/at/all.db", "got the folder /nowhere/at, which isn't there, expected one that is"),
        ("tables://host/name", "tables://host/name: got the database tables, expected one of sqlite, postgresql"),
        ("postgresql://me:secret@host:port/a", "got the address postgresql://me:***@host:port/a, expected one such as"),
        ("mysql+notadriver://host/a", "mysql+notadriver://host/a: got the database mysql+notadriver, expected one of"),
        ("mysql+oursql://me:secret@host/a", "mysql+oursql://me:***@host/a: got"),
    ],
)
def test_an_address_that_leads_nowhere_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = refusal(address)
    assert told in found
    assert "secret" not in found
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("scheme", "module", "package"),
    [
        ("postgresql+psycopg", "psycopg", "'psycopg[binary]'"),
        ("postgresql+psycopg2", "psycopg2", "psycopg2-binary"),
        ("mysql+pymysql", "pymysql", "pymysql"),
        ("mysql+mysqldb", "MySQLdb", "mysqlclient"),
    ],
)
def test_a_driver_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    told = refusal(f"{scheme}://me:secret@host/name")
    assert told.startswith(f"{scheme}://me:***@host/name: got no driver")
    assert told.endswith(f"expected one: pip install {package}")


@pytest.mark.skipif(postgresql.missing() is not None, reason=str(postgresql.missing()))
def test_a_server_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    told = refusal(f"postgresql+psycopg://me@/name?host={tmp_path}")
    assert "a server that can't be used" in told
    assert time.monotonic() - began < 30


def _change(path: Path, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute(statement, values).rowcount >= 1
        database.commit()


@pytest.mark.parametrize("value", ["{", "[1]", "1", '"text"', "[" * 100_000, "null,", '{"a": 1}', '{"\\u001b[31m": 1}'])
def test_odd_settings_in_a_row_are_named(tmp_path: Path, value: str) -> None:
    path = tmp_path / "trials.db"
    opened(f"sqlite:///{path}", 1)
    _change(path, "UPDATE study_user_attributes SET value_json = ? WHERE key = 'settings'", value)
    assert f"sqlite:///{path}" in refusal(f"sqlite:///{path}")


@pytest.mark.parametrize("value", ["{", "[1]", "1", "null", "[" * 100_000])
def test_odd_results_in_a_row_are_named(tmp_path: Path, value: str) -> None:
    path = tmp_path / "trials.db"
    queue = opened(f"sqlite:///{path}", 1)
    end(taken(queue), 1)
    _change(path, "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'result'", value)
    with pytest.raises(StorageError, match=str(path)):
        opened(f"sqlite:///{path}", 1).done()


@pytest.mark.parametrize("value", ["1", "[]", "{}", '{"pid": [], "token": 1}', '{"host": 1, "kernel": {}}'])
def test_an_odd_owner_is_judged_by_its_signs(tmp_path: Path, value: str) -> None:
    path = tmp_path / "trials.db"
    queue = opened(f"sqlite:///{path}", 1)
    taken(queue)
    _change(path, "UPDATE trial_user_attributes SET value_json = ? WHERE key LIKE 'owner%'", value)
    looker = opened(f"sqlite:///{path}", 1)
    assert (looker.bury(), looker.unsure()) == (0, 1)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@host/db",
        "postgresql://me@server:secret@host/db",
        "postgresql://me:se@secret@host/db",
        "postgresql://host/db?user=me&password=secret&sslmode=off",
        "postgresql+psycopg://me:secret@/db?host=nowhere&sslpassword=secret",
        "postgresql:/me:secret@host/db",
        "postgresql:me:secret@host/db",
        "postgresql//me:secret@host/db",
        "psql:/me:secret@host/db",
        "postgres://me@corp:secret@host/db",
        "postgres://host/db?passwd=secret",
        "mysql://me:secret:more@host/db",
        "nothing://me:secret@host:port/db",
        "me:secret@host",
    ],
)
def test_no_password_is_told_or_made_a_file_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "secret" not in refusal(address)
    assert not list(tmp_path.iterdir())
    assert "secret" not in "".join(capfd.readouterr())


def test_an_address_with_a_zero_is_refused() -> None:
    assert "storage: got the address" in refusal("a\0b")


def test_tables_that_were_made_in_part_are_made_whole(tmp_path: Path) -> None:
    """The process that creates the tables may be killed between two of them: SQLite writes each by itself."""
    whole = tmp_path / "whole.db"
    opened(f"sqlite:///{whole}", 1)
    with contextlib.closing(sqlite3.connect(whole)) as database:
        found = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
    assert len(found) >= 10
    for made in range(len(found) + 1):
        path = tmp_path / f"{made}.db"
        with contextlib.closing(sqlite3.connect(path)) as database:
            for (statement,) in found[:made]:
                database.execute(statement)
            database.commit()
        queue = opened(f"sqlite:///{path}", 1)
        end(taken(queue), 1)
        assert len(opened(f"sqlite:///{path}", 1).done()) == 1, made
