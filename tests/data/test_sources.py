from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ebgan_fast.data import DataError
from ebgan_fast.data.decoding import decode
from ebgan_fast.data.sources import open_source

from . import layouts


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_every_layout_gives_the_same_images(layout: str, tmp_path: Path) -> None:
    source = open_source(layouts.LAYOUTS[layout](tmp_path / "images"))
    assert len(source) == 7
    for number, name in enumerate(layouts.NAMES):
        assert name in source.name(number) or f"row {number if number < 5 else number - 5}" in source.name(number)
        assert str(tmp_path) in source.name(number)
        assert (np.asarray(decode(source.read(number))) == np.asarray(layouts.picture(number))).all()
    # In any order, too.
    assert source.read(6) == source.read(6) != source.read(0)


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
        ("nowhere", "no such file or folder, expected a folder with images"),
        ("empty", "a folder without images, expected"),
        ("a.txt", "a file of an unknown kind, expected"),
        ("a.zip", "can't be read"),
        ("a.tar", "can't be read"),
        ("a.parquet", "can't be read"),
        ("db", "can't be read"),
        ("none.zip", "a zip without images"),
        ("none.tar", "tars without images"),
    ]:
        with pytest.raises(DataError, match=words) as error:
            open_source(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")


def test_parquet_without_images(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for rows, words in [([{"text": "a"}], r"got columns \['text'\]"), ([{"image": 3}], r"got columns \['image'\]")]:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=words):
            open_source(tmp_path / "a.parquet")
    only_paths = pyarrow.Table.from_pylist([{"photo": {"bytes": b"x", "path": "a"}}, {"photo": {"bytes": None}}])
    pyarrow.parquet.write_table(only_paths, tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    assert source.read(0) == b"x"
    with pytest.raises(DataError, match="only a path"):
        source.read(1)


@pytest.mark.parametrize(("layout", "package"), [("parquet", "pyarrow"), ("lsun", "lmdb")])
def test_a_package_that_is_missing_is_named(
    layout: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layouts.LAYOUTS[layout](tmp_path / "images")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=rf"needs the package {package}: pip install 'ebgan_fast\[data\]'"):
        open_source(path)
