from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ebgan_fast.data import DataError, PackedImages
from ebgan_fast.data.packed import INDEX, is_packed

from .layouts import pack

COUNTS = (4, 1, 6)


def write_packed(folder: Path, counts: tuple[int, ...] = COUNTS) -> torch.Tensor:
    """A set of random images in shards of so many; returns them as [M, C, H, W]."""
    images = torch.randint(256, (sum(counts), 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    pack(folder, images, counts)
    return images


@pytest.mark.parametrize("counts", [(11,), COUNTS], ids=["one shard", "three shards"])
def test_every_image_comes_back(tmp_path: Path, counts: tuple[int, ...]) -> None:
    images = write_packed(tmp_path / "set", counts)
    assert is_packed(tmp_path / "set")
    packed = PackedImages(tmp_path / "set")
    assert (len(packed), packed.shape) == (11, (3, 5, 4))
    wanted = torch.tensor([10, 3, 4, 5, 0, 3, 9])
    found = packed.gather(wanted)
    assert torch.equal(found, images[wanted])
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert packed.gather(torch.arange(0)).shape == (0, 3, 5, 4)
    place = torch.zeros(7, 3, 5, 4, dtype=torch.uint8).to(memory_format=torch.channels_last)
    assert packed.gather(wanted, place) is place
    assert torch.equal(place, images[wanted])
    for outside in (-1, 11):
        with pytest.raises(IndexError):
            packed.gather(torch.tensor([0, outside]))
    packed.verify()


def test_the_fingerprint_is_the_images(tmp_path: Path) -> None:
    write_packed(tmp_path / "one")
    write_packed(tmp_path / "same")
    other = write_packed(tmp_path / "other", (4, 1, 5))
    prints = [PackedImages(tmp_path / name).fingerprint for name in ("one", "same", "other")]
    assert prints[0] == prints[1] != prints[2]
    assert len(other) == 10


def test_reading_every_byte_is_shown(tmp_path: Path) -> None:
    write_packed(tmp_path / "set")
    told: list[tuple[float, str]] = []
    PackedImages(tmp_path / "set").verify(lambda share, text: told.append((share, text)))
    assert [name for _, name in told] == ["shard_00000.bin", "shard_00001.bin", "shard_00002.bin"]
    assert [share for share, _ in told] == pytest.approx([4 / 11, 5 / 11, 1.0])


def test_a_flipped_bit_is_named(tmp_path: Path) -> None:
    write_packed(tmp_path / "set")
    shard = tmp_path / "set" / "shard_00002.bin"
    content = bytearray(shard.read_bytes())
    content[37] ^= 4
    shard.write_bytes(content)
    packed = PackedImages(tmp_path / "set")  # of the right length
    with pytest.raises(DataError, match=r"shard_00002\.bin: got bytes that have changed"):
        packed.verify()


def test_a_missing_or_short_shard_is_named(tmp_path: Path) -> None:
    write_packed(tmp_path / "set")
    shard = tmp_path / "set" / "shard_00001.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"shard_00001\.bin: got a shard of 59 bytes, expected 60"):
        PackedImages(tmp_path / "set")
    shard.unlink()
    with pytest.raises(DataError, match=r"shard_00001\.bin: a shard is missing"):
        PackedImages(tmp_path / "set")


def test_an_index_that_is_none(tmp_path: Path) -> None:
    assert not is_packed(tmp_path)
    with pytest.raises(DataError, match=r"index\.json: no such file; expected .*prepare"):
        PackedImages(tmp_path)
    write_packed(tmp_path / "set")
    index = tmp_path / "set" / INDEX
    good = json.loads(index.read_text())
    for text, message in [
        ("{", "can't be read"),
        ("[]", "of another program"),
        (json.dumps({**good, "format": "x"}), "of another program"),
        (json.dumps({**good, "version": 2}), "got version 2, expected 1"),
        (json.dumps({**good, "shards": [{"file": "a"}]}), "a damaged index"),
        (json.dumps({**good, "shards": []}), "a set of no images"),
        (json.dumps({**good, "shards": [{**good["shards"][0], "images": "4"}]}), "a damaged index"),
        (json.dumps({**good, "height": -5}), "a damaged index"),
    ]:
        index.write_text(text)
        with pytest.raises(DataError, match=message):
            PackedImages(tmp_path / "set")
