"""Tests that the cache returns what was written, or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gpuless import cache


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPULESS_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert cache.folder() == folder
    monkeypatch.delenv("GPULESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert cache.folder() == Path("/some/where/gpuless")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache.folder() == Path("/home/me/.cache/gpuless")


def test_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPULESS_CACHE", "")
    assert cache.folder() is None
    cache.write("name", b"content")
    assert cache.read("name") is None


def test_names_tell_parts_apart() -> None:
    names = {cache.key(*parts) for parts in (("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c", ""), (b"ab", "d"))}
    assert len(names) == 5
    assert cache.key("ab", b"c") == cache.key("ab", "c")


@pytest.mark.parametrize("content", [b"", b"content", bytes(range(256)) * 400], ids=len)
def test_what_was_written_is_read(content: bytes, folder: Path) -> None:
    assert cache.read("name") is None
    cache.write("name", content)
    assert cache.read("name") == content
    assert cache.read("other") is None
    assert {path.name for path in folder.iterdir()} == {"name", ".looked"}


@pytest.mark.parametrize("length", [0, 10, 31, 32, 500, 1031])
def test_what_was_cut_short_is_missing(length: int, folder: Path) -> None:
    cache.write("name", b"x" * 1000)
    os.truncate(folder / "name", length)
    assert cache.read("name") is None
    cache.write("name", b"anew")
    assert cache.read("name") == b"anew"


def test_what_was_changed_is_missing(folder: Path) -> None:
    cache.write("name", b"x" * 1000)
    data = bytearray((folder / "name").read_bytes())
    data[500] ^= 1
    (folder / "name").write_bytes(data)
    assert cache.read("name") is None


def test_a_reader_sees_all_of_an_entry_or_none_while_others_write() -> None:
    contents = [bytes([number]) * 200_000 for number in range(4)]
    stop = threading.Event()

    def write(content: bytes) -> None:
        while not stop.is_set():
            cache.write("name", content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    cache.write("name", contents[0])
    for writer in writers:
        writer.start()
    try:
        read = [cache.read("name") for _ in range(200)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert set(read) <= set(contents)


MAKE = """
import os, sys, time
from gpuless import cache
def make():
    print("made", flush=True)
    if "and hold" in sys.argv:
        time.sleep(60)
    time.sleep(0.3)
    return b"content"
assert cache.once("name", make) == b"content"
"""
needs_locks = pytest.mark.skipif(cache.fcntl is None, reason="this system has no fcntl, and so no lock")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", MAKE, *arguments], stdout=subprocess.PIPE, text=True)


@needs_locks
def test_of_processes_that_ask_at_once_one_makes_it(folder: Path) -> None:
    processes = [start() for _ in range(3)]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(said) == ["", "", "made\n"]
    assert cache.read("name") == b"content"


@needs_locks
def test_a_killed_process_holds_nobody_back() -> None:
    holder = start("and hold")
    assert holder.stdout is not None
    with holder, holder.stdout:
        assert holder.stdout.readline() == "made\n"
        waiting = start()
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.communicate(timeout=1)
        holder.kill()
        assert waiting.communicate() == ("made\n", None)


@needs_locks
def test_a_process_that_hangs_is_waited_for_no_longer_than_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PATIENCE", 0.1)
    assert cache.once("name", lambda: cache.once("name", lambda: b"inner") + b" and outer") == b"inner and outer"


@needs_locks
def test_where_there_are_no_locks_each_makes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(file: int, how: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(cache.fcntl, "flock", refused)
    assert cache.once("name", lambda: b"content") == b"content"
    monkeypatch.setenv("GPULESS_CACHE", "")
    assert cache.once("name", lambda: b"anew") == b"anew"


def test_what_could_not_be_made_is_made_by_the_next(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        cache.once("name", lambda: bytes(1 // 0))
    assert cache.once("name", lambda: b"content") == b"content"
    assert cache.once("name", lambda: bytes(1 // 0)) == b"content"


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPULESS_CACHE", str(tmp_path / "file" / "below"))
    cache.write("name", b"content")
    assert cache.read("name") is None
    assert cache.once("name", lambda: b"content") == b"content"


def look_again(folder: Path) -> None:
    os.utime(folder / ".looked", (0, 0))
    cache.write("last", b"")


def test_what_nobody_used_for_long_goes(folder: Path) -> None:
    for name, days in (("new", 0), ("used", 29), ("old", 31)):
        cache.write(name, name.encode())
        at = time.time() - days * 24 * 3600
        os.utime(folder / name, (at, at))
    (folder / ".lock-na").touch()  # another process may hold this lock
    os.utime(folder / ".lock-na", (0, 0))
    look_again(folder)
    assert {path.name for path in folder.iterdir()} == {"new", "used", "last", ".looked", ".lock-na"}


def test_a_read_is_a_use(folder: Path) -> None:
    cache.write("name", b"content")
    at = time.time() - 29 * 24 * 3600
    os.utime(folder / "name", (at, at))
    cache.read("name")
    assert time.time() - (folder / "name").stat().st_mtime < 60


def test_the_longest_unused_goes_while_all_is_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 2500)
    for age, name in enumerate("abcd"):
        cache.write(name, bytes(1000 - 32))
        at = time.time() - 1000 + age
        os.utime(folder / name, (at, at))
    look_again(folder)
    assert {path.name for path in folder.iterdir()} == {"c", "d", "last", ".looked"}
