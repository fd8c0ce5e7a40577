"""Packing images: each decoded and resized once, so that training reads pixels.

A folder in the making holds prepare.json (what it is made of) and, for every shard that is done, shard_00000.bin and
shard_00000.json. The .json is written after the .bin has reached the disk, and index.json after all of them: what a
killed process leaves is either whole or made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .._files import replacing, sync_folder
from .crop import centre_crop, decode
from .errors import DataError
from .packed import INDEX, PackedImages, Shard, index_text, is_packed
from .sources import Source, open_source

_PLAN = "prepare.json"
_SHARD_BYTES = 1 << 28  # 256 MiB
_PER_TASK = 16  # images that a process takes at a time

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Failure:
    """An image that couldn't be read."""

    name: str
    reason: str


@dataclass(frozen=True)
class Prepared:
    """What a packed folder came from: images packed, and the names of those that couldn't be read."""

    images: int
    skipped: list[str]


def prepare_images(
    source: Path,
    out: Path,
    size: int,
    *,
    workers: int | None = None,
    strict: bool = False,
    progress: Progress = lambda done, total: None,
    shard_bytes: int = _SHARD_BYTES,
) -> Prepared:
    """Crop and resize every image of a source into packed shards. The result doesn't depend on `workers`.

    Killed at any time, or ended by a full disk, the same call goes on after the last whole shard. Of a folder that is
    finished, it reads every byte and compares the checksums.

    Args:
        source: what `open_source` understands.
        out: folder to make, or one that an earlier call with the same source and size began.
        size: side of the square images, in pixels.
        workers: processes. None: one for each processor; 1: this one.
        strict: raise at the first image that can't be read; otherwise it is told on standard error and left out.
        progress: told the images done, those of earlier calls included, and their number.
        shard_bytes: largest size of a shard.

    Returns:
        How many images were packed, and which weren't.

    Raises:
        ValueError: an impossible size or number of workers.
        DataError: no source, a folder made of something else or whose bytes have changed, no image that can be read, or
            with `strict` one that can't.
        OSError: the disk is full or can't be written; what is done stays.
    """
    for name, value in (("size", size), ("workers", 1 if workers is None else workers)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    opened = open_source(source)
    total = len(opened)
    per_shard = max(1, shard_bytes // (3 * size * size))
    _begin(out, {"source": str(source.resolve()), "images": total, "size": size, "per_shard": per_shard})
    finished = is_packed(out)
    if not finished:
        reader = _Reader(source, opened, size, workers or os.cpu_count() or 1)
        with contextlib.closing(reader):
            records = []
            for number, first in enumerate(range(0, total, per_shard)):
                wanted = range(first, min(first + per_shard, total))
                records.append(_shard(out, number, wanted, reader, strict, lambda done: progress(done, total)))
        _finish(out, size, records)
    packed = PackedImages(out)
    if finished:
        packed.verify(lambda share, _: progress(round(share * total), total))
    return Prepared(len(packed), packed.skipped)


@dataclass(frozen=True)
class _Record:
    """A shard that is done, as its .json has it."""

    shard: Shard
    skipped: list[str]


def _begin(out: Path, plan: dict[str, Any]) -> None:
    """Make the folder, or check that it was begun with the same plan."""
    path = out / _PLAN
    if path.is_file():
        begun = json.loads(path.read_text())
        if begun != plan:
            differing = ", ".join(
                f"{name} {begun.get(name)!r}, now {value!r}" for name, value in plan.items() if begun.get(name) != value
            )
            raise DataError(f"{out}: got a folder that was begun with {differing}; expected the same, or a new folder")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: got a file, or a folder of something else, expected a new folder")
    out.mkdir(parents=True, exist_ok=True)
    _write(path, json.dumps(plan, indent=1).encode() + b"\n")


def _shard(
    out: Path, number: int, wanted: range, reader: _Reader, strict: bool, progress: Callable[[int], None]
) -> _Record:
    """Write one shard of the source's images `wanted`, unless an earlier call did."""
    path = out / f"shard_{number:05d}.bin"
    record_path = path.with_suffix(".json")
    if record_path.is_file():
        fields = json.loads(record_path.read_text())
        progress(wanted.stop)
        return _Record(Shard(**fields["shard"]), fields["skipped"])
    skipped: list[str] = []
    digest = hashlib.blake2b(digest_size=16)
    images = 0

    def pixels() -> Iterator[bytes]:
        nonlocal images
        for done, result in enumerate(reader.read(wanted), wanted.start + 1):
            if isinstance(result, _Failure):
                _report(result, strict)
                skipped.append(result.name)
            else:
                digest.update(result)
                images += 1
                yield result
            progress(done)

    _write(path, pixels())
    record = _Record(Shard(path.name, images, digest.hexdigest()), skipped)
    _write(record_path, json.dumps(asdict(record)).encode())
    return record


def _report(failure: _Failure, strict: bool) -> None:
    text = f"{failure.name}: {failure.reason}"
    if strict:
        raise DataError(f"{text}; expected an image that can be read (without --strict it is left out)")
    print(f"left out: {text}", file=sys.stderr)


def _finish(out: Path, size: int, records: list[_Record]) -> None:
    shards = [record.shard for record in records if record.shard.images]
    skipped = [name for record in records for name in record.skipped]
    if not shards:
        raise DataError(f"{out}: none of the {len(skipped)} images could be read, expected at least one")
    _write(out / INDEX, index_text((3, size, size), shards, skipped).encode())
    for record in records:
        (out / record.shard.file).with_suffix(".json").unlink(missing_ok=True)


def _write(path: Path, content: bytes | Iterator[bytes]) -> None:
    """A file that is there whole or not at all, also after a power cut.

    Raises:
        OSError: it can't be written, such as on a full disk; names the file.
    """
    with replacing(path) as file:
        file.writelines((content,) if isinstance(content, bytes) else content)
    sync_folder(path.parent)  # a record must not outlive the shard that it is of


class _Reader:
    """Reads and crops images in order, in this process or in several others."""

    def __init__(self, path: Path, source: Source, size: int, workers: int) -> None:
        self._pool: ProcessPoolExecutor | None = None
        if workers == 1:
            _keep(source, size)
        else:
            # Spawned: a fork of a process with torch's threads may hang.
            self._pool = ProcessPoolExecutor(
                workers, multiprocessing.get_context("spawn"), _open_in_worker, (path, size)
            )

    def read(self, wanted: range) -> Iterator[bytes | _Failure]:
        """Pixels, size x size x 3 bytes, or why there are none, of each image wanted."""
        tasks = [wanted[first : first + _PER_TASK] for first in range(0, len(wanted), _PER_TASK)]
        try:  # asking raises too, once the pool has noticed
            for results in map(_read_task, tasks) if self._pool is None else self._pool.map(_read_task, tasks):
                yield from results
        except BrokenProcessPool as error:
            raise DataError(
                "a process that reads images was killed, perhaps for want of memory; the same command with fewer "
                "workers goes on after the last whole shard"
            ) from error

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


# What this process reads from: set once, so that a task is a few numbers.
_worker: tuple[Source, int] | None = None


def _open_in_worker(path: Path, size: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    _keep(open_source(path), size)


def _keep(source: Source, size: int) -> None:
    global _worker
    _worker = source, size


def _read_task(wanted: range) -> list[bytes | _Failure]:
    assert _worker is not None
    source, size = _worker
    results: list[bytes | _Failure] = []
    for index in wanted:
        try:
            results.append(centre_crop(decode(source.read(index)), size).tobytes())
        except Exception as error:  # whatever a damaged file makes Pillow or an archive raise
            results.append(_Failure(source.name(index), f"{type(error).__name__}: {error}"))
    return results
