"""Parquet that unpacks to far more than its file: no more rows are read at once than memory has room for."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ebgan_fast.data import DataError
from ebgan_fast.data.prepare import prepare_images
from ebgan_fast.data.sources import open_source, parquet
from ebgan_fast.data.sources.parquet_pages import longest_value

from ..limited_memory import Fork, error_within, needs_linux
from .archives import PNGS, held, parquet_of

LARGE = 112 << 20
ROOM = 16 * LARGE  # what 16 rows hold, of which half is address space that pyarrow's allocator sets aside

COLUMNS = ("image", "photo", "struct", "path")


def repeated(content: bytes, count: int) -> pyarrow.Array:
    """An array of equal values, of which the memory holds one."""
    return pyarrow.DictionaryArray.from_arrays(np.zeros(count, np.int32), pyarrow.array([content]))


def hostile(path: Path, column: str) -> Path:
    """Write a file of kilobytes, of which 16 rows hold 1.8 GB."""
    large = PNGS[0] + bytes(LARGE)
    packed = repeated(large, 16)
    columns: dict[str, pyarrow.Array] = {
        "image": packed,
        "photo": packed,
        "struct": pyarrow.StructArray.from_arrays([packed], ["bytes"]),
        "path": pyarrow.StructArray.from_arrays([pyarrow.array(PNGS[:1] * 16), packed], ["bytes", "path"]),
    }
    table = {"image" if column in ("struct", "path") else column: columns[column]}
    # Without its types: with them the values of a dictionary are read as one.
    pyarrow.parquet.write_table(pyarrow.table(table), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 100_000
    return path


def read(path: Path) -> None:
    """Open a file, and read two of its rows."""
    source = open_source(path)
    for index in (0, 15):
        content = source.read(index)
        assert isinstance(content, bytes)
        assert content.startswith(PNGS[0])


@needs_linux
@pytest.mark.xdist_group("forked")
@pytest.mark.parametrize("column", COLUMNS)
def test_a_small_file_does_not_fill_the_memory(column: str, fork: Fork, tmp_path: Path) -> None:
    path = hostile(tmp_path / "a.parquet", column)
    assert error_within(fork, ROOM, read, path) == ("", "")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for a thousand bytes."""
    monkeypatch.setattr(parquet, "_ROOM", 1000)


def packed(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return path


def test_a_row_group_of_far_more_than_the_file_is_named(small: None, tmp_path: Path) -> None:
    """Its rows alone are left out."""
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"image": [PNGS[0], PNGS[1], bytes(100_000)]})
    pyarrow.parquet.write_table(table, path, compression="zstd", row_group_size=2)
    prepared = prepare_images(path, tmp_path / "out", 8, workers=1)
    assert (prepared.images, prepared.skipped) == (2, [f"{path}, row 2"])
    assert str(prepared.left_out) == (
        "1 a row group of which a row may unpack to far more than the file; way out: write the file anew, without "
        f"compression ({path}, row 2)"
    )
    with pytest.raises(DataError, match=rf"\(100004 bytes, expected at most {2 * path.stat().st_size}\)"):
        open_source(path).read(2)
    pyarrow.parquet.write_table(table, path, compression="none", row_group_size=2)
    assert open_source(path).read(2) == bytes(100_000)


def test_a_column_of_far_more_than_the_file_is_named(small: None, tmp_path: Path) -> None:
    """It is looked at to learn if it holds images, which the name of another ends."""
    path = packed(tmp_path / "a.parquet", photo=[PNGS[0]], large=[bytes(100_000)])
    with pytest.raises(DataError, match=r"without compression \(.*\), or name another: --column NAME") as error:
        open_source(path)
    assert str(error.value).startswith(f"{path}: got the column large with a row group of which a row may unpack to ")
    assert held(open_source(path, column="photo")) == [0]


def test_lists_that_may_fill_the_memory_are_not_looked_at(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All values of a part may be one row's."""
    path = packed(tmp_path / "a.parquet", photo=[PNGS[0]] * 2, photos=[[], [b"no image" * 10] * 1000])
    read, asked = pyarrow.parquet.ParquetFile.iter_batches, []

    def iter_batches(self: Any, rows: int, *, columns: list[str], **options: Any) -> Any:
        asked.extend(columns)
        return read(self, rows, columns=columns, **options)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", iter_batches)
    assert str(open_source(path).aside) == "1 column of lists of images, which can't be taken (photos)"
    assert asked == ["photo"]


def test_a_file_of_large_images_is_read(small: None, tmp_path: Path) -> None:
    """What no packing has made small may take the memory that it takes on the disk."""
    contents = [PNGS[0] + os.urandom(10_000) for _ in range(30)]
    source = open_source(parquet_of(tmp_path / "a.parquet", contents))
    assert [source.read(row) for row in range(30)] == contents


ENCODINGS: list[dict[str, Any]] = [
    {},
    {"use_dictionary": False},
    {"data_page_version": "2.0"},
    {"use_dictionary": False, "data_page_size": 1000},
    {"use_dictionary": False, "column_encoding": "DELTA_LENGTH_BYTE_ARRAY"},
    {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
    {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY", "data_page_version": "2.0"},
]


def part_of(path: Path) -> Any:
    return pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("options", ENCODINGS, ids=str)
def test_no_value_is_longer_than_its_pages(options: dict[str, Any], compression: str, tmp_path: Path) -> None:
    """Nor are the pages longer than all of the column's, as pyarrow has written them."""
    contents = [bytes(50_000), *(os.urandom(1000) for _ in range(100)), bytes(50_000)]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": contents}), path, compression=compression, **options)
    with path.open("rb") as file:
        longest, count = longest_value(file, part_of(path))
    assert count == 102
    assert 50_000 <= longest <= part_of(path).total_uncompressed_size
    source = open_source(path, column="image")
    assert [source.read(index) for index in range(102)] == contents


def test_a_value_that_grows_from_page_to_page(tmp_path: Path) -> None:
    """Each begins as the one before, and adds to it: all pages together have the last one's bytes."""
    contents = [bytes(1000 * number) for number in range(1, 100)]
    path = tmp_path / "a.parquet"
    options: dict[str, Any] = {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY", "write_batch_size": 1}
    table = pyarrow.table({"image": contents})
    pyarrow.parquet.write_table(table, path, data_page_size=1, compression="none", **options)
    with path.open("rb") as file:
        assert longest_value(file, part_of(path))[0] >= 99_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no page at byte 0"),
        (b"\x15", "a damaged page at byte 1"),
        (b"\0", "a damaged page at byte 0"),
        (b"\x15\0\x15\2\x15\1\0", "a damaged page at byte 0"),  # packed into -1 bytes
        (b"\x15\0\x16\2\x15\2\0", "a damaged page at byte 0"),  # unpacked, a number of 64 bits, which isn't read
        (b"\x05\xfe\xff\xff\xff\x0f\2", "a damaged page at byte 6"),  # a field that would wrap around
        (b"\x1b\0", "a damaged page at byte 1"),  # a map
        (b"\x18\xff\xff\xff\xff\xff\xff\x7f", "a damaged page at byte 8"),  # bytes beyond any file
        (b"\x15\0\x15\2\x15\2\0\xff", "no page at byte 8"),
    ],
)
def test_damaged_headers_of_pages(content: bytes, words: str) -> None:
    part = SimpleNamespace(data_page_offset=0, dictionary_page_offset=None, total_compressed_size=1000)
    with pytest.raises(ValueError, match=words):
        longest_value(io.BytesIO(content), part)


@pytest.mark.parametrize(
    ("content", "place"),
    [(b"\x1c" * 5000, 17), (b"\x19\xf1\xff\xff\xff\x7f" + bytes(1 << 25), (1 << 24) + 1)],
    ids=["structs in structs", "a list that goes on"],
)
def test_headers_of_pages_come_to_an_end(content: bytes, place: int) -> None:
    part = SimpleNamespace(data_page_offset=0, dictionary_page_offset=None, total_compressed_size=1 << 30)
    with pytest.raises(ValueError, match=f"a damaged page at byte {place}"):
        longest_value(io.BytesIO(content), part)


def test_headers_of_pages_hold_more_than_sizes() -> None:
    """Statistics, and what a later version may add: of two fields of one number the last counts, as Thrift has it."""
    content = (
        b"PAR1"
        b"\x15\0"  # the kind
        b"\x15\2"  # unpacked: 1 byte
        b"\x15\6"  # packed: 3 bytes
        b"\5\4\xd0\x0f"  # unpacked once more: 1000 bytes
        b"\x16\2\6\4\2"  # and as a number of 64 bits, which isn't it
        b"\x3c\x15\2\x15\0\x18\3abc\0"  # the page's own
        b"\x11\x12\x13a\x17" + bytes(8) + b"\x19\x25\2\4\x19\x11\1\x1a\x18\2ab\0"
        b"abc"
    )
    part = SimpleNamespace(data_page_offset=4, dictionary_page_offset=0, total_compressed_size=len(content) - 4)
    assert longest_value(io.BytesIO(content), part) == (1000, 1)
