"""Every layout gives the same images, in any order and in any process; each error is one sentence."""

from __future__ import annotations

import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ebgan_fast.data import DataError
from ebgan_fast.data.decoding import decode
from ebgan_fast.data.sources import open_source

from ..conftest import Fork
from . import layouts
from .archives import LMDB_PAGE, PNGS, POINTER, held, lmdb_of, parquet_of, symbolic, tar_of, zip_of


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_every_layout_gives_the_same_images(layout: str, tmp_path: Path) -> None:
    source = open_source(layouts.LAYOUTS[layout](tmp_path / "images"))
    assert len(source) == 7
    for number, name in enumerate(layouts.NAMES):
        assert name in source.name(number) or f"row {number if number < 5 else number - 5}" in source.name(number)
        assert str(tmp_path) in source.name(number)
        assert (np.asarray(decode(source.read(number))) == np.asarray(layouts.picture(number))).all()
    # Images can be read in any order.
    assert source.read(6) == source.read(6) != source.read(0)


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_a_source_is_pickled_closed_and_read_again(layout: str, tmp_path: Path) -> None:
    source = open_source(layouts.LAYOUTS[layout](tmp_path / "images"))
    files = list(source.files())
    wanted = [source.read(number) for number in range(7)]
    for _ in range(2):
        open_and_pickled = pickle.dumps(source)
        source.close()
        source.close()
        copied = pickle.loads(open_and_pickled)
        order = [3, 6, 0, 5, 5, 1, 4, 2]
        assert [copied.read(number) for number in order] == [wanted[number] for number in order]
        assert [copied.name(number) for number in order] == [source.name(number) for number in order]
        assert list(copied.files()) == files
        copied.close()
        assert [source.read(number) for number in reversed(range(7))] == wanted[::-1]
    assert all(Path(file).is_file() for file in files)


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_two_sources_of_one_path(layout: str, tmp_path: Path) -> None:
    path = layouts.LAYOUTS[layout](tmp_path / "images")
    one, two = open_source(path), open_source(path)
    assert [one.read(number) for number in range(7)] == [two.read(number) for number in range(7)]


def test_databases_of_every_kind(tmp_path: Path) -> None:
    """A source may be a database's folder, a folder of databases, the file data.mdb, or a database of one file."""
    set_of_two = lmdb_of(tmp_path / "set" / "a_lmdb", PNGS[:2]).parent
    lmdb_of(set_of_two / "b_lmdb", PNGS[2:3])
    assert held(open_source(set_of_two)) == [0, 1, 2]
    assert held(open_source(set_of_two / "a_lmdb")) == [0, 1]
    assert held(open_source(set_of_two / "a_lmdb" / "data.mdb")) == [0, 1]
    for name in ("images.lmdb", "images.mdb", "images"):
        path = lmdb_of(tmp_path / name, PNGS[3:5], subdir=False)
        source = open_source(path)
        assert (held(source), list(source.files())) == ([3, 4], [str(path)])
        assert source.name(1) == f"{path}, key 001"
    with pytest.raises(DataError, match="got an empty database without images; expected"):
        open_source(lmdb_of(tmp_path / "empty", []))


def open_cut_short(path: Path, sizes: list[int]) -> None:
    """Cut a database to these sizes in turn, open it each time, and print its length or the error."""
    for size in sizes:
        with path.open("r+b") as file:
            file.truncate(size)
        try:
            print(len(open_source(path)))
        except DataError as error:
            print(error)


@pytest.mark.xdist_group("forked")
def test_a_database_that_is_cut_short(fork: Fork, tmp_path: Path) -> None:
    """A cut database is refused: with a mapped file, the read of a missing page would kill the process."""
    path = lmdb_of(tmp_path / "db", PNGS) / "data.mdb"
    whole = path.stat().st_size
    metas = 2 * LMDB_PAGE
    sizes = [whole, whole - 1, whole // 2, metas, metas - 1, LMDB_PAGE + 100, LMDB_PAGE]
    child = fork(open_cut_short, path, sizes)
    assert child.status() == 0, child.said
    first, *others = child.said.splitlines()
    assert first == str(len(PNGS))
    for size, line in zip(sizes[1:], others, strict=True):
        assert line.startswith(f"{path}: got a database that can't be read (")
        assert line.endswith("), expected a whole LMDB")
        if size >= metas:
            assert f"(cut short: {size} of {whole} bytes)" in line


def test_a_single_file_of_a_layout_of_several(tmp_path: Path) -> None:
    assert len(open_source(layouts.parquet(tmp_path / "a") / "train-00001-of-00002.parquet")) == 2
    assert len(open_source(layouts.tars(tmp_path / "b") / "shard-000000.tar")) == 4


@pytest.mark.parametrize("layout", ["zip", "parquet", "webdataset"])
def test_an_archive_is_known_by_its_content(layout: str, tmp_path: Path) -> None:
    made = layouts.LAYOUTS[layout](tmp_path / "images")
    archive = min(made.iterdir()) if made.is_dir() else made
    nameless = archive.rename(tmp_path / "download")
    assert open_source(nameless).read(0) == layouts.contents()["000"]


@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_hidden_files_beside_archives_are_left_out(layout: str, tmp_path: Path) -> None:
    made = layouts.LAYOUTS[layout](tmp_path / "images")
    for archive in list(made.iterdir()):
        (made / f"._{archive.name}").write_bytes(b"a Mac's leftovers")
    assert len(open_source(made)) == 7


def test_what_is_not_understood_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.zip").write_bytes(b"no zip")
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "data.mdb").write_bytes(b"no database")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as file:
        file.writestr("readme.txt", "none")
    with tarfile.open(tmp_path / "none.tar", "w"):
        pass
    for name, words in [
        ("nowhere", "got no such file or folder, expected a folder with images"),
        ("empty", "got a folder without images; expected"),
        ("a.txt", "a file of an unknown kind, expected"),
        ("a.zip", "can't be read"),
        ("a.tar", "can't be read"),
        ("a.parquet", "can't be read"),
        ("db", "can't be read"),
        ("none.zip", "a zip without images"),
        ("none.tar", "got a tar without images"),
    ]:
        with pytest.raises(DataError, match=words) as error:
            open_source(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")


def test_every_error_is_one_sentence(tmp_path: Path) -> None:
    """Each error begins with the path and says what was got and expected."""
    for name in ("a.zip", "a.tar", "a.parquet", "db/data.mdb"):
        for content in (b"", b"damaged " * 400, POINTER, b"PK\x05\x06", b"PAR1PAR1", bytes(10_240)):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            for place in (path, path.parent):
                with pytest.raises(DataError) as error:
                    open_source(place)
                text = str(error.value)
                assert text.startswith(f"{place}")
                assert ": got " in text
                assert "expected" in text
                assert "\n" not in text
            path.unlink()
    for path in (
        zip_of(tmp_path / "only_texts.zip", ("a.txt", b"a")),
        tar_of(tmp_path / "only_links.tar", symbolic("a.png", "b.png")),
        parquet_of(tmp_path / "no_rows.parquet", []),
        tmp_path / "nowhere" / "at all",
    ):
        with pytest.raises(DataError, match="expected") as error:
            open_source(path)
        assert str(error.value).startswith(f"{path}: ")


def test_parquet_without_images(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for rows, words in [([{"text": "a"}], r"got columns \['text'\]"), ([{"image": 3}], r"got columns \['image'\]")]:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=words):
            open_source(tmp_path / "a.parquet")
    only_paths = pyarrow.Table.from_pylist([{"photo": {"bytes": b"x", "path": "a"}}, {"photo": {"bytes": None}}])
    pyarrow.parquet.write_table(only_paths, tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet", column="photo")
    assert source.read(0) == b"x"
    with pytest.raises(DataError, match="only a path"):
        source.read(1)


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = layouts.parquet(tmp_path / "images")
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=r"needs the package pyarrow: pip install 'ebgan_fast\[data\]'"):
        open_source(path)
