"""`prepare` goes on with a folder that this or another version began or finished, or refuses it in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ebgan_fast.data import DataError
from ebgan_fast.data.prepare import prepare_images

from ..conftest import Fork
from . import layouts
from .small_sets import IMAGE_BYTES, SIZE, TWO_IMAGES, contents

ROOT = Path(__file__).parents[2]
GOES_ON = "expected the same: give another output folder"


class InterruptionError(Exception):
    """An error that ends a call of `prepare_images` after some images."""


def begin(source: Path, out: Path, images: int) -> None:
    """Pack the first `images` images of a source, in shards of two, and interrupt the call there."""

    def stop(done: int, total: int) -> None:
        if done == images:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES, progress=stop)


def replace(source: Path, name: str = "005.png") -> None:
    """Replace a file's content by other bytes, as many as before, with a time one second later."""
    path = source / name
    before = path.stat()
    path.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    assert path.stat().st_size == before.st_size


def replace_done(source: Path) -> None:
    replace(source, "000.png")


def add(source: Path) -> None:
    shutil.copy(source / "005.png", source / "0055.png")


def remove(source: Path) -> None:
    (source / "006.png").unlink()


def rename(source: Path) -> None:
    (source / "006.png").rename(source / "007.png")


@pytest.mark.parametrize("images", [5, 7], ids=["begun", "finished"])
@pytest.mark.parametrize("change", [replace, replace_done, add, remove, rename])
def test_images_that_have_changed_are_refused(change: Callable[[Path], None], images: int, tmp_path: Path) -> None:
    source, out = layouts.folder(tmp_path / "images"), tmp_path / "out"
    if images == 7:
        prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    else:
        begin(source, out, images)
    before = contents(out)
    change(source)
    with pytest.raises(DataError, match=GOES_ON):
        prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    assert contents(out) == before


def test_images_that_have_not_changed_are_gone_on_with(tmp_path: Path) -> None:
    source, out = layouts.folder(tmp_path / "images"), tmp_path / "out"
    prepare_images(source, tmp_path / "whole", SIZE, workers=1, shard_bytes=TWO_IMAGES)
    begin(source, out, 5)
    done = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert len(done) == 5
    prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    assert contents(out) == contents(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in done if path.exists()}.items() <= done.items()


@pytest.mark.parametrize("name", ["000.png", "006.png"], ids=["packed already", "packed later"])
def test_an_image_that_changes_while_they_are_packed_ends_it(name: str, tmp_path: Path) -> None:
    source, out = layouts.folder(tmp_path / "images"), tmp_path / "out"

    def change(done: int, total: int) -> None:
        if done == 3:
            replace(source, name)

    with pytest.raises(DataError, match=f"have changed while they were packed .*{GOES_ON}"):
        prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES, progress=change)
    assert not (out / "index.json").exists()
    with pytest.raises(DataError, match=f"have changed since the folder was begun .*{GOES_ON}"):
        prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    assert not (out / "index.json").exists()


def test_an_earlier_versions_beginning_is_refused(tmp_path: Path) -> None:
    source, out = layouts.folder(tmp_path / "images"), tmp_path / "out"
    begin(source, out, 5)
    plan = json.loads((out / "prepare.json").read_text())
    del plan["stamp"]
    (out / "prepare.json").write_text(json.dumps(plan))
    before = contents(out)
    with pytest.raises(
        DataError, match=r"an earlier version began, .* expected one of this version: give another output folder"
    ):
        prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    assert contents(out) == before


def test_an_earlier_versions_set_is_verified_and_accepted(tmp_path: Path) -> None:
    """The pictures that the set was made of are gone; as many other pictures stand in for them."""
    source, out = tmp_path / "images", shutil.copytree(ROOT / "tests/written_before/e23d039/packed", tmp_path / "out")
    source.mkdir()
    for number in range(13):
        (source / f"{number:02d}.png").write_bytes(layouts.encoded(layouts.picture(number)))
    plan = json.loads((out / "prepare.json").read_text())
    (out / "prepare.json").write_text(json.dumps({**plan, "source": str(source.resolve())}))
    before = contents(out)
    told: list[tuple[int, int]] = []

    def again() -> int:
        return prepare_images(
            source, out, SIZE, workers=1, shard_bytes=8 * IMAGE_BYTES, progress=lambda *done: told.append(done)
        ).images

    assert again() == 12
    assert told[-1] == (13, 13)
    assert contents(out) == before
    shard = out / "shard_00001.bin"
    shard.write_bytes(shard.read_bytes()[:-1] + bytes([shard.read_bytes()[-1] ^ 1]))
    with pytest.raises(DataError, match=r"shard_00001\.bin: got bytes that have changed"):
        again()


NO_FIELDS = [b"", b"{", b"[" * 100_000, b'{"shard": ' * 100_000, b"null", b"[]", b"5", b'"text"', b"\xff\xfe", b"{}"]
NO_PLANS = [b'{"source": 5}', b'{"size": {"a": [1]}, "images": null}', b'{"stamp": []}', b'{"size": "\\ud800\\n"}']
NO_PLANS += [b'{"stamp": "", "column": "%s"}' % (b"x" * 2**20), b'{"stamp": "", "images": %s}' % (b"9" * 4200)]


@pytest.mark.parametrize("images", [5, 7], ids=["begun", "finished"])
@pytest.mark.parametrize("content", NO_FIELDS + NO_PLANS, ids=lambda content: repr(content[:20]))
def test_a_damaged_plan_is_one_sentence(content: bytes, images: int, tmp_path: Path) -> None:
    source, out = layouts.folder(tmp_path / "images"), tmp_path / "out"
    if images == 7:
        prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    else:
        begin(source, out, images)
    (out / "prepare.json").write_bytes(content)
    before = contents(out)
    with pytest.raises(DataError, match="another output folder") as error:
        prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2000
    assert contents(out) == before


def edited(**values: object) -> Callable[[bytes], bytes]:
    """Return a function that changes values of the shard in a record."""

    def edit(content: bytes) -> bytes:
        fields = json.loads(content)
        return json.dumps({**fields, "shard": {**fields["shard"], **values}}).encode()

    return edit


def with_skipped(skipped: object) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), "skipped": skipped}).encode()


def replaced_by(content: bytes) -> Callable[[bytes], bytes]:
    return lambda record: content


NO_RECORDS: dict[str, Callable[[bytes], bytes]] = {
    **{repr(content[:20]): replaced_by(content) for content in NO_FIELDS},
    "cut off": lambda record: record[:-1],
    "two values of a name": lambda it: it[:-1] + b',"shard":{"file":"shard_00001.bin","images":2,"digest":"other"}}',
    "a fraction": edited(images=2.0),
    "no number": edited(images=None),
    "fewer": edited(images=1),
    "a name of another": edited(file="../shard_00000.bin"),
    "no name": edited(file=None),
    "no digest": edited(digest=5),
    "a digest of another kind": edited(digest="0" * 31),
    "a field more": edited(more=5),
    "no list": with_skipped(5),
    "texts": with_skipped(["a.png"]),
    "one too many": with_skipped([{"name": "a.png", "reason": "damaged"}]),
    "numbers": with_skipped([{"name": 5, "reason": 5}]),
}


@pytest.mark.parametrize("damage", NO_RECORDS.values(), ids=NO_RECORDS)
def test_a_shard_of_a_damaged_record_is_made_again(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    source, out = layouts.folder(tmp_path / "images"), tmp_path / "out"
    prepare_images(source, tmp_path / "whole", SIZE, workers=1, shard_bytes=TWO_IMAGES)
    begin(source, out, 5)
    record = out / "shard_00001.json"
    record.write_bytes(damage(record.read_bytes()))
    prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    assert contents(out) == contents(tmp_path / "whole")


def go_on(source: Path, out: Path) -> None:
    prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)


@pytest.mark.xdist_group("forked")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
@pytest.mark.parametrize("name", ["shard_00001.json", "shard_00001.bin"])
def test_a_pipe_keeps_nobody_waiting(name: str, fork: Fork, tmp_path: Path) -> None:
    source, out = layouts.folder(tmp_path / "images"), tmp_path / "out"
    prepare_images(source, tmp_path / "whole", SIZE, workers=1, shard_bytes=TWO_IMAGES)
    begin(source, out, 5)
    (out / name).unlink()
    os.mkfifo(out / name)
    child = fork(go_on, source, out)
    assert child.status() == 0, child.said
    assert contents(out) == contents(tmp_path / "whole")


def test_a_record_without_its_shard_is_made_again(tmp_path: Path) -> None:
    source, out = layouts.folder(tmp_path / "images"), tmp_path / "out"
    prepare_images(source, tmp_path / "whole", SIZE, workers=1, shard_bytes=TWO_IMAGES)
    begin(source, out, 5)
    (out / "shard_00000.bin").unlink()
    (out / "shard_00001.bin").write_bytes(b"short")
    prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_finished_set_without_a_shard_is_one_sentence(tmp_path: Path) -> None:
    source, out = layouts.folder(tmp_path / "images"), tmp_path / "out"
    prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    (out / "shard_00001.bin").unlink()
    with pytest.raises(
        DataError,
        match=r"shard_00001\.bin: got no such file, expected one of .*; prepare the images into",
    ):
        prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)


def test_records_of_a_finished_set_go(tmp_path: Path) -> None:
    """A process that was killed right after it wrote the index leaves such records."""
    source, out = layouts.folder(tmp_path / "images"), tmp_path / "out"
    prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    whole = contents(out)
    for number in (1, 3):
        (out / f"shard_{number:05d}.json").write_text("{}")
    (out / "shard_00002.json").mkdir()  # a folder, which no `prepare` wrote as a record
    prepare_images(source, out, SIZE, workers=1, shard_bytes=TWO_IMAGES)
    (out / "shard_00002.json").rmdir()
    assert contents(out) == whole
