from __future__ import annotations

import gc
import json
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch

from ebgan_fast.data import DataError, PackedImages
from ebgan_fast.data.packed import INDEX, Shard, index_text, is_packed

from ..conftest import Fork
from .layouts import pack

COUNTS = (4, 1, 6)


def write_packed(folder: Path, counts: tuple[int, ...] = COUNTS) -> torch.Tensor:
    """Write a packed set of random images, shard i with counts[i] of them; return the images as [M, C, H, W]."""
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
    packed = PackedImages(tmp_path / "set")  # opens, since each shard has the right length
    with pytest.raises(DataError, match=r"shard_00002\.bin: got bytes that have changed"):
        packed.verify()


def test_a_missing_or_short_shard_is_named(tmp_path: Path) -> None:
    write_packed(tmp_path / "set")
    shard = tmp_path / "set" / "shard_00001.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"shard_00001\.bin: got a shard of 59 bytes, expected 60"):
        PackedImages(tmp_path / "set")
    shard.unlink()
    with pytest.raises(DataError, match=r"shard_00001\.bin: got no such file, expected one of"):
        PackedImages(tmp_path / "set")


def test_an_index_that_is_none(tmp_path: Path) -> None:
    assert not is_packed(tmp_path)
    with pytest.raises(DataError, match=r"index\.json: got no such file, expected .*prepare"):
        PackedImages(tmp_path)
    write_packed(tmp_path / "set")
    index = tmp_path / "set" / INDEX
    good = json.loads(index.read_text())
    for text, message in [
        ("{", "got a file that isn't JSON"),
        ("[]", "got a JSON list"),
        (json.dumps({**good, "format": "x"}), "of another program"),
        (json.dumps({**good, "version": 2}), "got version 2, expected 1"),
        (json.dumps({**good, "shards": [{"file": "a"}]}), "a damaged index"),
        (json.dumps({**good, "shards": []}), "a set of no images"),
        (json.dumps({**good, "shards": [{**good["shards"][0], "images": "4"}]}), "a damaged index"),
        (json.dumps({**good, "height": -5}), "a damaged index"),
        (json.dumps({**good, "height": True}), "a damaged index"),
        (json.dumps({**good, "skipped": 5}), "a damaged index"),
        (json.dumps({**good, "skipped": [5]}), "a damaged index"),
        (json.dumps({**good, "reasons": {"a": 1}, "skipped": [None]}), "a damaged index"),
        ("[" * 100_000, "more than 50 levels"),
        ('{"images": ' + "9" * 5000 + "}", "an integer of 5000 digits"),
        ("\x1b[2J" * 1000, "got a file that isn't JSON"),
        (json.dumps({**good, "version": "\x1b" * 1000}), "got version '"),
        (json.dumps({**good, "shards": [{**good["shards"][0], "images": 10**30}]}), "a damaged index"),
        (json.dumps({**good, "height": 10**4000}), "a damaged index"),
        (json.dumps({**good, "shards": good["shards"][:1] * 2}), "a damaged index .*twice"),
        (json.dumps({**good, "version": 10**4000}), "got version <an integer of 13288 bits>"),
        (json.dumps({**good, "shards": [{**good["shards"][0], "digest": 5}]}), "a damaged index"),
    ]:
        index.write_text(text)
        with pytest.raises(DataError, match=message) as caught:
            PackedImages(tmp_path / "set")
        assert len(str(caught.value)) < 500
    index.unlink()
    os.mkfifo(index)
    with pytest.raises(DataError, match="got a pipe or device, expected a file"):
        PackedImages(tmp_path / "set")


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/hostname", "a/b", "..", ".", "", "a\\b", "C:b", "index.json:x", "shard\0", 5, None, ["a"]],
)
def test_a_strangers_shard_is_a_file_of_the_folder(tmp_path: Path, name: object, inside: bool) -> None:
    """A shard's name that is no plain name is refused, with or without a file of that name and the right length."""
    write_packed(tmp_path / "set", (1,))
    (tmp_path / "secret").write_bytes(bytes(60))
    if inside and isinstance(name, str) and name and "\0" not in name and not name.startswith((".", "/", "a/")):
        (tmp_path / "set" / name).write_bytes(bytes(60))
    index = tmp_path / "set" / INDEX
    fields = json.loads(index.read_text())
    fields["shards"][0]["file"] = name
    index.write_text(json.dumps(fields))
    with pytest.raises(DataError, match="got a damaged index") as error:
        PackedImages(tmp_path / "set")
    assert len(str(error.value).splitlines()) == 1


def test_an_earlier_versions_index_has_no_reasons(tmp_path: Path) -> None:
    write_packed(tmp_path / "set")
    index = tmp_path / "set" / INDEX
    fields = json.loads(index.read_text())
    del fields["reasons"]
    index.write_text(json.dumps({**fields, "skipped": ["a", "b"]}))
    assert PackedImages(tmp_path / "set").reasons == ["for a reason that wasn't kept"] * 2


@pytest.mark.parametrize("counts", [(11,), COUNTS], ids=["one shard", "three shards"])
def test_a_batch_is_a_copy(tmp_path: Path, counts: tuple[int, ...]) -> None:
    images = write_packed(tmp_path / "set", counts)
    packed = PackedImages(tmp_path / "set")
    packed.gather(torch.arange(11)).zero_()
    assert torch.equal(packed.gather(torch.arange(11)), images)
    packed.verify()


def test_a_set_may_be_removed_while_it_is_read(tmp_path: Path) -> None:
    images = write_packed(tmp_path / "set")
    packed = PackedImages(tmp_path / "set")
    shutil.rmtree(tmp_path / "set")
    assert torch.equal(packed.gather(torch.arange(11)), images)


def rights(folder: Path) -> list[str]:
    """Return the permissions of each memory mapping of a file in the folder, as Linux writes them."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split()[1] for line in lines if f"{folder}/" in line]


needs_linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc and the limits of Linux")


@needs_linux
def test_a_shard_is_mapped_to_be_read_alone_until_the_set_is_gone(tmp_path: Path) -> None:
    write_packed(tmp_path / "set")
    packed = PackedImages(tmp_path / "set")
    assert rights(tmp_path / "set") == ["r--p"] * len(COUNTS)
    assert len(packed.gather(torch.arange(11))) == 11
    del packed
    gc.collect()
    assert rights(tmp_path / "set") == []


def read_last_image(folder: Path, limited: int, limit: int) -> None:
    """Open a set under a limit, and print one pixel of its first and last image."""
    resource.setrlimit(limited, (limit, resource.getrlimit(limited)[1]))
    packed = PackedImages(folder)
    print(packed.gather(torch.tensor([0, len(packed) - 1]))[:, :, 0, 0].tolist())


@needs_linux
@pytest.mark.xdist_group("forked")
def test_a_set_may_be_larger_than_the_memory_that_is_allowed(fork: Fork, tmp_path: Path) -> None:
    """The set has 8 GiB, stored sparsely with one image on the disk; the process may take 4 GiB."""
    count, each = 2048, 4 << 20
    with (tmp_path / "shard.bin").open("wb") as file:
        file.seek((count - 1) * each)
        file.write(bytes([3, 1, 2, 4]) * (each // 4))
    (tmp_path / INDEX).write_text(index_text((4, 1024, 1024), [Shard("shard.bin", count, "")], []))
    child = fork(read_last_image, tmp_path, resource.RLIMIT_DATA, 4 << 30)
    assert child.status() == 0, child.said
    assert child.said == "[[0, 0, 0, 0], [3, 1, 2, 4]]\n"


@needs_linux
@pytest.mark.xdist_group("forked")
def test_shards_are_not_kept_open(fork: Fork, tmp_path: Path) -> None:
    images = write_packed(tmp_path / "set", (1,) * 100)
    child = fork(read_last_image, tmp_path / "set", resource.RLIMIT_NOFILE, 64)
    assert child.status() == 0, child.said
    assert child.said == f"{images[[0, 99], :, 0, 0].tolist()}\n"


def read_in_a_fork(folder: Path) -> None:
    """Print the sum of all pixels in a fork of this process, and then in this process."""
    packed = PackedImages(folder)
    forked = os.fork()
    if forked:
        assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    print(int(packed.gather(torch.arange(len(packed))).sum()))
    del packed
    gc.collect()
    assert rights(folder) == []


@needs_linux
@pytest.mark.xdist_group("forked")
def test_a_fork_reads_the_same_set(fork: Fork, tmp_path: Path) -> None:
    total = int(write_packed(tmp_path / "set").sum())
    child = fork(read_in_a_fork, tmp_path / "set")
    assert child.status() == 0, child.said
    assert child.said == f"{total}\n" * 2
