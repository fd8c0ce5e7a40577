"""The cache gives what was written, or nothing."""

from __future__ import annotations

import os
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


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPULESS_CACHE", str(tmp_path / "file" / "below"))
    cache.write("name", b"content")
    assert cache.read("name") is None


def look_again(folder: Path) -> None:
    os.utime(folder / ".looked", (0, 0))
    cache.write("last", b"")


def test_what_nobody_used_for_long_goes(folder: Path) -> None:
    for name, days in (("new", 0), ("used", 29), ("old", 31)):
        cache.write(name, name.encode())
        at = time.time() - days * 24 * 3600
        os.utime(folder / name, (at, at))
    look_again(folder)
    assert {path.name for path in folder.iterdir()} == {"new", "used", "last", ".looked"}


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
