"""Each trial is done once, whichever process does it and whichever process is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ebgan_fast.ops.backends import BackendUnavailableError
from ebgan_fast.studies.framework import run as running
from ebgan_fast.studies.framework.run import queue_of, run
from ebgan_fast.studies.framework.study import NoData

from .counting import done, job, seen, workers_of
from .processes import SECONDS, start, wait_for


def storages(folder: Path) -> dict[str, str]:
    return {"journal": str(folder / "journal.log"), "sqlite": f"sqlite:///{folder / 'trials.db'}"}


@contextlib.contextmanager
def interrupted_when(condition: Callable[[], bool]) -> Iterator[None]:
    """Send SIGINT to this process alone, once the condition holds."""

    def send() -> None:
        wait_for(condition)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell starts background jobs that ignore interrupts, and their children inherit that.
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
    assert len(done(job(tmp_path, storage, 3))) == 3  # a run may have fewer trials than the storage


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
    with pytest.raises(ValueError, match=r"got steps 20, expected 10, .* another --out starts a new study"):
        done(job(tmp_path, storage, 1, steps=20))


def test_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers: got 0, expected at least 1"):
        job(tmp_path, str(tmp_path / "journal.log"), 1, workers=0).options.check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_processes_share_the_work_and_do_no_trial_twice(tmp_path: Path, kind: str) -> None:
    """The two processes also create the storage at the same time."""
    storage = storages(tmp_path)[kind]
    children = [start(tmp_path, storage, 40, 0.05, together=2) for _ in range(2)]
    for child in children:
        child.join(SECONDS)
    assert [child.exitcode for child in children] == [0, 0]
    assert sorted(seen(tmp_path, "began")) == list(range(40))
    assert set(workers_of(tmp_path)) == {child.pid for child in children}


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
    assert sorted(seen(tmp_path, "ended")) == list(range(8))  # with the trial that the kill had cut off
    assert len(seen(tmp_path, "began")) == 8 + 1


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupted_study_leaves_its_trials_to_the_next(tmp_path: Path, workers: int) -> None:
    storage = str(tmp_path / "journal.log")
    with pytest.raises(KeyboardInterrupt), interrupted_when(lambda: len(seen(tmp_path, "began")) == workers):
        done(job(tmp_path, storage, 3, 30.0, workers))
    # The processes gave the trials back themselves. They weren't found to be dead.
    assert queue_of(job(tmp_path, storage, 3)).bury() == 0
    assert len(done(job(tmp_path, storage, 3))) == 3
    assert sorted(seen(tmp_path, "ended")) == [0, 1, 2]


@pytest.mark.slow
def test_started_workers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal.log")
    parent = start(tmp_path, storage, 4, 30.0, workers=2)
    wait_for(lambda: len(seen(tmp_path, "began")) == 2)
    pids = workers_of(tmp_path)
    assert parent.pid not in pids
    parent.kill()
    parent.join(SECONDS)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert len(done(job(tmp_path, storage, 4, workers=2))) == 4
    assert sorted(seen(tmp_path, "ended")) == [0, 1, 2, 3]


class Refusing(NoData):
    """Data that raise an error in the process that gets them."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        raise self._error


class OddError(OSError):
    """An error that can't be sent to another process."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("labels: got 105, expected fewer"), "labels: got 105, expected fewer"),
        (ValueError("x" * 200_000), r"xxx\.\.\.xxx"),  # more than a pipe holds
        (OSError(errno.ENOENT, "No such file or directory", "digits.gz"), "No such file or directory: 'digits.gz'"),
        (BackendUnavailableError("no backend here"), "no backend here"),
        (MemoryError(), "memory: got less than the command needs"),
    ],
    ids=["value", "long", "system", "backend", "memory"],
)
def test_a_mistake_in_a_started_process_is_told_by_the_one_that_started_it(
    tmp_path: Path, error: Exception, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    one = job(tmp_path, str(tmp_path / "journal.log"), 2, workers=2)
    queue = queue_of(one)
    with pytest.raises((ValueError, OSError), match=message):
        run(dataclasses.replace(one, data=Refusing(error)), queue)
    assert "Traceback" not in capfd.readouterr().err


def test_an_error_that_cannot_be_sent_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Pipe:
        def send(self, words: Any) -> None:
            told.append(pickle.loads(pickle.dumps(words)))

    def refuse(*arguments: Any) -> None:
        raise OddError(1, 2)

    monkeypatch.setattr(running, "_work", refuse)
    monkeypatch.setattr(running.signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(running.torch, "set_num_threads", lambda count: None)
    running._work_apart(job(tmp_path, str(tmp_path / "journal.log"), 1), Pipe())  # type: ignore[arg-type]
    assert told == [(None, "1 and 2", None)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_gives_trials_back(tmp_path: Path, workers: int) -> None:
    """Batch systems stop processes with SIGTERM. It acts as an interrupt, and doesn't count as a death."""
    storage = str(tmp_path / "journal.log")
    parent = start(tmp_path, storage, 3, 30.0, workers=workers)
    wait_for(lambda: len(seen(tmp_path, "began")) == workers)
    parent.terminate()
    parent.join(SECONDS)
    assert parent.exitcode not in (0, -signal.SIGTERM)
    wait_for(lambda: queue_of(job(tmp_path, storage, 3)).bury() == 0)
    reasons = [trial.user_attrs.get("reason") for trial in queue_of(job(tmp_path, storage, 3))._trials()]
    assert reasons.count("interrupted") == workers
    assert "its process was killed" not in reasons


@pytest.mark.slow
def test_processes_that_were_stopped_by_others_are_told_of(tmp_path: Path) -> None:
    """Each process got SIGTERM and gave its trial back, so that no process does these trials."""

    def stop() -> None:
        wait_for(lambda: len(seen(tmp_path, "began")) == 2)
        for pid in set(workers_of(tmp_path)):
            os.kill(pid, signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(ValueError, match="got a process that ended with status 130, expected 0; the same command"):
        done(job(tmp_path, str(tmp_path / "journal.log"), 4, 30.0, workers=2))
    thread.join()


@pytest.mark.slow
def test_a_process_that_waits_for_a_lock_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal.log")
    parent = start(tmp_path, storage, 4, 0.5, workers=2)
    wait_for(lambda: len(seen(tmp_path, "began")) == 2)
    pids = workers_of(tmp_path)
    with FileLock(f"{storage}.flock"):
        wait_for(lambda: len(seen(tmp_path, "ended")) >= 2)
        parent.kill()
        parent.join(SECONDS)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


_INTERRUPTED = """
import sys
from pathlib import Path
from tests.studies.counting import done, job
if __name__ == "__main__":
    print("ready", flush=True)
    try:
        done(job(Path(sys.argv[1]), sys.argv[2], 4, 60.0, workers=2))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_a_terminals_interrupt_reaches_no_process_that_starts(tmp_path: Path, seconds: float) -> None:
    """Ctrl-C goes to all processes of a terminal. The server that forks the others would print a traceback."""
    program = tmp_path / "program.py"
    program.write_text(_INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path), str(tmp_path / "journal.log")],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=SECONDS)
    assert (process.returncode, told) == (130, "")


@pytest.mark.slow
def test_a_process_that_was_killed_is_told_of(tmp_path: Path) -> None:
    """If one of two processes is killed, the other does what is left and nothing is printed. If both are, an error says
    so."""
    storage = str(tmp_path / "journal.log")

    def kill(count: int) -> threading.Thread:
        def wait_and_kill() -> None:
            wait_for(lambda: len(seen(tmp_path, "began")) >= 2)
            for pid in sorted(set(workers_of(tmp_path)))[:count]:
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
