"""A process waits for locks, full disks and servers that are away, and its result isn't lost."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebgan_fast.studies.framework import databases, journal
from ebgan_fast.studies.framework import queue as queues
from ebgan_fast.studies.framework.addresses import open_storage
from ebgan_fast.studies.framework.queue import Claim, TrialQueue
from ebgan_fast.studies.framework.storage import Storage, StorageError

from . import postgresql
from .counting import done, job
from .storages import held, lock_of, refusal
from .test_queue import end, opened, results, taken


def test_a_journal_is_one_file_wherever_a_process_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to a journal leads to the same journal and the same lock."""
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
    """Earlier versions left Optuna's own lock: a link, which leads nowhere if the journal's path was relative."""
    (tmp_path / "journal.log.lock").symlink_to("runs/grid/journal.log")
    assert len(done(job(tmp_path, str(tmp_path / "journal.log"), 1))) == 1


@pytest.fixture(params=["journal", "sqlite"])
def file_storage(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return str(tmp_path / "journal.log") if request.param == "journal" else f"sqlite:///{tmp_path / 'trials.db'}"


@pytest.mark.usefixtures("quick")
def test_the_lock_of_a_process_that_was_killed_is_free(file_storage: str) -> None:
    queue = opened(file_storage, 1)
    with held(lock_of(file_storage), 1000) as process:
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
    with held(lock_of(file_storage), 0.5):
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
    """SQLite has no lock that holds from the look at a trial to its change."""
    queue = opened(file_storage, 1, 2)
    claim = taken(queue)
    with held(lock_of(file_storage), 1000):
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
    with held(lock_of(file_storage), 1000):
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
    with held(lock_of(file_storage), 1000):
        for module in (journal, databases):
            monkeypatch.setattr(module, "PATIENCE", 0.3)
        told = refusal(file_storage)
    assert "got a lock of another process, expected access to the trials; the same command goes on" in told


@contextlib.contextmanager
def locked_by_a_backup(path: Path, seconds: float) -> Iterator[None]:
    """Lock an SQLite file for some seconds, so that no other process can read or write it."""
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
    """Every call is tried: opening, queueing, taking a trial, keeping its result, reading and giving back."""
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
    """The interrupted trial then has no living owner, and the next run sees that."""
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
