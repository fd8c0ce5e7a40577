"""`prepare` packs beside other processes, with several workers, after processes that died, and on failing disks."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebgan_fast.data import DataError, PackedImages
from ebgan_fast.data.prepare import prepare_images

from ..conftest import Fork
from . import layouts, workers
from .small_sets import IMAGE_BYTES, SIZE, TWO_IMAGES, contents

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for processes and files")

ROOT = Path(__file__).parents[2]
PER_SHARD = 33  # images, three tasks, so that each of two processes reads some of each shard
LIFE = 10.0  # seconds that a worker may live after its parent


def many(path: Path) -> Path:
    """Write 50 images, which make two shards."""
    path.mkdir()
    pictures = list(layouts.contents().values())
    for number in range(50):
        (path / f"{number:03d}.png").write_bytes(pictures[number % len(pictures)])
    return path


def pack_many(
    source: Path, out: Path, count: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    prepare_images(source, out, SIZE, workers=count, shard_bytes=PER_SHARD * IMAGE_BYTES, progress=progress)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    """Give the mark for this test's processes, and kill those that still live at its end."""
    yield str(tmp_path)
    workers.left_after(str(tmp_path), 0)


@pytest.fixture
def own_mark(mark: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the mark in this process's environment, so that the workers that it starts have it; return the mark."""
    monkeypatch.setenv(workers.MARK, mark)
    return mark


def pack_and_wait(source: Path, out: Path, count: int, go: Path) -> None:
    """Pack a set; after the first image print a line and wait until the file `go` exists."""

    def wait(done: int, total: int) -> None:
        if done == 1:
            print("begun", flush=True)
            while not go.exists():
                time.sleep(0.005)

    pack_many(source, out, count, wait)


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_a_second_process_is_refused_and_the_first_unharmed(fork: Fork, tmp_path: Path) -> None:
    source, out, go = many(tmp_path / "images"), tmp_path / "out", tmp_path / "go"
    pack_many(source, tmp_path / "whole", 1)
    child = fork(pack_and_wait, source, out, 1, go)
    child.wait_for_line()
    before = contents(out)
    assert ".lock" in before
    with pytest.raises(DataError) as error:
        pack_many(source, out, 1)
    text = str(error.value)
    assert text.startswith(f"{out}: got a folder in use by process {child.pid} on ")
    assert text.endswith(": wait for its end, or prepare the images into another folder")
    assert "\n" not in text
    assert contents(out) == before
    go.touch()
    assert child.status() == 0, child.said
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_after_a_kill_the_next_process_takes_the_folder_over(fork: Fork, tmp_path: Path) -> None:
    source, out = many(tmp_path / "images"), tmp_path / "out"
    pack_many(source, tmp_path / "whole", 1)
    child = fork(pack_and_wait, source, out, 1, tmp_path / "go")
    child.wait_for_line()
    child.send_signal(signal.SIGKILL)
    assert child.status() == -signal.SIGKILL
    assert ".lock" in contents(out)
    pack_many(source, out, 1)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_workers_end_with_their_parent(number: signal.Signals, mark: str, fork: Fork, tmp_path: Path) -> None:
    source, out = many(tmp_path / "images"), tmp_path / "out"
    child = fork(pack_and_wait, source, out, 2, tmp_path / "go", environment={workers.MARK: mark})
    child.wait_for_line()
    assert len(workers.some(mark, 2)) == 2
    child.send_signal(number)
    assert child.status() == -number, child.said
    assert workers.left_after(mark, LIFE) == []


def pack_alone(source: Path, out: Path) -> None:
    """Pack a set in a session of its own, as a shell starts it; print a line at an interrupt."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("begun", flush=True)
    try:
        pack_many(source, out, 2)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise SystemExit(130) from None


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.03, 0.05])
def test_ctrl_c_at_the_start_of_the_workers_is_told_once(delay: float, mark: str, fork: Fork, tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal, also workers that have hardly begun, and is reported once."""
    child = fork(pack_alone, many(tmp_path / "images"), tmp_path / "out", environment={workers.MARK: mark})
    workers.some(mark, 1)
    time.sleep(delay)
    os.killpg(child.pid, signal.SIGINT)
    assert child.status() == 130, child.said
    assert workers.left_after(mark, LIFE) == []
    assert child.said == "begun\ninterrupted\n"


def test_an_interrupt_ends_the_workers_first(own_mark: str, tmp_path: Path) -> None:
    seen: list[int] = []

    def interrupt(done: int, total: int) -> None:
        seen.extend(workers.some(own_mark, 2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_many(many(tmp_path / "images"), tmp_path / "out", 2, interrupt)
    assert len(seen) == 2
    assert workers.marked(own_mark) == []
    assert sorted(contents(tmp_path / "out")) == ["prepare.json"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["script", "stdin", "text"])
def test_a_program_without_a_main_guard_has_workers(way: str, tmp_path: Path) -> None:
    source, out = many(tmp_path / "images"), tmp_path / "out"
    program = (
        "from pathlib import Path\n"
        "from ebgan_fast.data.prepare import prepare_images\n"
        f"print(prepare_images(Path({str(source)!r}), Path({str(out)!r}), {SIZE}, workers=2).images)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    arguments = {"script": [str(script)], "stdin": ["-"], "text": ["-c", program]}[way]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, *arguments],
        input=program if way == "stdin" else "",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "50\n", "")
    assert len(PackedImages(out)) == 50


def wait_for_end(pids: list[int]) -> None:
    until = time.monotonic() + 60
    while not all(map(workers.has_ended, pids)):
        assert time.monotonic() < until, "a killed process still runs"
        time.sleep(0.005)


def goes_on_after_the_first_shard(source: Path, out: Path, whole: Path) -> None:
    assert sorted(contents(out)) == ["prepare.json", "shard_00000.bin", "shard_00000.json"]
    time_of_first = (out / "shard_00000.bin").stat().st_mtime_ns
    pack_many(source, out, 1)
    pack_many(source, whole, 1)
    assert contents(out) == contents(whole)
    assert (out / "shard_00000.bin").stat().st_mtime_ns == time_of_first


def killed_at(source: Path, first: int, last: int) -> str:
    return (
        "a process that reads images was killed by signal 9 (Killed), perhaps for want of memory, at "
        f"{source}/{first:03d}.png to {source}/{last:03d}.png; the same command goes on after the last whole shard, "
        "and takes less memory with fewer workers"
    )


def test_workers_that_are_killed_between_two_shards_are_told(own_mark: str, tmp_path: Path) -> None:
    source, out = many(tmp_path / "images"), tmp_path / "out"

    def kill(done: int, total: int) -> None:
        if done == PER_SHARD:
            found = workers.some(own_mark, 2)
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            wait_for_end(found)

    with pytest.raises(DataError) as error:
        pack_many(source, out, 2, kill)
    assert str(error.value) == killed_at(source, PER_SHARD, 48)
    goes_on_after_the_first_shard(source, out, tmp_path / "whole")


def test_a_worker_that_is_killed_while_it_reads_is_told(own_mark: str, tmp_path: Path) -> None:
    """The worker is killed while it opens an image that is replaced by a pipe without a writer."""
    source, out = many(tmp_path / "images"), tmp_path / "out"
    image, kept = source / "049.png", tmp_path / "kept.png"  # the only image of the last task

    def kill() -> None:
        os.close(os.open(image, os.O_WRONLY))  # waits until a worker opens the pipe to read
        for pid in workers.marked(own_mark):
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)

    def exchange(done: int, total: int) -> None:
        if done == 1:
            image.rename(kept)
            os.mkfifo(image)
            killer.start()

    with pytest.raises(DataError) as error:
        pack_many(source, out, 2, exchange)
    killer.join(60)
    assert not killer.is_alive()
    assert str(error.value) in (killed_at(source, PER_SHARD, 48), killed_at(source, 49, 49))
    kept.replace(image)
    goes_on_after_the_first_shard(source, out, tmp_path / "whole")


def test_workers_that_cannot_begin_are_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = many(tmp_path / "images")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DataError) as error:
        pack_many(source, tmp_path / "out", 2)
    assert str(error.value).startswith(f"a process that reads images ended with status 1, at {source}/000.png to ")
    assert "\n" not in str(error.value)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(FileNotFoundError, match="/no/such/python"):
        pack_many(source, tmp_path / "out", 2)


def refuse_to_sync(monkeypatch: pytest.MonkeyPatch, code: int, is_refused: Callable[[int], bool]) -> None:
    fsync = os.fsync

    def refusing(handle: int) -> None:
        if is_refused(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refusing)


@pytest.mark.parametrize("is_refused", [stat.S_ISREG, stat.S_ISDIR], ids=["files", "folders"])
@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EBADF", "EACCES", "EPERM", "ENOTTY"])
def test_a_file_system_without_fsync_will_do(
    name: str, is_refused: Callable[[int], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = layouts.folder(tmp_path / "images")
    prepare_images(source, tmp_path / "whole", SIZE, workers=1, shard_bytes=TWO_IMAGES)
    refuse_to_sync(monkeypatch, getattr(errno, name), is_refused)
    prepare_images(source, tmp_path / "out", SIZE, workers=1, shard_bytes=TWO_IMAGES)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("is_refused", [stat.S_ISREG, stat.S_ISDIR], ids=["files", "folders"])
@pytest.mark.parametrize("name", ["EIO", "ENOSPC"])
def test_a_disk_that_fails_is_named(
    name: str, is_refused: Callable[[int], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = layouts.folder(tmp_path / "images"), tmp_path / "out"
    refuse_to_sync(monkeypatch, getattr(errno, name), is_refused)
    with pytest.raises(OSError, match=os.strerror(getattr(errno, name))) as error:
        prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    assert error.value.errno == getattr(errno, name)
    assert error.value.filename == str(out / "prepare.json" if is_refused is stat.S_ISREG else out)
