"""Some parquet files unpack to far more bytes than they have: only rows that fit in memory are read at once."""

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
from ebgan_fast.data.sources import open_source, parquet, parquet_pages
from ebgan_fast.data.sources.parquet_pages import Part
from ebgan_fast.data.sources.parquet_pages import part_of as pages_of

from ..limited_memory import Fork, error_within, needs_linux
from .archives import PNGS, held, parquet_of

LARGE = 112 << 20
ROOM = 16 * LARGE  # bytes of 16 rows; half of them is address space that pyarrow's allocator reserves

COLUMNS = ("image", "photo", "struct", "path")


def repeated(content: bytes, count: int) -> pyarrow.Array:
    """Return an array of equal values that takes the memory of one."""
    return pyarrow.DictionaryArray.from_arrays(np.zeros(count, np.int32), pyarrow.array([content]))


def hostile(path: Path, column: str) -> Path:
    """Write a file of some kilobytes whose 16 rows unpack to 1.8 GB."""
    large = PNGS[0] + bytes(LARGE)
    packed = repeated(large, 16)
    columns: dict[str, pyarrow.Array] = {
        "image": packed,
        "photo": packed,
        "struct": pyarrow.StructArray.from_arrays([packed], ["bytes"]),
        "path": pyarrow.StructArray.from_arrays([pyarrow.array(PNGS[:1] * 16), packed], ["bytes", "path"]),
    }
    table = {"image" if column in ("struct", "path") else column: columns[column]}
    # Without pyarrow's types, with which a dictionary's values would be read as one.
    pyarrow.parquet.write_table(pyarrow.table(table), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 100_000
    return path


def read(path: Path) -> None:
    """Open a file, and read its first and last row."""
    source = open_source(path)
    for index in (0, 15):
        content = source.read(index)
        assert isinstance(content, bytes)
        assert content.startswith(PNGS[0])


@pytest.mark.slow
@needs_linux
@pytest.mark.xdist_group("forked")
@pytest.mark.parametrize("column", COLUMNS)
def test_a_small_file_does_not_fill_the_memory(column: str, fork: Fork, tmp_path: Path) -> None:
    path = hostile(tmp_path / "a.parquet", column)
    assert error_within(fork, ROOM, read, path) == ("", "")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the reader's room and its longest row be a thousand bytes."""
    monkeypatch.setattr(parquet, "_ROOM", 1000)
    monkeypatch.setattr(parquet, "_LONGEST_ROW", 1000)


def packed(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return path


def test_a_row_group_of_far_more_than_the_file_is_named(small: None, tmp_path: Path) -> None:
    """Only the rows of that group are left out."""
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"image": [PNGS[0], PNGS[1], bytes(100_000)]})
    pyarrow.parquet.write_table(table, path, compression="zstd", row_group_size=2)
    prepared = prepare_images(path, tmp_path / "out", 8, workers=1)
    assert (prepared.images, prepared.skipped) == (2, [f"{path}, row 2"])
    assert str(prepared.left_out) == (
        f"1 may unpack to far more than its file: write it again, without compression ({path}, row 2)"
    )
    with pytest.raises(DataError, match=rf"\(100004 bytes, expected at most {2 * path.stat().st_size}\)"):
        open_source(path).read(2)
    pyarrow.parquet.write_table(table, path, compression="none", row_group_size=2)
    assert open_source(path).read(2) == bytes(100_000)


def test_a_column_of_far_more_than_the_file_is_named(small: None, tmp_path: Path) -> None:
    """A column's values are read to learn if they are images, unless --column names the column."""
    path = packed(tmp_path / "a.parquet", photo=[PNGS[0]], large=[bytes(100_000)])
    with pytest.raises(DataError, match=r"without compression \(.*\), or name another: --column NAME") as error:
        open_source(path)
    assert str(error.value).startswith(f"{path}: got the column large, which may unpack to far more than its file: ")
    assert held(open_source(path, column="photo")) == [0]


def test_a_column_beside_the_usual_one_ends_nothing(small: None, tmp_path: Path) -> None:
    path = packed(tmp_path / "a.parquet", image=[PNGS[0]], mask=[bytes(100_000)])
    source = open_source(path)
    assert held(source) == [0]
    assert str(source.aside) == ""


@pytest.mark.slow
def test_a_page_of_many_drawings_is_read(tmp_path: Path) -> None:
    """pyarrow puts a thousand drawings into one page, whatever the page's size, and compresses it well."""
    drawing = PNGS[0] + bytes(200_000)
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"image": pyarrow.array([drawing] * 1030)})
    pyarrow.parquet.write_table(table, path, use_dictionary=False)
    assert path.stat().st_size < 20 << 20
    with path.open("rb") as file:
        assert pages_of(file, part_of(path)).longest > parquet._ROOM
    source = open_source(path)
    assert [source.read(row) == drawing for row in (0, 1, 1029)] == [True] * 3


def broken(path: Path, count: int) -> Path:
    """Write rows of one page each, and damage the header of the middle page."""
    contents = [PNGS[0] + os.urandom(1000) for _ in range(count)]
    options: dict[str, Any] = {"use_dictionary": False, "data_page_size": 1, "write_batch_size": 1}
    pyarrow.parquet.write_table(pyarrow.table({"image": contents}), path, compression="none", **options)
    whole = path.read_bytes()
    place = whole.index(contents[count // 2]) - 4  # the value's length, 4 bytes, comes before the value
    header = whole.rindex(b"\x15\x00\x15", 0, place)
    path.write_bytes(whole[:header] + b"\x1b" + whole[header + 1 :])  # the type of a map, which no header holds
    return path


def test_rows_before_a_damaged_page_are_read(tmp_path: Path) -> None:
    """The other rows of the group raise one message, in whatever order the rows are read."""
    source = open_source(broken(tmp_path / "a.parquet", 20))
    for row in (0, 9, 12, 3, 10, 19, 9):
        if row < 10:
            assert source.read(row).startswith(PNGS[0])
        else:
            with pytest.raises(ValueError, match="a damaged page at byte"):
                source.read(row)


def test_fewer_rows_than_the_footer_says(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": PNGS[:3]}), path)
    source = open_source(path)
    source._ends = [5]
    assert source.read(2) == PNGS[2]
    for row in (3, 4):
        with pytest.raises(ValueError, match="3 rows in a group of 5"):
            source.read(row)


def test_groups_are_read_again_after_one_that_is_refused(small: None, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"image": [PNGS[0], PNGS[1], bytes(100_000), PNGS[2]]})
    pyarrow.parquet.write_table(table, path, compression="zstd", row_group_size=2)
    source = open_source(path)
    for row in (0, 1, 2, 0, 3, 1):
        if row < 2:
            assert source.read(row) == PNGS[row]
        else:
            with pytest.raises(DataError, match="may unpack to far more than its file"):
                source.read(row)


def test_parts_that_overlap_are_not_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may have a thousand row groups that all name the same megabytes of headers."""
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"photo": [PNGS[0]]}), path)
    size = part_of(path).total_compressed_size
    source = open_source(path, column="photo")
    source._open.looked_through = path.stat().st_size - size + 1
    with pytest.raises(ValueError, match="parts that overlap"):
        source.read(0)


def test_lists_that_may_fill_the_memory_are_not_looked_at(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All values of a column's part may belong to one row, so a list is not read to look at it."""
    path = packed(tmp_path / "a.parquet", photo=[PNGS[0]] * 2, photos=[[], [b"no image" * 10] * 1000])
    read, asked = pyarrow.parquet.ParquetFile.iter_batches, []

    def iter_batches(self: Any, rows: int, *, columns: list[str], **options: Any) -> Any:
        asked.extend(columns)
        return read(self, rows, columns=columns, **options)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", iter_batches)
    assert str(open_source(path).aside) == "1 column of lists of images, which can't be taken (photos)"
    assert asked == ["photo"]


def test_a_file_of_large_images_is_read(small: None, tmp_path: Path) -> None:
    """A file that is not compressed may take as much memory as it has bytes."""
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
    """The longest page bounds each value, and the column's size, which pyarrow wrote, bounds the longest page."""
    contents = [bytes(50_000), *(os.urandom(1000) for _ in range(100)), bytes(50_000)]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": contents}), path, compression=compression, **options)
    with path.open("rb") as file:
        longest, count, damage = pages_of(file, part_of(path))
    assert (count, damage) == (102, None)
    assert 50_000 <= longest <= part_of(path).total_uncompressed_size
    source = open_source(path, column="image")
    assert [source.read(index) for index in range(102)] == contents


def test_a_value_that_grows_from_page_to_page(tmp_path: Path) -> None:
    """Each value begins with the value before it. All pages together hold only the bytes of the last value."""
    contents = [bytes(1000 * number) for number in range(1, 100)]
    path = tmp_path / "a.parquet"
    options: dict[str, Any] = {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY", "write_batch_size": 1}
    table = pyarrow.table({"image": contents})
    pyarrow.parquet.write_table(table, path, data_page_size=1, compression="none", **options)
    with path.open("rb") as file:
        assert pages_of(file, part_of(path))[0] >= 99_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no page at byte 0"),
        (b"\x15", "a damaged page at byte 1"),
        (b"\0", "a damaged page at byte 0"),
        (b"\x15\0\x15\2\x15\1\0", "a damaged page at byte 0"),  # a compressed size of -1 bytes
        (b"\x15\0\x16\2\x15\2\0", "a damaged page at byte 0"),  # an uncompressed size of 64 bits, which isn't read
        (b"\x05\xfe\xff\xff\xff\x0f\2", "a damaged page at byte 6"),  # the number of a field that would wrap around
        (b"\x1b\0", "a damaged page at byte 1"),  # the type of a map
        (b"\x18\xff\xff\xff\xff\xff\xff\x7f", "a damaged page at byte 8"),  # a text longer than any file
        (b"\x15\0\x15\2\x15\2\0\xff", "no page at byte 8"),
    ],
)
def test_damaged_headers_of_pages(content: bytes, words: str) -> None:
    part = SimpleNamespace(data_page_offset=0, dictionary_page_offset=None, total_compressed_size=1000)
    assert words in str(pages_of(io.BytesIO(content), part).damage)


@pytest.mark.parametrize(
    ("content", "place"),
    [(b"\x1c" * 5000, 17), (b"\x19\xf1\xff\xff\xff\x7f" + bytes(2000), 1001)],
    ids=["structs in structs", "a list that goes on"],
)
def test_headers_of_pages_come_to_an_end(content: bytes, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "_LONGEST_HEADER", 1000)
    part = SimpleNamespace(data_page_offset=0, dictionary_page_offset=None, total_compressed_size=1 << 30)
    assert pages_of(io.BytesIO(content), part) == Part(0, 0, f"a damaged page at byte {place}")


def test_headers_of_pages_hold_more_than_sizes() -> None:
    """A header may hold statistics and fields of later versions. Of two equal fields the last counts, as in Thrift."""
    content = (
        b"PAR1"
        b"\x15\0"  # the type of page
        b"\x15\2"  # the uncompressed size: 1 byte
        b"\x15\6"  # the compressed size: 3 bytes
        b"\5\4\xd0\x0f"  # the uncompressed size once more: 1000 bytes
        b"\x16\2\6\4\2"  # that field as a number of 64 bits, which doesn't count
        b"\x3c\x15\2\x15\0\x18\3abc\0"  # the header of this type of page
        b"\x11\x12\x13a\x17" + bytes(8) + b"\x19\x25\2\4\x19\x11\1\x1a\x18\2ab\0"
        b"abc"
    )
    part = SimpleNamespace(data_page_offset=4, dictionary_page_offset=0, total_compressed_size=len(content) - 4)
    assert pages_of(io.BytesIO(content), part) == Part(1000, 1, None)
