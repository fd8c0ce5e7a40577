from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ebgan_fast.data import DataError, read_idx

Write = Callable[..., Path]


def idx_bytes(data: bytes, *sizes: int, dtype: int = 8) -> bytes:
    return bytes([0, 0, dtype, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + data


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: bytes, name: str = "some-idx-ubyte") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("shape", [(7,), (0,), (2, 3, 5), (1, 2, 3, 4)], ids=str)
def test_round_trip(write: Write, shape: tuple[int, ...], pack: Callable[[bytes], bytes]) -> None:
    count = torch.Size(shape).numel()
    data = bytes((37 * i + 200) % 256 for i in range(count))
    read = read_idx(write(pack(idx_bytes(data, *shape))), len(shape))
    assert read.dtype == torch.uint8
    assert read.shape == shape
    assert bytes(read.flatten().tolist()) == data


def test_gzip_is_told_by_content(write: Write) -> None:
    assert read_idx(write(gzip.compress(idx_bytes(b"\x05", 1)), "no-suffix"), 1).tolist() == [5]
    assert read_idx(write(idx_bytes(b"\x05", 1), "suffix.gz"), 1).tolist() == [5]


def test_the_tensor_is_writable(write: Write) -> None:
    labels = read_idx(write(idx_bytes(b"\x05\x06", 2)), 1)
    labels[0] = 9
    assert labels.tolist() == [9, 6]


GOOD = idx_bytes(bytes(range(6)), 1, 2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got a file that starts with nothing, expected an IDX file"),
        (b"\0\0\x08", "got a file that starts with 000008, expected an IDX file"),
        (b"\x89PNG" + GOOD, "got a file that starts with 89504e47, expected an IDX file"),
        (b"\0\1" + GOOD[2:], "got a file that starts with 00010803, expected an IDX file"),
        (idx_bytes(bytes(24), 1, 2, 3, dtype=0x0D), r"got dtype code 0x0d \(float\), expected 0x08"),
        (idx_bytes(bytes(6), 1, 2, 3, dtype=0x77), r"got dtype code 0x77 \(unknown\), expected 0x08"),
        (idx_bytes(bytes(6), 6), "got 1 dimensions, expected 3"),
        (idx_bytes(bytes(6), 1, 1, 2, 3), "got 4 dimensions, expected 3"),
        (GOOD[:11], r"got 11 bytes, expected a header of 16 \(truncated\)"),
        (GOOD[:-1], r"got 5 bytes of data \(truncated\), expected 6 for shape \[1, 2, 3\]"),
        (GOOD + b"\0", r"got bytes beyond the data, expected 6 for shape \[1, 2, 3\]"),
        (idx_bytes(b"", *[2**32 - 1] * 3), r"got 0 bytes of data \(truncated\), expected 7922816"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_refuses(write: Write, content: bytes, message: str, pack: Callable[[bytes], bytes]) -> None:
    path = write(pack(content))
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, 3)
    assert str(caught.value).startswith(f"{path}: got ")


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:-4] + b"\0\0\0\0",
        lambda packed: packed[:12] + b"\xff\xff\xff" + packed[15:],
    ],
    ids=["cut", "wrong length", "bad block"],
)
def test_refuses_a_damaged_gzip(write: Write, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(DataError, match="got a damaged gzip file"):
        read_idx(write(damage(gzip.compress(GOOD))), 3)


def test_names_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: got No such file or directory, expected a readable IDX file"):
        read_idx(tmp_path / "absent", 3)
