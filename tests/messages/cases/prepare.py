"""Mistakes of `ebgan-fast prepare` in its flags, its source as a whole and its output folder."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebgan_fast._lock import FolderLock
from ebgan_fast.data import prepare, reader, worker
from ebgan_fast.data.sources import Source
from ebgan_fast.data.sources.folder import FolderSource
from tests.data import archives, layouts
from tests.full_disk import room_for

from .. import places
from ..case import Arguments, Case, named

_SIZE = ("out", "--size", "8", "--workers", "1")


def _photos(*flags: str) -> Callable[[Path], Arguments]:
    return lambda folder: [places.photos(folder), *_SIZE, *flags]


def _begun(folder: Path) -> Path:
    """Make images/, pack them into out/, and return the path of the plan in out/."""
    prepare.prepare_images(places.photos(folder).absolute(), Path("out").absolute(), 8, workers=1)
    return folder / "out" / "prepare.json"


def _again(change: Callable[[Path], object], *flags: str) -> Callable[[Path], Arguments]:
    """Return a function that packs images, makes a change, and returns the arguments that pack them again."""

    def make(folder: Path) -> Arguments:
        change(_begun(folder))
        return ["images", *_SIZE, *flags]

    return make


def _changed_plan(**values: Any) -> Callable[[Path], object]:
    return lambda plan: plan.write_text(json.dumps({**json.loads(plan.read_text()), **values}))


def _earlier_version(plan: Path) -> None:
    (plan.parent / "index.json").unlink()
    names = "source", "images", "size", "per_shard"
    plan.write_text(json.dumps({name: json.loads(plan.read_text())[name] for name in names}))


def _in_use(patch: pytest.MonkeyPatch) -> contextlib.AbstractContextManager[object]:
    Path("out").mkdir()
    lock = FolderLock(Path("out/.lock"), "")
    lock.acquire()
    return contextlib.closing(_Released(lock))


class _Released:
    """A lock that `close` releases."""

    def __init__(self, lock: FolderLock) -> None:
        self.close = lock.release


def _failing(number: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a function that makes the read of the second image fail with this error number."""

    def around(patch: pytest.MonkeyPatch) -> None:
        read = FolderSource.read

        def fail(source: FolderSource, index: int) -> bytes:
            if index == 1:
                raise OSError(number, os.strerror(number), source.name(index))
            return read(source, index)

        patch.setattr(FolderSource, "read", fail)

    return around


def _without_memory(patch: pytest.MonkeyPatch) -> None:
    def full(image: object, size: int) -> None:
        raise MemoryError

    patch.setattr(worker, "center_crop", full)


def _changing_meanwhile(patch: pytest.MonkeyPatch) -> None:
    asked = prepare._shards

    def shards(out: Path, source: Source, *rest: Any) -> Any:
        done = asked(out, source, *rest)
        archives.pictures(Path("images"), 1, first=0)
        os.utime("images/00.png", (1, 1))
        return done

    patch.setattr(prepare, "_shards", shards)


def _killed_workers(patch: pytest.MonkeyPatch) -> None:
    begin = subprocess.Popen

    def killed(*arguments: Any, **named: Any) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = begin(["sleep", "60"], **{**named, "stdin": -1, "stdout": -1})
        process.send_signal(signal.SIGKILL)
        return process

    patch.setattr(reader.subprocess, "Popen", killed)


def _damaged(folder: Path) -> Path:
    name = places.photos(folder)
    (folder / "images" / "01.png").write_bytes(b"no picture")
    return name


def _one_bad(content: bytes, name: str = "01.png") -> Callable[[Path], Arguments]:
    """Return a function that makes images, one of which --strict refuses, and returns the arguments."""

    def make(folder: Path) -> Arguments:
        places.photos(folder)
        (folder / "images" / name).write_bytes(content)
        return ["images", *_SIZE, "--strict"]

    return make


def _two_splits(folder: Path) -> Arguments:
    archives.pictures(folder / "set" / "train", 2)
    archives.pictures(folder / "set" / "test", 1)
    return ["set", *_SIZE]


def _beside(name: str) -> Callable[[Path], Arguments]:
    """Return a function that makes a folder of images and a text file of this name, and returns the arguments."""

    def make(folder: Path) -> Arguments:
        places.text(folder, name)
        return [places.photos(folder), *_SIZE]

    return make


def _floats() -> bytes:
    from PIL import Image

    return layouts.encoded(Image.new("F", (8, 8), 0.5), "TIFF")


_NEW = "the output folder keeps the images that are done, so that the same command goes on"

CASES = [
    Case("prepare", "a source that does not exist", lambda folder: ["images", *_SIZE], "images"),
    Case("prepare", "a size of 0", lambda folder: [places.photos(folder), "out", "--size", "0"], "size"),
    Case("prepare", "a number of workers below 1", _photos("--workers", "0"), "workers"),
    Case("prepare", "an empty folder", lambda folder: [(folder / "images").mkdir() or "images", *_SIZE], "images"),
    Case(
        "prepare",
        "a folder of text files",
        lambda folder: [places.text(folder, "notes/a.txt").parent, *_SIZE],
        "notes",
    ),
    Case("prepare", "a --kind that the folder does not hold", _photos("--kind", "zip"), "images"),
    Case("prepare", "a --split that the set does not have", _photos("--split", "test"), "images"),
    Case("prepare", "--column with a folder of images", _photos("--column", "label"), "images"),
    Case(
        "prepare",
        "train and test images without --split",
        _two_splits,
        "set",
    ),
    Case(
        "prepare",
        "a broken link, with --strict",
        lambda folder: [places.photos(folder), *_SIZE, "--strict", *_linked(folder)],
        "images",
    ),
    Case(
        "prepare",
        "a damaged image, with --strict",
        _one_bad(b"no picture"),
        "images/01.png",
        leaves=_NEW,
    ),
    Case("prepare", "an empty image, with --strict", _one_bad(b""), "images/01.png", leaves=_NEW),
    Case(
        "prepare",
        "an image that Git LFS has not fetched, with --strict",
        _one_bad(archives.POINTER),
        "images/01.png",
        leaves=_NEW,
    ),
    Case(
        "prepare",
        "an image of floats, with --strict",
        _one_bad(_floats(), "03.tif"),
        "images/03.tif",
        leaves=_NEW,
    ),
    Case(
        "prepare",
        "an image of more than a gigabyte, with --strict",
        lambda folder: [_large(folder), *_SIZE, "--strict"],
        "images/03.png",
        leaves=_NEW,
    ),
    Case(
        "prepare",
        "a damaged image that the packed set leaves out, with --strict",
        lambda folder: [_damaged(folder), *_SIZE, *_packed_before(folder), "--strict"],
        "images/01.png",
    ),
    Case(
        "prepare",
        "a damaged image that a finished shard leaves out, with --strict",
        lambda folder: [_damaged(folder), *_SIZE, *_packed_before(folder, unfinished=True), "--strict"],
        "images/01.png",
    ),
    Case(
        "prepare",
        "only damaged images",
        lambda folder: [_all_damaged(folder), *_SIZE],
        "out",
        leaves=_NEW,
        told="the command also names each image that it leaves out",
    ),
    Case(
        "prepare", "an output folder that was begun with another size", _again(lambda plan: None, "--size", "16"), "out"
    ),
    Case(
        "prepare",
        "images that changed after their folder was begun",
        _again(lambda plan: os.utime("images/00.png", (1, 1))),
        "out",
    ),
    Case(
        "prepare", "images that change while they are packed", _photos(), "out", around=_changing_meanwhile, leaves=_NEW
    ),
    Case(
        "prepare", "a damaged plan in the output folder", _again(lambda plan: plan.write_text("{")), "out/prepare.json"
    ),
    Case("prepare", "an output folder that an earlier version began", _again(_earlier_version), "out"),
    Case("prepare", "an output folder that a later version began", _again(_changed_plan(later=1)), "out"),
    Case(
        "prepare",
        "a packed shard that has changed",
        _again(lambda plan: (plan.parent / "shard_00000.bin").write_bytes(bytes(3 * 3 * 64))),
        "out/shard_00000.bin",
    ),
    Case(
        "prepare",
        "an output folder with other files in it",
        _beside("out/a.txt"),
        "out",
    ),
    Case(
        "prepare",
        "an output folder that is a file",
        _beside("out"),
        "out",
    ),
    Case(
        "prepare",
        "an output folder inside a file",
        lambda folder: [places.photos(folder), places.text(folder, "notes.txt") / "out", *_SIZE[1:]],
        "notes.txt",
    ),
    Case(
        "prepare",
        "an output folder that another process is writing",
        _photos(),
        "out",
        machine=(r"process \d+ on [^,]+",),
        around=_in_use,
        leaves="the other process makes the folder as the command begins",
    ),
    Case("prepare", "a full disk", _photos(), "out/", around=lambda patch: room_for(10), leaves=_NEW),
    Case("prepare", "a disk that fails", _photos(), "images/01.png", around=_failing(errno.EIO), leaves=_NEW),
    Case("prepare", "no memory left", _photos(), "images/00.png", around=_without_memory, leaves=_NEW),
    Case(
        "prepare",
        "a process that the system kills for lack of memory",
        lambda folder: [places.photos(folder), "out", *named(size=8, workers=2)],
        "images/00.png",
        around=_killed_workers,
        leaves=_NEW,
    ),
]


def _linked(folder: Path) -> list[str]:
    (folder / "images" / "lost.png").symlink_to(folder / "nowhere.png")
    return []


def _large(folder: Path) -> Path:
    name = places.photos(folder)
    with (folder / "images" / "03.png").open("wb") as file:
        file.truncate((1 << 30) + 1)  # a sparse file, which takes no blocks
    return name


def _packed_before(folder: Path, unfinished: bool = False) -> list[str]:
    """Pack all of images/, damaged images too; return no arguments."""
    with contextlib.redirect_stderr(io.StringIO()):
        prepare.prepare_images(Path("images").absolute(), Path("out").absolute(), 8, workers=1)
    if unfinished:
        index = json.loads((folder / "out" / "index.json").read_text())
        reason = {"reason": "no image that Pillow knows", "text": "no image that Pillow knows"}
        skipped = [{"name": name, **reason} for name in index["skipped"]]
        (folder / "out" / "shard_00000.json").write_text(json.dumps({"shard": index["shards"][0], "skipped": skipped}))
        (folder / "out" / "index.json").unlink()
    return []


def _all_damaged(folder: Path) -> str:
    return places.text(folder, "images/00.png").parent.name
