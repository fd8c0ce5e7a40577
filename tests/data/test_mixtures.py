"""In a folder with several kinds of files, the kind with the most images is taken; a set may have several splits."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ebgan_fast.data import DataError
from ebgan_fast.data.prepare import prepare_images
from ebgan_fast.data.sources import open_source

from .archives import PNGS, POINTER, held, lmdb_of, parquet_of, pictures, tar_of, zip_of


def members(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    return [(f"{number:02d}.png", PNGS[number]) for number in range(first, first + count)]


@pytest.mark.parametrize("count", [1, 9, 10])
def test_pictures_are_taken_before_a_tar_of_no_more(
    count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = pictures(tmp_path / "set", 10)
    tar_of(root / "backup.tar", *members(count))
    source = open_source(root)
    assert held(source) == [*range(10)]
    assert str(source.aside) == "1 tar (--kind tar takes it) (backup.tar)"
    assert held(open_source(root, kind="tar")) == [*range(count)]
    prepare_images(root, tmp_path / "out", 8, workers=1)
    assert capsys.readouterr().err == f"left aside: {source.aside}\n"


def test_tars_are_taken_before_fewer_pictures(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 1, first=11)
    (root / "11.png").rename(root / "preview.png")
    tar_of(root / "a.tar", *members(2))
    tar_of(root / "b.tar", *members(2, first=2))
    source = open_source(root)
    assert held(source) == [0, 1, 2, 3]
    assert str(source.aside) == "1 image (--kind images takes it) (preview.png)"
    assert held(open_source(root, kind="images")) == [11]


def test_a_table_of_texts_beside_pictures(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 1)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * 50}), root / "metadata.parquet")
    (root / "metadata.jsonl").write_text("{}")
    source = open_source(root)
    assert held(source) == [0]
    assert "1 parquet file without images (metadata.parquet)" in str(source.aside)
    with pytest.raises(DataError, match=r"metadata\.parquet: got columns \['text'\] without images; expected"):
        open_source(root, kind="parquet")


def test_compressed_archives_are_told(tmp_path: Path) -> None:
    root = tar_of(tmp_path / "set" / "a.tar", *members(2)).parent
    for name in ("b.tgz", "c.tar.gz", "d.7z"):
        (root / name).write_bytes(b"compressed")
    source = open_source(root)
    assert held(source) == [0, 1]
    for suffix, name in ((".tgz", "b.tgz"), (".tar.gz", "c.tar.gz"), (".7z", "d.7z")):
        assert f"1 {suffix}, to be unpacked first ({name})" in source.aside.texts()
    (root / "a.tar").unlink()
    with pytest.raises(DataError, match=r"set: got a folder without images, of 1 \.7z, to be unpacked first"):
        open_source(root)


def test_archives_inside_an_archive_beside_a_picture(tmp_path: Path) -> None:
    root = zip_of(tmp_path / "set" / "a.zip", ("cover.png", PNGS[0]), ("rest.zip", b"PK"), ("rest.tar", b"")).parent
    source = open_source(root)
    assert held(source) == [0]
    for suffix in (".zip", ".tar"):
        assert f"1 {suffix} inside, to be unpacked first (a.zip/rest{suffix})" in source.aside.texts()


def test_every_kind_can_be_asked_for(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 1)
    tar_of(root / "a.tar", *members(1, first=1))
    zip_of(root / "a.zip", *members(1, first=2))
    parquet_of(root / "a.parquet", PNGS[3:4])
    lmdb_of(root / "db", PNGS[4:5])
    assert held(open_source(root)) == [0]  # all kinds have one image, so the first kind is taken
    for number, kind in enumerate(("images", "tar", "zip", "parquet", "lmdb")):
        source = open_source(root, kind=kind)  # type: ignore[arg-type]
        assert held(source) == [number]
        told = str(source.aside)
        assert f"--kind {kind} " not in told
        assert told.count("--kind") == 4


def test_a_database_in_the_folder_itself_has_a_name(tmp_path: Path) -> None:
    root = lmdb_of(pictures(tmp_path / "set", 2), PNGS[:1])
    assert str(open_source(root).aside) == "1 LMDB (--kind lmdb takes it) (.)"


def test_a_kind_that_is_not_there(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 2)
    for kind, noun in (("tar", "tars"), ("lmdb", "LMDBs")):
        with pytest.raises(DataError, match=f"got a folder without {noun}, expected --kind images$") as error:
            open_source(root, kind=kind)
        assert str(error.value).startswith(f"{root}: got ")
    with pytest.raises(ValueError, match="kind: got 'pictures', expected one of images, parquet, tar, zip"):
        open_source(root, kind="pictures")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"a\.zip: got a file of the kind zip, expected one of tar"):
        open_source(zip_of(tmp_path / "a.zip", *members(1)), kind="tar")


def test_a_column_of_what_has_none(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 2)
    path = zip_of(tmp_path / "a.zip", *members(1))
    for place, kind in ((root, "images"), (path, "zip")):
        with pytest.raises(DataError, match=rf"got --column image and {kind}, expected none: only parquet") as error:
            open_source(place, column="image")
        assert str(error.value).startswith(f"{place}: got ")


def test_a_damaged_tar(tmp_path: Path) -> None:
    """Beside pictures a damaged tar is reported; among tars, where images would be lost, it is an error."""
    root = pictures(tmp_path / "set", 2)
    (root / "broken.tar").write_bytes(b"no tar" * 200)
    source = open_source(root)
    assert held(source) == [0, 1]
    assert "broken.tar" in str(source.aside)
    with pytest.raises(DataError, match=r"broken\.tar: got a file that can't be read .* expected an uncompressed tar"):
        open_source(root, kind="tar")
    tar_of(root / "a.tar", *members(3))
    with pytest.raises(DataError, match=r"broken\.tar: got a file that can't be read"):
        open_source(root)
    assert held(open_source(root, kind="images")) == [0, 1]


def hub(root: Path) -> None:
    parquet_of(root / "data" / "train-00000-of-00002.parquet", PNGS[0:2])
    parquet_of(root / "data" / "train-00001-of-00002.parquet", PNGS[2:4])
    parquet_of(root / "data" / "test-00000-of-00001.parquet", PNGS[4:5])
    (root / "README.md").write_text("---\n---\n")
    (root / ".git").mkdir()


def hub_converted(root: Path) -> None:
    parquet_of(root / "default" / "train" / "0000.parquet", PNGS[0:2])
    parquet_of(root / "default" / "train" / "0001.parquet", PNGS[2:4])
    parquet_of(root / "default" / "test" / "0000.parquet", PNGS[4:5])


def webdatasets(root: Path) -> None:
    tar_of(root / "imagenet-train-0000.tar", *members(2))
    tar_of(root / "imagenet-train-0001.tar", *members(2, first=2))
    tar_of(root / "imagenet-test-0000.tar", *members(1, first=4))


def folders(root: Path) -> None:
    pictures(root / "train" / "n01", 2)
    pictures(root / "train" / "n02", 2, first=2)
    pictures(root / "test", 1, first=4)


def folders_of_a_year(root: Path) -> None:
    pictures(root / "train2017", 4)
    pictures(root / "test2017", 1, first=4)


def one_zip(root: Path) -> None:
    parts = [(f"x/{'train' if number < 4 else 'test'}/{name}", content) for number, (name, content) in SAMPLES]
    zip_of(root / "all.zip", *parts)


def one_tar(root: Path) -> None:
    parts = [(f"./{'train' if number < 4 else 'test'}/{name}", content) for number, (name, content) in SAMPLES]
    tar_of(root / "all.tar", *parts)


def lmdbs(root: Path) -> None:
    lmdb_of(root / "bedroom_train_lmdb", PNGS[0:4])
    lmdb_of(root / "bedroom_test_lmdb", PNGS[4:5])


SAMPLES = list(enumerate(members(5)))
SPLITS: list[Callable[[Path], None]] = [
    hub,
    hub_converted,
    webdatasets,
    folders,
    folders_of_a_year,
    one_zip,
    one_tar,
    lmdbs,
]


@pytest.mark.parametrize("make", SPLITS)
def test_splits_are_not_mixed(make: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    make(root)
    with pytest.raises(
        DataError, match=r"got .* of the splits test \(1\), train \(\d\), expected .* --split "
    ) as error:
        open_source(root)
    assert str(error.value).startswith(str(root))
    assert sorted(held(open_source(root, split="train"))) == [0, 1, 2, 3]
    assert held(open_source(root, split="test")) == [4]
    assert sorted(held(open_source(root, split="all"))) == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match=r"got no split 'nonsense', expected test \(1\), train \(\d\)"):
        open_source(root, split="nonsense")


def test_a_folder_inside_a_clone(tmp_path: Path) -> None:
    hub(tmp_path)
    with pytest.raises(DataError, match=r"data: got .* of the splits test \(1\), train \(2\), expected"):
        open_source(tmp_path / "data")
    assert held(open_source(tmp_path / "data", split="test")) == [4]
    hub_converted(tmp_path)
    assert held(open_source(tmp_path / "default" / "train")) == [0, 1, 2, 3]
    told = open_source(tmp_path / "data", split="train").aside
    assert str(told) == "1 parquet file of other splits (test-00000-of-00001.parquet)"


def test_validation_has_many_names(tmp_path: Path) -> None:
    lmdb_of(tmp_path / "bedroom_train_lmdb", PNGS[:2])
    lmdb_of(tmp_path / "bedroom_val_lmdb", PNGS[2:3])
    with pytest.raises(DataError, match=r"got .* of the splits train \(1\), validation \(1\)"):
        open_source(tmp_path)
    assert held(open_source(tmp_path, split="validation")) == [2]


@pytest.mark.parametrize(
    ("train", "test"),
    [("seg_train", "seg_test"), ("training_set", "test_set"), ("train2017", "Val2017"), ("train images", "test.data")],
)
def test_a_folder_of_a_split_may_have_other_words(train: str, test: str, tmp_path: Path) -> None:
    for number, name in enumerate((train, test)):
        pictures(tmp_path / "set" / name / "cat", 1, first=number)
    with pytest.raises(DataError, match=r"got .* of the splits .*train \(1\).*--split train, or --split all"):
        open_source(tmp_path / "set")
    assert held(open_source(tmp_path / "set", split="train")) == [0]


def test_pictures_of_trains(tmp_path: Path) -> None:
    """A class named train among other classes is no split, and a set with one split alone is taken."""
    for number, name in enumerate(("cat", "train", "test_tube")):
        pictures(tmp_path / "set" / name, 1, first=number)
    source = open_source(tmp_path / "set")
    assert held(source) == [0, 2, 1]
    assert not source.aside
    assert held(open_source(tmp_path / "set" / "train")) == [1]
    shutil.rmtree(tmp_path / "set" / "cat")
    assert held(open_source(tmp_path / "set")) == [2, 1]
    files = pictures(tmp_path / "files", 2)
    (files / "00.png").rename(files / "train.png")
    (files / "01.png").rename(files / "test.png")
    assert len(open_source(files)) == 2


def test_all_of_a_set_without_splits(tmp_path: Path) -> None:
    assert held(open_source(pictures(tmp_path / "set", 2), split="all")) == [0, 1]
    path = parquet_of(tmp_path / "a.parquet", PNGS[:2])
    assert held(open_source(path, split="all")) == [0, 1]
    for place in (path, tmp_path / "set"):
        with pytest.raises(DataError, match=r"split.*train.*expected") as error:
            open_source(place, split="train")
        assert str(error.value).startswith(f"{place}: got ")


def test_a_split_that_only_one_kind_has(tmp_path: Path) -> None:
    """The split is found although the folder holds more pictures of another kind, such as figures of a page."""
    pictures(tmp_path / "figures", 10)
    webdatasets(tmp_path)
    assert held(open_source(tmp_path, split="train")) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["x.parquet", "x.tar", "x.zip", "x", "x.tar.gz", "db/data.mdb"])
def test_a_pointer_of_git_lfs_is_called_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(POINTER)
    place = path.parent if name.startswith("db") else path
    with pytest.raises(DataError, match="got a pointer of Git LFS in place of the file, expected the file") as error:
        open_source(place)
    assert str(error.value).startswith(f"{tmp_path}/")


def test_a_clone_of_pointers(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"train-{number:05d}-of-00002.parquet").write_bytes(POINTER)
    with pytest.raises(DataError, match=r"train-00000-of-00002\.parquet: got a pointer of Git LFS"):
        open_source(tmp_path)


def test_a_picture_that_is_a_pointer_is_left_out(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 2)
    (root / "pointer.jpg").write_bytes(POINTER)
    prepared = prepare_images(root, tmp_path / "out", 8, workers=1)
    assert (prepared.images, prepared.skipped) == (2, [str(root / "pointer.jpg")])
    assert "a pointer of Git LFS in place of the file" in str(prepared.left_out)


def arrays(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        np.save(folder / name, np.full((2, 5, 5), number, dtype=np.uint8))
    return folder


@pytest.mark.parametrize("harm", ["cut", "pointer"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_damaged_array_among_arrays_is_no_array_of_something_else(harm: str, strict: bool, tmp_path: Path) -> None:
    root = arrays(tmp_path / "set", "0.npy", "1.npy", "2.npy")
    whole = (root / "1.npy").read_bytes()
    (root / "1.npy").write_bytes(whole[:-3] if harm == "cut" else POINTER)
    with pytest.raises(DataError, match=r"1\.npy: got "):
        prepare_images(root, tmp_path / "out", 8, workers=1, strict=strict)


def test_a_batch_that_is_a_pointer_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data_batch_1").write_bytes(POINTER)
    with pytest.raises(DataError, match=r"data_batch_1: got a pointer of Git LFS"):
        open_source(tmp_path / "set")


def test_labels_beside_arrays_of_images_are_told(tmp_path: Path) -> None:
    root = arrays(tmp_path / "set", "a.npy")
    np.save(root / "labels.npy", np.arange(2))
    source = open_source(root)
    assert len(source) == 2
    assert str(source.aside) == "1 array without images (labels.npy)"


def test_a_kind_that_cannot_be_taken_beside_another_says_how_to_learn_why(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 3)
    np.savez(root / "two.npz", a=np.zeros((4, 5, 5), np.uint8), b=np.zeros((4, 5, 5), np.uint8))
    (root / "half.zip").write_bytes(b"PK\3\4 half a zip")
    source = open_source(root)
    assert held(source) == [0, 1, 2]
    assert str(source.aside) == (
        "1 array that can't be taken (--kind arrays says why) (two.npz), "
        "1 zip that can't be taken (--kind zip says why) (half.zip)"
    )
    with pytest.raises(DataError, match=r"two\.npz: got 2 arrays of images .*--column NAME"):
        open_source(root, kind="arrays")
    with pytest.raises(DataError, match=r"half\.zip: got a file that can't be read"):
        open_source(root, kind="zip")


def test_an_array_called_image_is_taken_before_others(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mask=np.zeros((4, 5, 5), np.uint8), image=np.ones((4, 5, 5), np.uint8))
    source = open_source(tmp_path / "a.npz")
    assert isinstance(found := source.read(0), np.ndarray)
    assert found.min() == 1
    assert "mask" in str(source.aside)


def test_options_of_a_single_file(tmp_path: Path) -> None:
    """A file's own split may be named; a batch of CIFAR has no columns; an array named like a batch is no batch."""
    root = arrays(tmp_path / "set", "train-00000-of-00002.npy")
    assert len(open_source(root / "train-00000-of-00002.npy", split="train")) == 2
    with pytest.raises(DataError, match="a file of no splits"):
        open_source(root / "train-00000-of-00002.npy", split="test")
    (root / "train-00000-of-00002.npy").rename(root / "train")
    assert len(open_source(root / "train")) == 2
    (root / "data_batch_1").write_bytes(pickle.dumps({"data": np.zeros((2, 12), np.uint8)}, protocol=2))
    assert len(open_source(root / "data_batch_1")) == 2
    with pytest.raises(DataError, match="data_batch_1: got --column nonsense and a batch of CIFAR's, expected none"):
        open_source(root / "data_batch_1", column="nonsense")
    with pytest.raises(DataError, match=r"single image, expected the folder that holds it"):
        open_source(pictures(tmp_path / "pictures", 1) / "00.png")


def test_frames_by_number_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 3)
    for number in range(3):
        (root / f"{number:02d}.png").rename(root / f"frame.{number:04d}")
    (root / "frame.0003").write_bytes(b"no image")
    source = open_source(root)
    assert held(source) == [0, 1, 2]
    assert str(source.aside) == "1 without a suffix (frame.0003)"
