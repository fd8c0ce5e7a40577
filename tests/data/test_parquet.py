"""Parquet files are read in any order of rows and at any size; the column of images is found or named."""

from __future__ import annotations

import pickle
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ebgan_fast.data import DataError
from ebgan_fast.data.sources import open_source
from ebgan_fast.data.sources.parquet import _holds_bytes

from ..conftest import Fork
from .archives import PNGS, held, parquet_of

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")

LARGE = 3_000_000  # bytes of a row
ROWS = 2**31 // LARGE + 20


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def structs(*contents: bytes | None) -> list[dict[str, object]]:
    return [{"bytes": content, "path": "a"} for content in contents]


@pytest.mark.parametrize(
    ("columns", "column", "wanted"),
    [
        ({"image": structs(PNGS[0]), "photo": structs(PNGS[1])}, None, 0),
        ({"photo": structs(PNGS[1]), "image": structs(PNGS[0])}, None, 0),
        ({"photo": structs(PNGS[1]), "image": structs(PNGS[0])}, "photo", 1),
        ({"text": ["a"], "photo": structs(PNGS[1]), "label": [3]}, None, 1),
        ({"text": ["a"], "jpg": [PNGS[2]], "sound": [b"RIFF"]}, None, 2),
        ({"image": ["a path"], "jpg": [PNGS[2]]}, None, 2),
        ({"image": [PNGS[2]]}, None, 2),
        ({"image": pyarrow.array([PNGS[2]], pyarrow.large_binary())}, None, 2),
        ({"image.mask": structs(PNGS[1]), "image": structs(PNGS[0])}, None, 0),
        ({"image.mask": structs(PNGS[1]), "image": structs(PNGS[0])}, "image.mask", 1),
        ({"image": [{"path": "a", "bytes": PNGS[3], "size": 4}]}, None, 3),
        ({"sound": structs(b"RIFF....WAVE"), "photo": structs(PNGS[1])}, None, 1),
        ({"image": [b"no image"], "photo": structs(PNGS[1])}, "photo", 1),
    ],
)
def test_the_column_of_the_images(columns: dict[str, Any], column: str | None, wanted: int, tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a.parquet", columns), column=column)
    assert held(source) == [wanted]


def test_a_column_that_is_not_taken_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"mask": structs(PNGS[1]), "image": structs(PNGS[0])})
    assert str(open_source(path).aside) == "1 column of images (--column NAME takes one) (mask)"
    assert not open_source(path, column="mask").aside


def test_several_columns_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"before": structs(PNGS[0]), "after": structs(PNGS[1]), "label": [3]})
    with pytest.raises(DataError, match=r"\['before', 'after'\]; expected one of them: --column before") as error:
        open_source(path)
    assert str(error.value).startswith(f"{path}: got ")
    assert [held(open_source(path, column=column)) for column in ("before", "after")] == [[0], [1]]


@pytest.mark.parametrize(
    ("columns", "column", "words"),
    [
        ({"text": ["a"], "number": [3]}, None, r"got columns \['text', 'number'\] without images; expected one named"),
        ({"sound": [b"RIFF....WAVE"]}, None, r"got columns \['sound'\] without images; expected"),
        ({"text": ["a"]}, "text", r"got columns \['text'\] without images; expected one named"),
        ({"image": structs(PNGS[0]), "text": ["a"]}, "text", r"expected one of \['image'\]"),
        ({"image": structs(PNGS[0])}, "photo", r"'photo' holds no images; expected one of \['image'\]"),
        ({"image": structs(PNGS[0]), "sound": [{"bytes": b"", "path": ""}]}, "image.bytes", "expected one of"),
        ({"image": pyarrow.array([], pyarrow.binary())}, None, "without images; expected"),
        ({"image": pyarrow.array(structs(PNGS[0])).slice(1)}, None, "without images; expected"),
        ({"jpg": pyarrow.array([None], pyarrow.binary())}, None, "without images; expected"),
        (
            {"sound": structs(b"RIFF....WAVE")},
            None,
            r"without images; expected .*, or --column with one of \['sound'\]",
        ),
        ({"sound": structs(b"RIFF....WAVE")}, "text", r"'text' holds no images; expected one of \['sound'\]"),
        ({"photo": [{"bytes": "a text"}]}, None, r"got columns \['photo'\] without images; expected"),
        ({"photo": [{"bytes": "a text"}]}, "photo", r"got columns \['photo'\] without images; expected"),
    ],
)
def test_columns_without_images(columns: dict[str, Any], column: str | None, words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", columns)
    with pytest.raises(DataError, match=words) as error:
        open_source(path, column=column)
    assert str(error.value).startswith(f"{path}: got columns ")
    assert "[]" not in str(error.value)


@pytest.mark.parametrize("kind", [bytes, structs])
def test_a_first_value_that_is_no_image(kind: Any, tmp_path: Path) -> None:
    """A column named image is taken as it is, another one if an image is among its first 16 values, or by --column."""

    def column(*contents: bytes | None) -> list[Any]:
        return structs(*contents) if kind is structs else list(contents)

    tga, late = b"\0\0\2 a TGA", [None] * 40 + [b"broken"] * 15
    rows: list[bytes | None] = [tga, *[b"broken"] * 20, PNGS[0]]
    source = open_source(write(tmp_path / "a.parquet", {"image": column(*rows), "other": column(*rows)}))
    assert (len(source), source.read(0), source.read(21)) == (22, tga, PNGS[0])
    assert not source.aside
    path = write(tmp_path / "b.parquet", {"photo": column(*late, PNGS[0])}, row_group_size=7)
    assert open_source(path).read(55) == PNGS[0]
    path = write(tmp_path / "c.parquet", {"photo": column(*late, b"broken", PNGS[0])})
    with pytest.raises(DataError, match=r"without images; expected .*, or --column with one of \['photo'\]"):
        open_source(path)
    assert open_source(path, column="photo").read(56) == PNGS[0]


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.list_(pyarrow.binary()),
        pyarrow.large_list(pyarrow.large_binary()),
        pyarrow.list_(pyarrow.binary(), 2),
        pyarrow.list_(pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
    ],
    ids=str,
)
def test_lists_of_images_are_told(kind: pyarrow.DataType, tmp_path: Path) -> None:
    contents = [None, PNGS[1]]
    items = structs(*contents) if "struct" in str(kind) else contents
    photos = pyarrow.array([None, items], kind)
    told = "1 column of lists of images, which can't be taken (photos)"
    alone = write(tmp_path / "alone.parquet", {"photos": photos, "label": [3, 4]})
    with pytest.raises(
        DataError, match=r"got columns \['photos', 'label'\] without images, of 1 column of lists"
    ) as error:
        open_source(alone)
    assert told in str(error.value)
    path = write(tmp_path / "a.parquet", {"photos": photos, "photo": structs(PNGS[0], PNGS[2])})
    source = open_source(path)
    assert held(source) == [0, 2]
    assert str(source.aside) == told
    for each in (alone, path):
        with pytest.raises(
            DataError, match="got the column 'photos' of lists of images, which can't be taken; expected"
        ):
            open_source(each, column="photos")


def test_lists_of_sounds_are_not_told_as_images(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"sounds": [[b"RIFF....WAVE"]], "photo": structs(PNGS[0])})
    assert not open_source(path).aside


def test_a_list_that_cannot_be_read_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow 17 can't read a null among lists of a fixed size. The other columns of the file may be whole."""
    path = write(tmp_path / "a.parquet", {"sounds": [[b"RIFF....WAVE"]], "photo": structs(PNGS[0])})
    read = pyarrow.parquet.ParquetFile.iter_batches

    def iter_batches(self: Any, rows: int, *, columns: list[str], **options: Any) -> Any:
        if columns == ["sounds"]:
            raise pyarrow.ArrowInvalid("a null among lists")
        return read(self, rows, columns=columns, **options)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", iter_batches)
    source = open_source(path)
    assert held(source) == [0]
    assert str(source.aside) == "1 column of lists of images, which can't be taken (sounds)"


def test_columns_of_every_type_are_looked_at(tmp_path: Path) -> None:
    number = pyarrow.int32()
    pairs = [[("a", 1)]]
    path = write(
        tmp_path / "a.parquet",
        {
            "list": pyarrow.array([[1]], pyarrow.list_(number)),
            "large_list": pyarrow.array([[1]], pyarrow.large_list(number)),
            "fixed_list": pyarrow.array([[1, 2]], pyarrow.list_(number, 2)),
            "map": pyarrow.array(pairs, pyarrow.map_(pyarrow.string(), number)),
            "dictionary": pyarrow.array(["a"]).dictionary_encode(),
            "fixed": pyarrow.array([b"abc"], pyarrow.binary(3)),
            "null": pyarrow.nulls(1),
            "deep": [{"inside": {"bytes": b"a"}}],
            "photos": [[{"bytes": PNGS[1], "path": "a"}]],
            "time": pyarrow.array([0], pyarrow.timestamp("us")),
            "photo": structs(PNGS[0]),
        },
    )
    assert held(open_source(path)) == [0]


def test_types_of_an_older_pyarrow() -> None:
    """The types of an older pyarrow give their fields by number alone."""

    class Struct:
        num_fields = 2

        def __str__(self) -> str:
            return "struct<path: string, bytes: binary>"

        def field(self, number: int) -> object:
            return SimpleNamespace(name=("path", "bytes")[number], type=("string", "binary")[number])

    assert _holds_bytes(Struct())


def test_rows_without_bytes_are_named(tmp_path: Path) -> None:
    source = open_source(parquet_of(tmp_path / "a.parquet", [None, PNGS[0]]))
    assert source.read(1) == PNGS[0]
    with pytest.raises(DataError, match="only a path; expected the image itself"):
        source.read(0)
    source = open_source(write(tmp_path / "b.parquet", {"image": structs(None, PNGS[1])}))
    assert source.read(1) == PNGS[1]
    source = open_source(write(tmp_path / "c.parquet", {"image": [None, PNGS[2], None]}))
    assert (len(source), source.read(1)) == (3, PNGS[2])
    with pytest.raises(DataError, match="no bytes"):
        source.read(2)


@pytest.mark.parametrize("rows_of_a_group", [1, 3, 50, 100])
def test_rows_in_any_order(rows_of_a_group: int, tmp_path: Path) -> None:
    contents = [number.to_bytes(2, "big") for number in range(100)]
    path = write(tmp_path / "a.parquet", {"image": structs(*contents)}, row_group_size=rows_of_a_group)
    source = open_source(path)
    assert source.name(99) == f"{path}, row 99"
    order = np.random.default_rng(1).permutation(100).tolist()
    for wanted in ([*range(100)], [*range(99, -1, -1)], order, [0, 99, 99, 0, 16, 15]):
        assert [source.read(row) for row in wanted] == [contents[row] for row in wanted]
    copied = pickle.loads(pickle.dumps(source))
    source.close()
    assert (copied.read(40), source.read(70), copied.read(41)) == (contents[40], contents[70], contents[41])


def test_files_with_different_columns(tmp_path: Path) -> None:
    parquet_of(tmp_path / "a.parquet", PNGS[:2])
    parquet_of(tmp_path / "b.parquet", PNGS[2:4], column="photo")
    write(tmp_path / "c.parquet", {"text": ["a"]})
    source = open_source(tmp_path)
    assert held(source) == [0, 1, 2, 3]
    assert str(source.aside) == "1 parquet file without images (c.parquet)"


def test_a_damaged_file(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "a.parquet", PNGS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"can't be read \(.*\), expected a whole parquet file") as error:
        open_source(path)
    assert str(error.value).startswith(f"{path}: got ")


def read_under_a_limit(folder: Path, limited: int, limit: int, rows: list[int]) -> None:
    """Read rows under a limit, and print the number with which each row begins."""
    resource.setrlimit(limited, (limit, resource.getrlimit(limited)[1]))
    source = open_source(folder)
    for row in rows:
        content = source.read(row)
        assert isinstance(content, bytes)
        print(int.from_bytes(content[:4], "little"), end=" ")


@needs_linux
@pytest.mark.slow
@pytest.mark.xdist_group("forked")
def test_a_row_group_of_more_than_2_gb(fork: Fork, tmp_path: Path) -> None:
    """The group is not read whole, and offsets beyond 31 bits work.

    Row i begins with the number i; the rows' values share one buffer.
    """
    data = pyarrow.py_buffer(np.concatenate([np.arange(ROWS, dtype="<u4"), np.zeros(LARGE // 4, "<u4")]))
    chunks = [
        pyarrow.StructArray.from_arrays(
            [
                pyarrow.Array.from_buffers(
                    pyarrow.binary(),
                    1,
                    [None, pyarrow.py_buffer(np.array([4 * row, 4 * row + LARGE], dtype="<i4")), data],
                )
            ],
            ["bytes"],
        )
        for row in range(ROWS)
    ]
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"image": pyarrow.chunked_array(chunks)})
    pyarrow.parquet.write_table(table, path, row_group_size=ROWS, compression="none", use_dictionary=False)
    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(0)
    assert (group.num_rows, group.total_byte_size > 2**31) == (ROWS, True)
    rows = [0, ROWS - 1, ROWS - 2, 40, 39, 41]
    child = fork(read_under_a_limit, path, resource.RLIMIT_DATA, 2 << 30, rows)
    status = child.status()
    path.unlink()  # 2 GB: pytest keeps the folders of its last runs
    assert status == 0, child.said
    assert child.said.split() == [str(row) for row in rows]


@needs_linux
@pytest.mark.xdist_group("forked")
def test_a_hundred_files_under_a_limit_of_64(fork: Fork, tmp_path: Path) -> None:
    for number in range(100):
        parquet_of(tmp_path / "set" / f"{number:03d}.parquet", [number.to_bytes(4, "little")])
    child = fork(read_under_a_limit, tmp_path / "set", resource.RLIMIT_NOFILE, 64, [*range(99, -1, -1)])
    assert child.status() == 0, child.said
    assert child.said.split() == [str(row) for row in range(99, -1, -1)]
