"""Trials are done once each, whoever does them and whatever is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ebgan_fast.studies.framework.run import queue_of, run
from ebgan_fast.studies.framework.study import Nothing

from .counting import done, job, seen
from .processes import SECONDS, start, wait_for


def storages(folder: Path) -> dict[str, str]:
    return {"journal": str(folder / "journal.log"), "sqlite": f"sqlite:///{folder / 'trials.db'}"}


@contextlib.contextmanager
def interrupted_when(condition: Callable[[], bool]) -> Iterator[None]:
    """SIGINT reaches this process, and no other, once the condition holds."""

    def send() -> None:
        wait_for(condition)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell starts its background jobs with interrupts ignored, and their children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)


def test_all_trials_run_and_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = done(job(tmp_path, str(tmp_path / "journal.log"), 3))
    assert [(one.params["number"], one.result and one.result["square"]) for one in found] == [
        (n, n**2) for n in range(3)
    ]
    assert "3 of 3  number 2" in capsys.readouterr().out


def test_finished_trials_are_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = str(tmp_path / "journal.log")
    done(job(tmp_path, storage, 2))
    found = done(job(tmp_path, storage, 4))
    assert sorted(seen(tmp_path, "began")) == [0, 1, 2, 3]
    assert len(found) == 4
    assert "2 of 4 trials were done before" in capsys.readouterr().out
    assert len(done(job(tmp_path, storage, 3))) == 3  # a part of what is there


def test_a_failed_trial_is_recorded_and_not_repeated(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal.log")
    for _ in range(2):
        found = done(job(tmp_path, storage, 15))
    failed = [one for one in found if one.result is None]
    assert [(one.params["number"], one.reason) for one in failed] == [(13, "got loss nan, expected a finite number")]
    assert len(found) == 15
    assert seen(tmp_path, "began").count(13) == 1


def test_other_settings_are_refused(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal.log")
    done(job(tmp_path, storage, 1, steps=10))
    with pytest.raises(ValueError, match=r"got steps 20, expected 10, .* another --out starts anew"):
        done(job(tmp_path, storage, 1, steps=20))


def test_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers: got 0, expected at least 1"):
        done(job(tmp_path, str(tmp_path / "journal.log"), 1, workers=0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_processes_share_the_work_and_do_no_trial_twice(tmp_path: Path, kind: str) -> None:
    """They make the storage at the same time too."""
    storage = storages(tmp_path)[kind]
    children = [start(tmp_path, storage, 40, 0.05, together=2) for _ in range(2)]
    for child in children:
        child.join(SECONDS)
    assert [child.exitcode for child in children] == [0, 0]
    assert sorted(seen(tmp_path, "began")) == list(range(40))
    workers = {line.split()[2] for line in (tmp_path / "seen.txt").read_text().splitlines() if "began" in line}
    assert workers == {str(child.pid) for child in children}


@pytest.mark.slow
def test_a_killed_study_goes_on_without_repeating_finished_trials(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal.log")
    child = start(tmp_path, storage, 8, 0.3)
    wait_for(lambda: len(seen(tmp_path, "began")) >= 4)
    child.kill()
    child.join(SECONDS)
    before = seen(tmp_path, "ended")
    assert 3 <= len(before) < 8
    found = done(job(tmp_path, storage, 8))
    assert sorted(one.params["number"] for one in found) == list(range(8))
    assert sorted(seen(tmp_path, "ended")) == list(range(8))  # the one that was cut off among them
    assert len(seen(tmp_path, "began")) == 8 + 1


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupted_study_leaves_its_trials_to_the_next(tmp_path: Path, workers: int) -> None:
    storage = str(tmp_path / "journal.log")
    with pytest.raises(KeyboardInterrupt), interrupted_when(lambda: len(seen(tmp_path, "began")) == workers):
        done(job(tmp_path, storage, 3, 30.0, workers))
    # Given back by those who had them, not found to be dead.
    assert queue_of(job(tmp_path, storage, 3)).bury() == 0
    assert len(done(job(tmp_path, storage, 3))) == 3
    assert sorted(seen(tmp_path, "ended")) == [0, 1, 2]


@pytest.mark.slow
def test_started_workers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal.log")
    parent = start(tmp_path, storage, 4, 30.0, workers=2)
    wait_for(lambda: len(seen(tmp_path, "began")) == 2)
    lines = (tmp_path / "seen.txt").read_text().splitlines()
    pids = [int(line.split()[2]) for line in lines if line.startswith("began")]
    assert parent.pid not in pids
    parent.kill()
    parent.join(SECONDS)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert len(done(job(tmp_path, storage, 4, workers=2))) == 4
    assert sorted(seen(tmp_path, "ended")) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_mistake_in_a_started_process_is_told_by_the_one_that_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    one = dataclasses.replace(job(tmp_path, str(tmp_path / "journal.log"), 2, workers=2), data=Refusing())
    queue = queue_of(dataclasses.replace(one, data=Nothing()))
    with pytest.raises(ValueError, match="labels: got 105, expected fewer"):
        run(one, queue)
    assert "Traceback" not in capfd.readouterr().err


class Refusing(Nothing):
    """Data that is refused in the process which gets it."""

    @property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        raise ValueError("labels: got 105, expected fewer")


@pytest.mark.slow
def test_a_process_that_was_killed_is_told_of(tmp_path: Path) -> None:
    """One is killed while it works: the other does what is left, and nothing is said. Both are: a sentence says so."""
    storage = str(tmp_path / "journal.log")

    def kill(count: int) -> threading.Thread:
        def wait_and_kill() -> None:
            wait_for(lambda: len(seen(tmp_path, "began")) >= 2)
            lines = (tmp_path / "seen.txt").read_text().splitlines()
            for pid in sorted({int(line.split()[2]) for line in lines if line.startswith("began")})[:count]:
                os.kill(pid, signal.SIGKILL)

        thread = threading.Thread(target=wait_and_kill)
        thread.start()
        return thread

    thread = kill(2)
    with pytest.raises(ValueError, match="got a process that ended with status -9"):
        done(job(tmp_path, storage, 4, 1.0, workers=2))
    thread.join()
    (tmp_path / "seen.txt").unlink()
    thread = kill(1)
    assert len(done(job(tmp_path, storage, 4, 1.0, workers=2))) == 4
    thread.join()
