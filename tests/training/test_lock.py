"""Tests of the lock of a run's folder: it ends with its process, names the process, and reports file systems without
locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from ebgan_fast import _lock as run_lock
from ebgan_fast._lock import FolderLock
from ebgan_fast.training import session, train
from ebgan_fast.training.config import read_json, write_json

from ..conftest import Fork
from .conftest import Configure
from .helpers import assert_same_run, files

pytestmark = pytest.mark.usefixtures("no_curves")

OWN = rf"process {os.getpid()} on {socket.gethostname()}"


def hold(path: Path) -> None:
    """Take a lock, print "held" and wait to be killed."""
    assert FolderLock(path, "go away").acquire() is None
    print("held", flush=True)
    time.sleep(100)


def train_as(config: Path) -> None:
    session.save_curves = lambda lines, path, title: None
    train(read_json(config))


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_that_another_run_writes_is_refused(configure: Configure, whole: Path, resume: bool) -> None:
    held = FolderLock(whole / ".lock", "go away")
    assert held.acquire() is None
    before = files(whole)
    with pytest.raises(
        ValueError, match=rf"whole: got a folder in use by {OWN}, expected" if resume else "isn't empty"
    ):
        train(configure(out=whole, steps=20), resume=resume)
    assert files(whole) == before
    held.release()
    assert train(configure(out=whole), resume=True).step == 20


def test_a_new_folder_that_another_run_has_begun_is_refused(configure: Configure) -> None:
    """A new folder with another run's lock is refused, even while it holds nothing but the lock."""
    run = configure()
    run.out.mkdir()
    held = FolderLock(run.out / ".lock", "go away")
    assert held.acquire() is None
    with pytest.raises(ValueError, match=f"in use by {OWN}"):
        train(run)
    assert [path.name for path in run.out.iterdir()] == [".lock"]
    held.release()
    assert train(run).step == 20


def test_the_lock_is_gone_after_the_run(configure: Configure) -> None:
    train(configure(steps=2))
    assert not list(configure().out.glob(".*"))


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_the_lock_dies_with_its_process(fork: Fork, configure: Configure, whole: Path) -> None:
    child = fork(hold, whole / ".lock")
    child.wait_for_line()
    assert child.pid != os.getpid()
    with pytest.raises(ValueError, match=rf"in use by process {child.pid} on {socket.gethostname()}"):
        train(configure(out=whole), resume=True)
    child.send_signal(signal.SIGKILL)
    child.status()
    assert (whole / ".lock").exists()
    assert train(configure(out=whole), resume=True).step == 20
    assert not (whole / ".lock").exists()


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_of_three_runs_that_start_at_once_one_trains(fork: Fork, configure: Configure, whole: Path) -> None:
    run = configure()
    write_json(run, whole.parent / "config.json")
    children = [fork(train_as, whole.parent / "config.json") for _ in range(3)]
    assert sorted(child.status() for child in children) == [0, 1, 1], [child.said for child in children]
    for child in children:
        if child.status() == 1:
            reason = child.said.strip().splitlines()[-1]
            assert "in use by" in reason or "isn't empty" in reason
            assert "step " not in child.said.replace("step=", "")
    assert_same_run(run.out, whole)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_line(
    configure: Configure,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def none(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    run = configure()
    train(run)
    told = [line for line in capsys.readouterr().out.splitlines() if "no lock" in line]
    assert told == [
        f"{run.out}: no lock is possible here ({os.strerror(number)}): make sure that only one run writes here"
    ]
    assert not list(run.out.glob(".*"))
    assert_same_run(run.out, whole)


def test_a_lock_file_taken_away_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock file that was removed is made again: a run may end between the opening and the locking of its file."""
    path = tmp_path / ".lock"
    take, times = run_lock._take, 0

    def late(handle: int) -> None:
        nonlocal times
        times += 1
        if times == 1:
            path.unlink()
        take(handle)

    monkeypatch.setattr(run_lock, "_take", late)
    first, second = FolderLock(path, "go away"), FolderLock(path, "go away")
    assert first.acquire() is None
    assert times == 2
    with pytest.raises(ValueError, match=f"in use by {OWN}"):
        second.acquire()
    second.release()  # this one holds no lock
    with pytest.raises(ValueError, match="in use"):
        second.acquire()
    first.release()
    assert second.acquire() is None
    second.release()


def test_a_lock_on_a_full_disk_names_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    first, second = FolderLock(tmp_path / ".lock", "go away"), FolderLock(tmp_path / ".lock", "go away")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert first.acquire() is None
    with pytest.raises(ValueError, match="in use by another process"):
        second.acquire()
    first.release()
    assert not list(tmp_path.iterdir())


def test_a_finished_run_on_a_disk_to_be_read_alone(
    configure: Configure, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refused(path: object, flags: int, *mode: int, **named: object) -> int:
        if str(path).endswith(".lock"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *mode, **named)  # type: ignore[arg-type]

    before = files(whole)
    monkeypatch.setattr(os, "open", refused)
    assert train(configure(out=whole), resume=True).step == 20
    assert files(whole) == before


def test_a_run_whose_folder_was_begun_anew_leaves_the_others_lock(tmp_path: Path) -> None:
    path = tmp_path / "run" / ".lock"
    path.parent.mkdir()
    first, second, third = FolderLock(path, "go away"), FolderLock(path, "go away"), FolderLock(path, "go away")
    assert first.acquire() is None
    path.unlink()  # the folder is deleted
    assert second.acquire() is None
    first.release()
    with pytest.raises(ValueError, match=f"in use by {OWN}"):
        third.acquire()
    second.release()


def test_a_start_that_fails_leaves_no_folder(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = configure()

    def fail(*_: object) -> None:
        raise KeyError("before its first write")

    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "run", fail)
        with pytest.raises(KeyError):
            train(run)
    assert not run.out.exists()
    run.out.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "run", fail)
        with pytest.raises(KeyError):
            train(run)
    assert run.out.exists()  # the folder was there before
    assert not list(run.out.iterdir())
