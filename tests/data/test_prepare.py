from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ebgan_fast.data import DataError, PackedImages
from ebgan_fast.data.crop import center_crop
from ebgan_fast.data.prepare import prepare_images

from ..full_disk import room_for
from . import layouts
from .small_sets import SIZE, TWO_IMAGES, contents


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_every_layout_is_packed_alike(layout: str, tmp_path: Path) -> None:
    source = layouts.LAYOUTS[layout](tmp_path / "images")
    told: list[tuple[int, int]] = []
    prepared = prepare_images(
        source,
        tmp_path / "out",
        SIZE,
        workers=1,
        shard_bytes=TWO_IMAGES,
        progress=lambda done, total: told.append((done, total)),
    )
    assert (prepared.images, prepared.skipped) == (7, [])
    assert told == [(done, 7) for done in range(1, 8)]
    packed = PackedImages(tmp_path / "out")
    packed.verify()
    assert [shard.images for shard in packed.shards] == [2, 2, 2, 1]
    found = packed.gather(torch.arange(7)).permute(0, 2, 3, 1).numpy()
    for number, pixels in enumerate(found):
        assert (pixels == center_crop(layouts.picture(number), SIZE)).all()


@pytest.mark.slow
def test_the_number_of_processes_does_not_matter(tmp_path: Path) -> None:
    """The shard has so many images that they make three tasks, which two processes share."""
    source = tmp_path / "images"
    source.mkdir()
    for number in range(40):
        (source / f"{number:02d}.png").write_bytes(layouts.encoded(layouts.picture(number)))
    (source / "035.png").write_bytes(b"damaged")
    for workers in (1, 2):
        prepare_images(source, tmp_path / str(workers), SIZE, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    found = PackedImages(tmp_path / "1").gather(torch.arange(40)).permute(0, 2, 3, 1).numpy()
    for number, pixels in enumerate(found):
        assert (pixels == center_crop(layouts.picture(number), SIZE)).all()


def test_what_cannot_be_read_is_told_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = layouts.folder(tmp_path / "images")
    whole = (source / "003.png").read_bytes()
    (source / "003.png").write_bytes(whole[: len(whole) // 2])
    (source / "0035.png").write_bytes(b"no image")
    prepared = prepare_images(source, tmp_path / "out", SIZE, workers=1, shard_bytes=TWO_IMAGES)
    assert prepared.images == 6
    assert prepared.skipped == [str(source / "003.png"), str(source / "0035.png")]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == prepared.skipped
    assert all(line.startswith("left out: ") for line in lines)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["skipped"] == prepared.skipped
    with pytest.raises(DataError, match=r"003\.png: got an image that can.t be taken .*, expected one that can"):
        prepare_images(source, tmp_path / "strict", SIZE, workers=1, strict=True)


def test_nothing_to_pack(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"out: got images of which none could be read \(1 tried\)"):
        prepare_images(tmp_path / "images", tmp_path / "out", SIZE, workers=1)


def test_a_finished_folder_is_left_as_it_is(tmp_path: Path) -> None:
    source = layouts.folder(tmp_path / "images")
    first = prepare_images(source, tmp_path / "out", SIZE, workers=1)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert prepare_images(source, tmp_path / "out", SIZE, workers=1) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == times
    shard = tmp_path / "out" / "shard_00000.bin"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"shard_00000\.bin: got bytes that have changed"):
        prepare_images(source, tmp_path / "out", SIZE, workers=1)


def test_another_source_or_size_is_refused(tmp_path: Path) -> None:
    source = layouts.folder(tmp_path / "images")
    prepare_images(source, tmp_path / "out", SIZE, workers=1)
    with pytest.raises(DataError, match=r"out: got a folder that was begun with size 8, now 4; expected the same"):
        prepare_images(source, tmp_path / "out", 4, workers=1)
    (source / "new.png").write_bytes(layouts.encoded(layouts.picture(9)))
    with pytest.raises(DataError, match="images 7, now 8"):
        prepare_images(source, tmp_path / "out", SIZE, workers=1)
    with pytest.raises(DataError, match="images: got a file, or a folder with other files"):
        prepare_images(source, source, SIZE, workers=1)


@pytest.mark.parametrize("fields", [{"size": 0}, {"workers": 0}])
def test_impossible_numbers(fields: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(fields))}: got 0, expected at least 1"):
        prepare_images(tmp_path, tmp_path / "out", **{"size": 8, **fields})
    assert not (tmp_path / "out").exists()


def test_every_file_and_its_name_reach_the_disk_before_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut, bytes are safe once their file was synced, and a name once its folder was synced."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(number: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{number}')).name}")
        fsync(number)

    def note_name(partial: Path, path: Path) -> None:
        done.append(f"name {path.name}")
        replace(partial, path)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_name)
    prepare_images(layouts.folder(tmp_path / "images"), tmp_path / "out", SIZE, workers=1)
    files = ["prepare.json", "shard_00000.bin", "shard_00000.json", "index.json"]
    assert done == [step for name in files for step in (f"sync .{name}.partial", f"name {name}", "sync out")]


def test_a_full_disk_is_named_and_what_is_done_stays(tmp_path: Path) -> None:
    """The index and the records fit on the full disk, a shard of four images does not."""
    source = layouts.folder(tmp_path / "images")
    out = tmp_path / "out"
    prepare_images(source, tmp_path / "whole", SIZE, workers=1, shard_bytes=2 * TWO_IMAGES)
    with room_for(500), pytest.raises(OSError, match="large") as error:
        prepare_images(source, out, SIZE, workers=1, shard_bytes=2 * TWO_IMAGES)
    assert error.value.filename == str(out / "shard_00000.bin")
    assert sorted(contents(out)) == ["prepare.json"]
    prepare_images(source, out, SIZE, workers=1, shard_bytes=2 * TWO_IMAGES)
    assert contents(out) == contents(tmp_path / "whole")


def test_images_are_noise_of_their_own() -> None:
    assert len({np.asarray(layouts.picture(number)).tobytes() for number in range(9)}) == 9
