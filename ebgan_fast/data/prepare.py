"""Pack a set of images: decode and resize each image once, so that training reads pixels.

An unfinished folder holds prepare.json, the plan: the source and the settings. For every finished shard it holds
shard_00000.bin and shard_00000.json. The .json is written after the .bin has reached the disk, and index.json after all
shards. So if a process is killed, the next call keeps each whole shard and makes the others again. A lock keeps a
second process out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from .._console import Tolerant, abridged, printable, say, shown
from .._files import replacing, sync_folder, temporary_name
from .._json import read_object
from .._lock import FolderLock
from .errors import DataError
from .packed import INDEX, PackedImages, Shard, index_text, is_packed
from .reader import Reader, allowed_workers
from .sources import LOST, Kind, Source, Tally, open_source, stamp
from .worker import Breakdown, Failure

_PLAN, _LOCK = "prepare.json", ".lock"
_PLAN_BEFORE = ("source", "images", "size", "per_shard")  # fields of an earlier version, which had no stamp of files
_WAY_OUT = "give another output folder, or delete this one"
_SHARD_BYTES = 1 << 28  # 256 MiB
_LARGEST_RECORD = 1 << 30  # bytes: a record names each image that was left out

_DIGEST = re.compile("[0-9a-f]{32}")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """The outcome of packing a source.

    Attributes:
        images: the number of packed images.
        skipped: names of the images that couldn't be decoded.
        left_out: the count, by reason, of the images in `skipped` and of things that may have held images, such as
            links to nothing.
        left_aside: the count of anything else in the source, by kind, such as ".txt".
    """

    images: int
    skipped: list[str]
    left_out: Tally
    left_aside: Tally


def prepare_images(
    source: Path,
    out: Path,
    size: int,
    *,
    kind: Kind | None = None,
    split: str | None = None,
    column: str | None = None,
    workers: int | None = None,
    strict: bool = False,
    progress: Progress = lambda done, total: None,
    shard_bytes: int = _SHARD_BYTES,
) -> Prepared:
    """Crop and resize every image of a source into packed shards. The result doesn't depend on `workers`.

    If a call is killed, or ends because the disk is full, the same call continues after the last whole shard. If the
    folder is finished, the call reads every byte and compares the checksums.

    Args:
        source: a file or folder that `open_source` can open.
        out: the folder to make, or one that an earlier call with the same images and size began.
        size: the side of the square images in pixels.
        kind: the kind to take from a folder that holds several kinds, see `open_source`.
        split: the split to take from a set that has several.
        column: the column to take from a parquet file or a webdataset, or the array to take from an array file.
        workers: the number of processes. None: as many as this process's share of processors and memory allows. 1: this
            process reads the images itself.
        strict: True to raise an error at the first image that can't be decoded. False: such images are reported on
            standard error and left out.
        progress: called with the number of finished images, those of earlier calls included, and the number of all.
        shard_bytes: the largest size of a shard in bytes.

    Returns:
        The number of packed images, those that were left out, and anything else in the source.

    Raises:
        ValueError: an impossible size or number of workers, or an unknown kind.
        DataError: the source can't be opened; the folder was made with another source or other settings, is being made
            by another process, or has changed bytes; the images have changed since the folder was begun; no image can
            be decoded, or with `strict` one can't be.
        OSError: the disk is full or can't be written. Finished shards stay.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from ebgan_fast.data.prepare import prepare_images
        >>> Path("faces").mkdir()
        >>> Image.new("RGB", (40, 30), "red").save("faces/a.png")
        >>> _ = Path("faces/names.txt").write_text("a")
        >>> prepared = prepare_images(Path("faces"), Path("small"), size=16, workers=1)
        >>> prepared.images, str(prepared.left_out), str(prepared.left_aside)
        (1, '', '1 .txt (names.txt)')
    """
    for name, value in (("size", size), ("workers", 1 if workers is None else workers)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    opened = open_source(source, kind=kind, split=split, column=column)
    lost = opened.aside.of(LOST)
    if strict and lost:
        raise DataError(f"{source}: got {lost}, expected none (without --strict they are left out)")
    per_shard = max(1, shard_bytes // (3 * size * size))
    before = stamp(opened, source)
    plan = {
        "source": str(source.resolve()),
        "images": len(opened),
        "size": size,
        "per_shard": per_shard,
        "split": split,
        "column": column,
        "stamp": before,
    }
    with _begun(out, plan):
        if is_packed(out):
            packed = PackedImages(out)
            if strict and packed.skipped:
                _refuse(Failure(packed.skipped[0], packed.reasons[0], packed.reasons[0]))
            packed.verify(lambda share, _: progress(round(share * len(opened)), len(opened)))
        else:
            # Said before the work, so that a user who wants them can stop and give the option that takes them.
            for text in opened.aside.of(kind for kind in opened.aside.kinds if "(--" in kind).texts():
                _tell(f"left aside: {text}")
            records = _shards(out, opened, size, per_shard, workers or allowed_workers(), strict, progress)
            if stamp(opened, source) != before:
                raise DataError(_changed(out, source, "while they were packed"))
            _finish(out, size, records)
            packed = PackedImages(out)
        for record in out.glob("shard_*.json"):  # a process that was killed may have left some, too
            if not record.is_dir():
                record.unlink(missing_ok=True)
    left_out = Tally()
    for name, reason in zip(packed.skipped, packed.reasons, strict=True):
        left_out.add(reason, name)
    left_out.update(lost)
    return Prepared(len(packed), packed.skipped, left_out, opened.aside.without(LOST))


@contextlib.contextmanager
def _begun(out: Path, plan: dict[str, Any]) -> Iterator[None]:
    """Make the folder, or check that it was begun with the same plan, and hold its lock until the block ends.

    Args:
        out: the folder.
        plan: the fields of prepare.json.

    Raises:
        DataError: the folder is of another plan or of something else, or another process holds the lock.
    """
    _check(out, plan)
    out.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(out / _LOCK, "prepare the images into another folder")
    try:
        if (reason := lock.acquire()) is not None:
            _tell(f"{out}: without a lock ({reason}): no other process may prepare the same folder meanwhile")
    except ValueError as error:
        raise DataError(str(error)) from None
    try:
        if not _check(out, plan):
            _write(out / _PLAN, json.dumps(plan, indent=1).encode() + b"\n")
        yield
    finally:
        lock.release()


def _check(out: Path, plan: dict[str, Any]) -> bool:
    """Return True if a folder was begun with this plan, and False if it is new.

    Raises:
        DataError: the folder was begun with another plan, or holds something else.
    """
    path = out / _PLAN
    # Files that a process leaves if it is killed before it wrote the plan, and the file that a Mac adds to any folder.
    beginnings = _LOCK, temporary_name(path).name, ".DS_Store"
    # The folder is listed before the plan is looked for: another process may write the plan in between.
    is_foreign = out.exists() and (not out.is_dir() or any(file.name not in beginnings for file in out.iterdir()))
    if path.is_file():
        begun = _read(path)
        if begun is None:
            raise DataError(f"{path}: got a damaged file, expected the plan of a packed set: {_WAY_OUT}")
        if begun == plan:
            return True
        if "stamp" not in begun:
            of_then = {name: plan[name] for name in _PLAN_BEFORE}
            if is_packed(out) and begun == of_then and plan["split"] is None and plan["column"] is None:
                _tell(
                    f"{out}: an earlier version made it, without a record of the source's files: changes since aren't "
                    "seen"
                )
                return True
            raise DataError(
                f"{out}: got a folder that an earlier version began, without a record of the source's files; expected "
                f"one of this version: {_WAY_OUT}"
            )
        differing = {name: (begun.get(name), value) for name, value in plan.items() if begun.get(name) != value}
        if list(differing) == ["stamp"]:
            raise DataError(_changed(out, Path(plan["source"]), "since the folder was begun"))
        if "size" in differing:
            differing.pop("per_shard", None)  # follows from the size
        listed = ", ".join(
            f"{name} {shown(was)}, now {shown(now)}" for name, (was, now) in differing.items() if name != "stamp"
        )
        listed = listed or "settings that this version doesn't know"
        raise DataError(f"{out}: got a folder that was begun with {listed}; expected the same: {_WAY_OUT}")
    if is_foreign:
        raise DataError(f"{out}: got a file, or a folder with other files, expected a new folder")
    return False


def _changed(out: Path, source: Path, when: str) -> str:
    return (
        f"{out}: got images that have changed {when} (names, sizes or times of files in {source}); expected the same: "
        f"{_WAY_OUT}"
    )


@dataclass(frozen=True)
class _Record:
    """The record of a finished shard, which its .json file holds."""

    shard: Shard
    skipped: list[Failure]


def _shards(
    out: Path, source: Source, size: int, per_shard: int, workers: int, strict: bool, progress: Progress
) -> list[_Record]:
    """Write every shard that no earlier call has finished, and return the records of all shards."""
    total, records = len(source), []
    with contextlib.closing(Reader(source, size, workers)) as reader:
        for number, first in enumerate(range(0, total, per_shard)):
            wanted = range(first, min(first + per_shard, total))
            path = out / f"shard_{number:05d}.bin"
            record = _record_of(path, len(wanted), 3 * size * size)
            if strict and record is not None and record.skipped:
                _refuse(record.skipped[0])
            if record is None:
                record = _shard(path, wanted, reader, strict, lambda done: progress(done, total))
            else:
                progress(wanted.stop, total)
            records.append(record)
    return records


def _record_of(path: Path, wanted: int, image_bytes: int) -> _Record | None:
    """Return the record of a finished shard, or None if it is missing or not whole.

    Args:
        path: the shard's .bin file.
        wanted: the number of images that the shard was made of, including those that couldn't be decoded.
        image_bytes: the bytes of one packed image.
    """
    fields = _read(path.with_suffix(".json")) or {}
    with contextlib.suppress(KeyError, TypeError, OSError):
        record = _Record(Shard(**fields["shard"]), [Failure(**failure) for failure in fields["skipped"]])
        images, skipped = record.shard.images, record.skipped
        texts = [record.shard.file, record.shard.digest, *(text for one in skipped for text in asdict(one).values())]
        if (
            type(images) is int
            and all(isinstance(text, str) for text in texts)
            and record.shard.file == path.name
            and _DIGEST.fullmatch(record.shard.digest)
            and images + len(skipped) == wanted
            and path.stat().st_size == images * image_bytes
        ):
            return record
    return None


def _shard(path: Path, wanted: range, reader: Reader, strict: bool, progress: Callable[[int], None]) -> _Record:
    """Write the shard of the source's images `wanted`, and return its record."""
    skipped: list[Failure] = []
    digest = hashlib.blake2b(digest_size=16)
    images = 0

    def pixels() -> Iterator[bytes]:
        nonlocal images
        for done, result in enumerate(reader.read(wanted), wanted.start + 1):
            if isinstance(result, Breakdown):
                raise DataError(
                    f"{abridged(result.name)}: {result.text}; once that is fixed, the same command goes on after "
                    "the last whole shard"
                )
            if isinstance(result, Failure):
                if strict:
                    _refuse(result)
                _tell(f"left out: {abridged(result.name)}: {result.text}")
                skipped.append(result)
            else:
                digest.update(result)
                images += 1
                yield result
            progress(done)

    _write(path, pixels())
    record = _Record(Shard(path.name, images, digest.hexdigest()), skipped)
    _write(path.with_suffix(".json"), json.dumps(asdict(record)).encode())
    return record


def _refuse(failure: Failure) -> NoReturn:
    raise DataError(
        f"{abridged(failure.name)}: got an image that can't be taken ({failure.text}), expected one that can (without "
        "--strict it is left out)"
    )


def _tell(text: str) -> None:
    say(printable(text), Tolerant(sys.stderr))


def _finish(out: Path, size: int, records: list[_Record]) -> None:
    shards = [record.shard for record in records if record.shard.images]
    skipped = [failure for record in records for failure in record.skipped]
    if not shards:
        raise DataError(f"{out}: got images of which none could be read ({len(skipped)} tried), expected at least one")
    reasons = [failure.reason for failure in skipped]
    text = index_text((3, size, size), shards, [failure.name for failure in skipped], reasons)
    _write(out / INDEX, text.encode())


def _read(path: Path) -> dict[str, Any] | None:
    """Return the fields of a JSON file, or None if the file is missing or damaged."""
    try:
        return read_object(path, _LARGEST_RECORD)
    except (OSError, ValueError):
        return None


def _write(path: Path, content: bytes | Iterator[bytes]) -> None:
    """Write a file so that it is whole or missing, even after a power cut.

    Raises:
        OSError: the file can't be written, for example on a full disk. The error names the file.
    """
    with replacing(path) as file:
        file.writelines((content,) if isinstance(content, bytes) else content)
    sync_folder(path.parent)  # a record must not reach the disk before its shard
