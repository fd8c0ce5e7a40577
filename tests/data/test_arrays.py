"""Arrays of images are taken or refused by their shape and dtype, and take little memory."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ebgan_fast.data.sources import hdf5
from ebgan_fast.data.sources.arrays import open_array

from .array_files import WAYS, Array, Way, chunked, compressed, contiguous, header, images, npy, npz, refused


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "shape", [(40, 6, 5, 3), (40, 6, 5, 4), (40, 6, 5, 1), (40, 3, 6, 5), (40, 1, 6, 5), (40, 6, 5)]
)
def test_each_image_is_read_in_any_order(way: Way, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = images(*shape)
    wanted = array.transpose(0, 2, 3, 1) if shape[1] in (1, 3) else array
    path = way(tmp_path, array)
    source = open_array(path)
    assert len(source) == 40
    assert list(source.files()) == [str(path)]
    for index in [0, 1, 2, 39, 17, 0, 38]:
        found = source.read(index)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.uint8
        assert np.array_equal(found, wanted[index])
        assert found.flags.c_contiguous
        assert found.flags.owndata
        if index == 39:
            source.close()
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy.read(20), wanted[20])
    assert np.array_equal(source.read(21), wanted[21])
    for outside in (-1, 40):
        with pytest.raises(IndexError):
            source.read(outside)


def test_names(tmp_path: Path) -> None:
    array = images(2, 5, 5)
    assert open_array(npy(tmp_path, array)).name(1) == f"{tmp_path}/a.npy, image 1"
    assert open_array(npz(tmp_path, array)).name(1) == f"{tmp_path}/a.npz, images 1"
    assert open_array(contiguous(tmp_path, array), "/images").name(0) == f"{tmp_path}/a.h5, images 0"


def test_a_big_endian_or_fortran_npy(tmp_path: Path) -> None:
    array = images(9, 5, 6, 3)
    for version in [np.asfortranarray(array), array.astype(">u1")]:
        assert np.array_equal(open_array(npy(tmp_path, version)).read(7), array[7])
    assert b"'fortran_order': True" in npz(tmp_path, np.asfortranarray(array)).read_bytes()
    refused(r"Fortran order.*way out: save np.ascontiguousarray\(a\)", tmp_path / "a.npz")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("array", "words"),
    [
        (images(4, 8, 8, 2), r"uint8 \[4, 8, 8, 2\], whose channels are neither"),
        (images(4, 2, 8, 8), "whose channels are neither"),
        (images(4, 3, 32, 3), r"axis 1 or axis 3.*way out: save a.transpose\(0, 2, 3, 1\) if"),
        (images(4, 3, 3, 3), "axis 1 or axis 3.*way out: pad"),
        (images(8, 9, 3), r"one image \[H, W, C\].*save a\[None\]"),
        (images(8, 9, 4), r"one image \[H, W, C\]"),
        (images(8, 81), r"uint8 \[8, 81\], expected.*a.reshape\(-1, H, W\)"),
        (images(8), r"uint8 \[8\], expected"),
        (images(2, 2, 8, 8, 3), r"uint8 \[2, 2, 8, 8, 3\], expected"),
        (images(4, 8, 8, 3) / np.float32(255), r'float32 .*save \(255 \* a\).round\(\).astype\("uint8"\) if'),
        (images(4, 8, 8, 3) > 99, r'bool .*save 255 \* a.astype\("uint8"\)'),
        (images(4, 8, 8, 3).astype(np.int64), r'int64 .*save a.astype\("uint8"\) if its values are 0 to 255$'),
        (images(4, 8, 8, 3).astype(np.uint16), r'uint16 .*\(a // 257\).astype\("uint8"\) if they are 0 to 65535'),
        (images(4, 8, 8).astype(np.int8), "int8 "),
    ],
)
def test_other_arrays_are_refused(way: Way, array: Array, words: str, tmp_path: Path) -> None:
    path = way(tmp_path, array)
    refused(words, path)
    if way is not npy:
        refused(f"got images of .*{words}", path, "images")


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (4, 0, 8, 3), (4, 8, 0), (0, 8, 8)])
@pytest.mark.parametrize("way", [npy, npz, compressed, contiguous])
def test_empty_arrays_are_refused(way: Way, shape: tuple[int, ...], tmp_path: Path) -> None:
    if way is npz:
        np.savez(tmp_path / "a.npz", images=images(*shape))
        refused("expected at least one image of at least one pixel", tmp_path / "a.npz")
    else:
        refused("expected at least one image of at least one pixel", way(tmp_path, images(*shape)))


def test_sizes_that_a_file_only_claims(tmp_path: Path) -> None:
    """A header may claim any size, so no memory is allocated by what a header says."""
    path = tmp_path / "a.npy"
    for shape, words in [
        ((10**15, 99, 99, 3), r"got \d+ bytes, expected 29403\d+ by its header"),
        ((1, 10**9, 10**9, 3), "images of 1000000000000000000 pixels, expected at most"),
        ((-5, -5, 5, 3), "at least one pixel"),
    ]:
        path.write_bytes(header(shape))
        refused(words, path)


def test_a_member_with_a_long_header_is_not_read_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\2\0" + (50 << 20).to_bytes(4, "little") + bytes(50 << 20))
    tracemalloc.start()
    refused("a header of 52428812 bytes", tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_damaged_files(tmp_path: Path) -> None:
    whole = npy(tmp_path, images(9, 5, 6, 3)).read_bytes()
    for content in [whole[:5], whole[:40], whole[:-1], whole + b"0", header((3, 3, 3)).replace(b"(3, ", b"((((")]:
        (tmp_path / "a.npy").write_bytes(content)
        refused("way out: get the file again|can't be read|begins as none", tmp_path / "a.npy")
    for way in (npz, compressed, contiguous, chunked):
        path = way(tmp_path, images(9, 5, 6, 3))
        path.write_bytes(path.read_bytes()[:-30])
        refused("can't be read", path)
    for content in [b"", b"text\n", b"PK\3\4" + bytes(99), b"\x89HDF\r\n\x1a\n" + bytes(999)]:
        (tmp_path / "b").write_bytes(content)
        refused("begins as none of these|can't be read", tmp_path / "b")
    refused("No such file", tmp_path / "none.npy")
    refused("directory", tmp_path)


def test_damage_within_is_told_when_it_is_read(tmp_path: Path) -> None:
    array = images(50, 20, 20, 3)
    path = compressed(tmp_path, array)
    content = bytearray(path.read_bytes())
    content[20_000:20_100] = bytes(100)
    path.write_bytes(content)
    source = open_array(path)
    with pytest.raises((zlib.error, zipfile.BadZipFile)):
        [source.read(index) for index in range(50)]
    assert np.array_equal(source.read(2), array[2])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header((9, 5, 5)) + bytes(100))
    refused(r"images of 228 bytes, expected 353 by its header", path)
    path = npy(tmp_path, array)
    source = open_array(path)
    os.truncate(path, 1000)
    with pytest.raises(ValueError, match="size"):
        source.read(0)


def test_after_an_error_a_member_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that failed may have lost a part of the data, and would return the rest as if nothing were missing."""
    array = images(50, 20, 20, 3)
    source = open_array(compressed(tmp_path, array))
    source.read(3)
    read = zipfile.ZipExtFile.read

    def failing(self: zipfile.ZipExtFile, size: int | None = None) -> bytes:
        read(self, size)
        self._fileobj.seek(99, 1)
        raise zlib.error("damaged")

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipExtFile, "read", failing)
        with pytest.raises(zlib.error):
            source.read(4)
    assert np.array_equal(source.read(49), array[49])


def test_one_of_several_arrays_is_named(tmp_path: Path) -> None:
    arrays = {
        "x_train": images(5, 8, 8),
        "y_train": np.arange(5),
        "x_test": images(2, 8, 8),
        "in/x": images(3, 9, 9),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    for path in (tmp_path / "a.npz", tmp_path / "a.h5"):
        refused("3 arrays of images", path)
        refused(r"x_train: uint8 \[5, 8, 8\].*way out: --column NAME", path)
        refused("got no array z, expected one of those that are there: .*y_train", path, "z")
        refused(r"got y_train of int64 \[5\], expected uint8", path, "y_train")
        for name in ("x_train", "x_test", "in/x"):
            source = open_array(path, name)
            assert np.array_equal(source.read(1), arrays[name][1])
            assert source.name(1) == f"{path}, {name} 1"
            assert "3 arrays (" in str(source.aside)
            assert name not in str(source.aside)
    refused("has no columns", npy(tmp_path, arrays["x_test"]), "images")


def test_what_lies_beside_the_images_is_counted(tmp_path: Path) -> None:
    assert str(open_array(npz(tmp_path, images(3, 8, 8))).aside) == "1 array (labels)"
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("readme.txt", "text")
        archive.mkdir("more") if hasattr(archive, "mkdir") else None
    assert "1 file in it that are no .npy (readme.txt)" in open_array(tmp_path / "a.npz").aside.texts()


class Called:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickles_in_arrays_are_not_run(tmp_path: Path) -> None:
    hostile = np.array([Called(tmp_path / "made")], dtype=object)
    refused(r"object \[1\], expected", npy(tmp_path, hostile))
    refused("got images of object", npz(tmp_path, hostile), "images")
    np.savez(tmp_path / "a.npz", hostile=hostile, images=images(2, 8, 8))
    assert len(open_array(tmp_path / "a.npz")) == 2
    (tmp_path / "a.npy").write_bytes(pickle.dumps(hostile))
    refused("begins as none of these", tmp_path / "a.npy")
    assert not (tmp_path / "made").exists()
    np.load(tmp_path / "a.npz", allow_pickle=True)["hostile"]
    assert (tmp_path / "made").exists()  # proof that the test can fail


def test_a_large_member_is_not_loaded_whole(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("images.npy", "w", force_zip64=True) as member,
    ):
        member.write(header((300, 1024, 1024)))
        for index in range(300):
            member.write(bytes([index % 256]) * (1 << 20))
    tracemalloc.start()
    source = open_array(tmp_path / "a.npz")
    for index in (0, 1, 60, 2):
        found = source.read(index)
        assert isinstance(found, np.ndarray)
        assert (found == index).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_names_in_a_file_move_no_cursor(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"\x1b[2Ja\n": images(2, 8, 8), "b": images(2, 8, 8)})
    refused("x1b", tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", **{"\x1b[2Ja\n": np.zeros(3)})
    refused("x1b", tmp_path / "a.npz")


def test_a_process_without_torch_reads(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", images(2, 8, 8))
    code = """
import sys, types, pathlib
sys.modules["torch"] = sys.modules["h5py"] = None
root = pathlib.Path(sys.argv[1])
for name, place in (("ebgan_fast", root), ("ebgan_fast.data", root / "data"),
                    ("ebgan_fast.data.sources", root / "data" / "sources")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(place)]
import ebgan_fast.data.sources.cifar
from ebgan_fast.data.sources.arrays import open_array
print(open_array(pathlib.Path(sys.argv[2])).read(1).shape)
"""
    root = Path(hdf5.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), str(tmp_path / "a.npy")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(8, 8)\n"
