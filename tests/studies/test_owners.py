"""The kernel says whether one of its own processes is alive. For other processes, signs of life do."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ebgan_fast.studies.framework import owners
from ebgan_fast.studies.framework.owners import known_life, this_process
from ebgan_fast.studies.framework.run import queue_of

from .counting import job, seen
from .processes import start, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux says who lives; elsewhere signs of life do")


def test_this_process_lives() -> None:
    assert known_life(this_process()) == "lives"


@pytest.mark.parametrize(
    "other",
    [
        {"host": "elsewhere"},
        {"kernel": "before the restart"},
        {"pids": "pid:[1]"},
        {"kernel": None},
        {"pids": None},
        {"born": None},
        {"pid": "1"},
        {"pid": None},
    ],
)
def test_of_other_systems_nothing_is_known(other: dict[str, Any]) -> None:
    """This holds even if a process here has the same number and began at the same tick."""
    assert known_life({**this_process(), **other}) == "unknown"


def test_what_earlier_versions_noted_says_nothing() -> None:
    me = this_process()
    assert known_life({name: me[name] for name in ("host", "pid", "born")}) == "unknown"  # type: ignore[literal-required]


def test_another_process_of_the_same_number_is_not_the_owner() -> None:
    assert known_life({**this_process(), "born": "17"}) == "dead"


def test_a_process_that_was_killed_and_not_buried_is_dead() -> None:
    """The killed process is a zombie: a container's first process may never wait for its children."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(100)"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    owner = {**this_process(), "pid": child.pid, "born": owners._birth(child.pid)}
    assert known_life(owner) == "lives"
    child.kill()
    wait_for(lambda: ") Z " in Path(f"/proc/{child.pid}/stat").read_text())
    assert known_life(owner) == "dead"
    child.wait()


def test_a_process_that_is_hidden_from_this_one_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option hidepid of /proc hides processes on machines that many use: they have no entry, and can't be
    signaled."""

    def absent(pid: int) -> list[str]:
        raise FileNotFoundError(pid)

    def forbidden(pid: int, number: int) -> None:
        raise PermissionError(pid)

    monkeypatch.setattr(owners, "_stat", absent)
    monkeypatch.setattr(owners.os, "kill", forbidden)
    assert owners._life_of(1, "1") == "unknown"


def test_a_looker_that_may_open_no_more_files_knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_many(pid: int) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    me = this_process()
    monkeypatch.setattr(owners, "_stat", too_many)
    monkeypatch.setattr(owners, "this_process", lambda: me)
    assert known_life(me) == "unknown"


def test_a_process_that_is_gone_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    owner = {**this_process(), "pid": child.pid, "born": owners._birth(child.pid)}
    assert known_life(owner) == "lives"
    child.kill()
    child.wait()
    assert known_life(owner) == "dead"


def test_every_process_has_its_own_token() -> None:
    """This holds also for a forked process, as a study's processes are."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, this_process()["token"].encode())
        os._exit(0)
    os.waitpid(child, 0)
    token = os.read(reader, 100).decode()
    os.close(reader)
    os.close(writer)
    assert token
    assert token != this_process()["token"] == this_process()["token"]


_LOOK = """
import sys
from pathlib import Path
from ebgan_fast.studies.framework.owners import this_process
from ebgan_fast.studies.framework.run import queue_of
from tests.studies.counting import job
queue = queue_of(job(Path(sys.argv[1]), sys.argv[2], 1))
print(this_process()["pids"], queue.bury(), queue.fill(), queue.unsure())
"""


@pytest.mark.slow
@pytest.mark.parametrize("space", ["--pid --mount-proc", "--pid", "--time --boottime 100000"])
def test_a_container_does_not_take_the_trial_of_a_process_outside(tmp_path: Path, space: str) -> None:
    """In the container, the owner's number or age belongs to another process, though kernel and host name are the
    same."""
    command = [str(shutil.which("unshare")), "--fork", *space.split()]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no namespace of processes here: {tried.stderr.strip()}")
    storage = str(tmp_path / "journal.log")
    owner = start(tmp_path, storage, 1, 60.0)
    wait_for(lambda: len(seen(tmp_path, "began")) == 1)
    try:
        told = subprocess.run(
            [*command, sys.executable, "-c", _LOOK, str(tmp_path), storage],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        ).stdout.split()
        assert told[0] != this_process()["pids"]
        assert told[1:] == ["0", "0", "1"]
        # Outside the container, the kernel knows that the owner is alive.
        assert queue_of(job(tmp_path, storage, 1)).unsure() == 0
    finally:
        owner.kill()
        owner.join()


def test_no_clock_and_no_zone_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks of the owner and of the process that looks may be days apart, in either direction."""
    from .test_queue import claimed_by, end, opened

    for number, shift in enumerate((-1e6, 1e6)):
        storage = str(tmp_path / f"{number}.log")
        queue = opened(storage, 1)
        claim = claimed_by(monkeypatch, queue, host="elsewhere")
        with monkeypatch.context() as patch:
            now = time.time()
            patch.setattr(time, "time", lambda now=now, shift=shift: now + shift)
            patch.setenv("TZ", "XXX-14" if shift < 0 else "XXX+12")
            time.tzset()
            looker = opened(storage, 1)
            assert (looker.bury(), looker.fill(), looker.unsure()) == (0, 0, 1)
        time.tzset()
        end(claim, 1)
