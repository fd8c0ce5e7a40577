"""Storages that are cut, locked, away, or something else: mended, waited for, or named in one sentence."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ebgan_fast.studies.framework import databases, journal
from ebgan_fast.studies.framework import queue as queues
from ebgan_fast.studies.framework import storage as storages
from ebgan_fast.studies.framework.addresses import open_storage
from ebgan_fast.studies.framework.queue import Claim, TrialQueue
from ebgan_fast.studies.framework.storage import Storage, StorageError

from . import postgresql
from .counting import done, job
from .test_queue import end, opened, results, taken


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries and words that come after hundredths of a second."""
    for module in (journal, databases):
        monkeypatch.setattr(module, "SECONDS_OF_A_TRY", 0.05)
    monkeypatch.setattr(storages, "_SECONDS_BETWEEN_TRIES", 0.02)
    monkeypatch.setattr(storages, "_SECONDS_TO_A_WORD", 0.1)


def refusal(address: str) -> str:
    """The one sentence about a storage that can't be used."""
    with pytest.raises((StorageError, OSError)) as raised:
        opened(address, 1)
    told = str(raised.value)
    assert len(told.splitlines()) == 1
    assert len(told) < 500
    assert told.isprintable()
    return told


# Journals that were cut.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal of which the last line closes the second of two trials."""
    path = tmp_path_factory.mktemp("whole") / "journal.log"
    queue = opened(str(path), 1, 2)
    for number in (1, 2):
        end(taken(queue), number)
    return path.read_bytes()


def test_a_journal_may_be_cut_anywhere_in_its_last_line(
    tmp_path: Path, whole: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its note is made anew: the second trial was measured, which the line before says."""
    start = whole.rindex(b"\n", 0, -1) + 1
    for length in range(start + 1, len(whole)):
        path = tmp_path / "journal.log"
        path.write_bytes(whole[:length])
        queue = opened(str(path), 1, 2)
        told = capsys.readouterr().err
        kept = length == len(whole) - 1  # all but its end was there
        assert told.count("\n") == (not kept), length
        assert kept or (str(path) in told and "cut short" in told)
        assert queue.done()[0].result == {"found": 1}
        queue.bury()
        assert results(queue) == [({"number": number}, {"found": number}) for number in (1, 2)], length
        assert path.read_bytes().endswith(b"\n")
        assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_journal_may_be_cut_in_its_first_line(tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_SECONDS_TO_SETTINGS", 0.1)
    for length in (*range(0, whole.index(b"\n"), 9), whole.index(b"\n")):
        path = tmp_path / f"{length}.log"
        path.write_bytes(whole[:length])
        queue = opened(str(path), 1)
        end(taken(queue), 1)
        assert len(opened(str(path), 1).done()) == 1


@pytest.mark.parametrize(
    "tail", [bytes(700), b'{"op_code":8,"worker_id":"a{"op_code":8,"worker_id":"b"}\n', b'{"op_code":8,"t\0\0\0']
)
def test_a_journal_whose_end_is_no_line_is_mended(
    tmp_path: Path, whole: bytes, tail: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """A power cut leaves zeros, and earlier versions went on in the line that was cut."""
    path = tmp_path / "journal.log"
    path.write_bytes(whole + tail)
    assert len(opened(str(path), 1, 2).done()) == 2
    assert "took out the last line" in capsys.readouterr().err
    assert path.read_bytes().startswith(whole)
    assert tail not in path.read_bytes()


def test_a_journal_that_is_cut_while_it_is_open_is_mended_at_the_next_write(tmp_path: Path) -> None:
    """By another process, which was killed."""
    path = tmp_path / "journal.log"
    queue = opened(str(path), 1)
    claim = taken(queue)
    with path.open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"an')
    end(claim, 1)
    assert len(opened(str(path), 1).done()) == 1


@pytest.mark.parametrize("line", [1, 3])
@pytest.mark.parametrize(
    "damage",
    [
        b'{"op_code":4}',
        b'{"op_code":99,"worker_id":"a"}',
        b'{"op_code":"a"}',
        b"[1]",
        b"1",
        b'{"op_code":8,"worker_id":"a"}',
        b'{"op_code":' + b"[" * 100_000,
        b'{"op_code":8,"worker_id":"an',
        b"\xff\xfe",
        bytes(40),
        b"",
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, whole: bytes, damage: bytes, line: int) -> None:
    path = tmp_path / "journal.log"
    lines = whole.split(b"\n")
    lines[line - 1] = damage
    path.write_bytes(b"\n".join(lines))
    told = refusal(str(path))
    assert str(path) in told
    if damage.startswith(b'{"op_code":') or line > 1:
        assert f"line {line}:" in told
    else:
        assert "file of something else" in told
    assert path.read_bytes() == b"\n".join(lines)


# Files and addresses of something else.


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
    assert "got a database of something else" in refusal(f"sqlite:///{path}")
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
    """By a process that was killed between two of them: SQLite keeps each by itself."""
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


@pytest.mark.parametrize(
    ("op_code", "change"),
    [(8, {"user_attr": {"measured": {"seconds": 10**400}}}), (8, {"user_attr": {"measured": {"seconds": 1e999}}})],
)
def test_odd_seconds_in_a_journal_are_left_out(
    tmp_path: Path, whole: bytes, op_code: int, change: dict[str, Any]
) -> None:
    path = tmp_path / "journal.log"
    lines = [json.loads(line) for line in whole.splitlines()]
    for line in lines:
        if line["op_code"] == op_code and "measured" in line.get("user_attr", {}):
            line.update(change)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert all(0 <= one.seconds < 1000 for one in opened(str(path), 1, 2).done())


def test_odd_notes_in_a_journal_are_named(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(whole.replace(b'"user_attrs":{}', b'"user_attrs":[]', 1))
    assert str(path) in refusal(str(path))


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    os.truncate(path, 0)


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _replace(path: Path) -> None:
    other = path.with_name("other.log")
    opened(str(other), 5, 6, 7, 8, 9, 10)
    other.replace(path)


def _overwrite(path: Path) -> None:
    """In the same file, and longer."""
    path.write_bytes(b"margins\n" * path.stat().st_size)


@pytest.mark.parametrize("change", [_delete, _truncate, _halve, _replace, _overwrite])
def test_a_journal_that_is_replaced_while_a_study_runs_is_named(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Nothing is added to what is there, and its lock is free."""
    path = tmp_path / "journal.log"
    queue = opened(str(path), 1, 2)
    claim = taken(queue)
    change(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(StorageError, match=str(path)):
        end(claim, 1)
    claim._pulse.stop()
    assert (path.read_bytes() if path.exists() else None) == before
    with held(_lock_of(str(path)), 0):
        pass


# Locks, full disks, servers that are away.


def test_a_journal_is_one_file_wherever_a_process_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to it is the same journal under the same lock."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "link.log").symlink_to("journal.log")
    queue = opened("journal.log", 1)
    monkeypatch.chdir(tmp_path / "other")
    end(taken(queue), 1)
    assert not list((tmp_path / "other").iterdir())
    assert len(opened(str(tmp_path / "link.log"), 1).done()) == 1
    assert sorted(path.name for path in tmp_path.glob("*.flock")) == ["journal.log.flock"]


def test_the_lock_that_an_earlier_version_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """Optuna's own: a link, which dangles where the journal's path was relative."""
    (tmp_path / "journal.log.lock").symlink_to("runs/grid/journal.log")
    assert len(done(job(tmp_path, str(tmp_path / "journal.log"), 1))) == 1


_HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextlib.contextmanager
def held(lock: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A process that has a lock."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, lock, str(seconds)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def _lock_of(storage: str) -> Path:
    return Path(f"{storage.removeprefix('sqlite:///')}{'.lock' if '://' in storage else '.flock'}")


@pytest.fixture(params=["journal", "sqlite"])
def file_storage(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return str(tmp_path / "journal.log") if request.param == "journal" else f"sqlite:///{tmp_path / 'trials.db'}"


@pytest.mark.usefixtures("quick")
def test_the_lock_of_a_process_that_was_killed_is_free(file_storage: str) -> None:
    queue = opened(file_storage, 1)
    with held(_lock_of(file_storage), 1000) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        end(taken(queue), 1)
        assert time.monotonic() - began < 10
    assert len(queue.done()) == 1


@pytest.mark.usefixtures("quick")
def test_a_lock_of_another_process_is_waited_for(file_storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    queue = opened(file_storage, 1)
    claim = taken(queue)
    with held(_lock_of(file_storage), 0.5):
        end(claim, 1)
        assert len(opened(file_storage, 1).done()) == 1
    told = capsys.readouterr().err.splitlines()
    assert told
    assert all("got a lock of another process, for 0 s; waiting" in line for line in told)


OPERATIONS: dict[str, Callable[[TrialQueue, Claim], object]] = {
    "fill": lambda queue, claim: queue.fill(),
    "take": lambda queue, claim: queue._take(1),
    "close": lambda queue, claim: queue.close(claim._id, "closed"),
    "complete": lambda queue, claim: queue._complete(claim._id, 0.0),
    "sign": lambda queue, claim: queue.sign(claim._id, 1),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_who_does_what_changes_under_the_lock_alone(
    file_storage: str, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has none of its own that holds from the look at a trial to its change."""
    queue = opened(file_storage, 1, 2)
    claim = taken(queue)
    with held(_lock_of(file_storage), 1000):
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        monkeypatch.setattr(Storage.ask, "__defaults__", (0.0,))
        monkeypatch.setattr(TrialQueue.note, "__defaults__", (0.0,))
        monkeypatch.setattr(TrialQueue.close, "__defaults__", (0.0,))
        with pytest.raises(StorageError, match="a lock of another process"):
            OPERATIONS[operation](queue, claim)


@pytest.mark.usefixtures("quick")
def test_a_sign_of_life_waits_for_nothing(file_storage: str) -> None:
    queue = opened(file_storage, 1)
    claim = taken(queue)
    with held(_lock_of(file_storage), 1000):
        began = time.monotonic()
        with pytest.raises(StorageError, match="a lock of another process"):
            queue.sign(claim._id, 1)
        assert time.monotonic() - began < 5


def test_an_sqlite_file_is_one_wherever_a_process_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    queue = opened("sqlite:///trials.db", 1)
    monkeypatch.chdir(tmp_path / "other")
    end(taken(queue), 1)
    assert not list((tmp_path / "other").iterdir())
    assert len(opened(f"sqlite:///{tmp_path}/link/trials.db", 1).done()) == 1
    assert [path.name for path in tmp_path.glob("*.lock")] == ["trials.db.lock"]


@pytest.mark.usefixtures("quick")
def test_a_lock_that_is_never_given_up_ends_in_a_sentence(file_storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(file_storage, 1)
    with held(_lock_of(file_storage), 1000):
        for module in (journal, databases):
            monkeypatch.setattr(module, "PATIENCE", 0.3)
        told = refusal(file_storage)
    assert "got a lock of another process, expected to get at the trials; the same command goes on" in told


@contextlib.contextmanager
def locked_by_a_backup(path: Path, seconds: float) -> Iterator[None]:
    """An SQLite file that nobody else can read or write for some time."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(seconds, lambda: database.execute("COMMIT"))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        database.close()


@pytest.mark.usefixtures("quick")
def test_a_locked_database_is_waited_for_and_the_result_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every call, one after another: opening, queueing, taking a trial, keeping its result, reading."""
    path = tmp_path / "trials.db"
    storage = f"sqlite:///{path}"
    opened(storage, 1)
    with locked_by_a_backup(path, 0.4):
        queue = opened(storage, 1, 2)
    with locked_by_a_backup(path, 0.4):
        claim = taken(queue)
    with locked_by_a_backup(path, 0.4):
        end(claim, 1)
    with locked_by_a_backup(path, 0.4):
        assert len(queue.done()) == 1
    claim = taken(queue)
    with locked_by_a_backup(path, 0.4):
        claim.give_back()
    assert f"{storage}: got a lock of another process, for 0 s; waiting" in capsys.readouterr().err
    assert queue.fill() == 1


@pytest.mark.usefixtures("quick")
def test_an_interrupted_process_does_not_wait_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trial has no owner that lives, which the next run sees."""
    monkeypatch.setattr(queues, "_SECONDS_TO_GIVE_BACK", 0.1)
    path = tmp_path / "trials.db"
    queue = opened(f"sqlite:///{path}", 1)
    claim = taken(queue)
    with locked_by_a_backup(path, 2.0):
        began = time.monotonic()
        claim.give_back()
        assert time.monotonic() - began < 1.5
    assert (queue.bury(), queue.fill()) == (1, 1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    ],
)
def test_a_full_disk_is_waited_for(tmp_path: Path, error: OSError, capsys: pytest.CaptureFixture[str]) -> None:
    storage = open_storage(str(tmp_path / "journal.log"))
    until = time.monotonic() + 0.3

    def write() -> str:
        if time.monotonic() < until:
            raise error
        return "written"

    assert storage.ask(write) == "written"
    assert "journal.log: got a full disk, for 0 s; waiting" in capsys.readouterr().err


def test_other_errors_of_the_disk_are_not(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "journal.log"))

    def write() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error") as raised:
        storage.ask(write)
    assert raised.value.filename == str(tmp_path / "journal.log")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(postgresql.missing() is not None, reason=str(postgresql.missing()))
def test_a_server_that_restarts_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    with postgresql.server() as address:
        queue = opened(address, 1)
        claim = taken(queue)
        postgresql.stop(address)
        timer = threading.Timer(0.5, lambda: postgresql.start(address))
        timer.start()
        end(claim, 1)
        timer.join()
        assert results(queue) == [({"number": 1}, {"found": 1})]
        assert "a server that can't be used" in capsys.readouterr().err


def test_trials_that_others_can_read(tmp_path: Path) -> None:
    """Optuna's own storage opens the journal."""
    import optuna

    path = tmp_path / "journal.log"
    done(job(tmp_path, str(path), 2))
    journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    found: list[Any] = optuna.load_study(storage=journal, study_name="counting").get_trials()
    assert [(trial.params, trial.value, trial.user_attrs["result"]["square"]) for trial in found] == [
        ({"number": number}, number, number**2) for number in range(2)
    ]
