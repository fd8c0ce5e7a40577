"""Files from which `ebgan-fast prepare` can't take images, by kind of file."""

from __future__ import annotations

import io
import os
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ebgan_fast.data.sources import parquet
from tests.data import archives, array_files

from ..case import Arguments, Case

_SIZE = ("out", "--size", "8", "--workers", "1")
_PNG = archives.PNGS[0]
_ROWS = np.zeros((2, 48), np.uint8)
_QUOTED = (r"(?<=can't be read \().*(?=\), expected)",)  # the words of the library that reads the file
_STRICT_LEAVES = "the output folder keeps the images that are done, so that the same command goes on"


def _file(name: str, content: bytes, *flags: str) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        (folder / name).write_bytes(content)
        return [name, *_SIZE, *flags]

    return make


def _made(name: str, write: Callable[[Path], object], *flags: str) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        write(folder / name)
        return [name, *_SIZE, *flags]

    return make


def _tar(*members: Any) -> Callable[[Path], object]:
    return lambda path: archives.tar_of(path, *members)


def _zip(*members: Any) -> Callable[[Path], object]:
    return lambda path: archives.zip_of(path, *members)


def _bzip2(name: str, content: bytes) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
            archive.writestr(name, content)

    return write


def _locked(path: Path) -> None:
    archives.zip_of(path, ("a.png", _PNG))
    archives.encrypt(path, "a.png")


def _npy(*shape: int, dtype: str = "uint8") -> Callable[[Path], object]:
    return lambda path: np.save(path, np.zeros(shape, dtype))


def _npz(**arrays: Any) -> Callable[[Path], object]:
    return lambda path: np.savez(path, **arrays)


def _h5(**arrays: Any) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value

    return write


def _table(**columns: Any) -> Callable[[Path], object]:
    return lambda path: pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _zeros(**columns: Any) -> Callable[[Path], object]:
    return lambda path: pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")


def _damaged_page(path: Path) -> None:
    _table(photo=[_PNG])(path)
    content = bytearray(path.read_bytes())
    content[4:24] = bytes(20)
    path.write_bytes(content)


def _little_room(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(parquet, "_LONGEST_ROW", 1000)


def _cifar(content: object, *flags: str) -> Callable[[Path], Arguments]:
    return _file("data_batch_1", pickle.dumps(content, 4), *flags)


def _cut(write: Callable[[Path], object], kept: float) -> Callable[[Path], object]:
    """Return a function that writes a file and keeps only its first part; `kept` is a share of its bytes."""

    def make(path: Path) -> None:
        write(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])

    return make


def _without(module: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setitem(sys.modules, module, None)


def _without_filter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(h5py.h5z, "filter_avail", lambda code: False)


def _virtual(path: Path) -> None:
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((2, 8, 8), np.uint8)
        layout[:] = h5py.VirtualSource("others.h5", "images", (2, 8, 8))
        file.create_virtual_dataset("images", layout)


def _large_chunks(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (1000, 2048, 2048, 1), np.uint8, chunks=(1000, 2048, 2048, 1))


def _packed_by_filter(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=array_files.images(4, 8, 8), compression="gzip")


def _empty_lmdb(path: Path) -> None:
    archives.lmdb_of(path, [], subdir=False)
    path.with_name(f"{path.name}-lock").unlink()


def _lmdb(path: Path) -> None:
    archives.lmdb_of(path, archives.PNGS, subdir=False)
    path.with_name(f"{path.name}-lock").unlink()


_PAGE = (r"(?<=damaged at page )\d+",)  # the size of a page depends on the machine


def _damaged_lmdb(kind: int) -> Callable[[Path], object]:
    """Return a function that writes an LMDB and changes the flags of its pages of one kind.

    Kind 2 is a leaf, kind 4 a page of a value too large for a leaf.
    """

    def write(path: Path) -> None:
        archives.lmdb_of(path, [*archives.PNGS, _PNG + bytes(2 * archives.LMDB_PAGE)], subdir=False)
        path.with_name(f"{path.name}-lock").unlink()
        content = bytearray(path.read_bytes())
        for page in range(2 * archives.LMDB_PAGE, len(content), archives.LMDB_PAGE):
            if content[page + 10] == kind:
                content[page + 10] = 8
        path.write_bytes(content)

    return write


def _later_lmdb(path: Path) -> None:
    _lmdb(path)
    content = path.read_bytes()
    path.write_bytes(content[:20] + b"\x02" + content[21:])


def _fortran(path: Path) -> None:
    np.savez(path, images=np.asfortranarray(array_files.images(2, 8, 8, 3)))


def _longer(path: Path) -> None:
    """Write an .npz whose array has more bytes than its header says."""
    content = io.BytesIO()
    np.save(content, array_files.images(2, 8, 8, 3))
    archives.zip_of(path, ("images.npy", content.getvalue() + b"more"))


def _damaged_member(path: Path) -> None:
    np.savez_compressed(path, images=array_files.images(2, 8, 8, 3))
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)


def _member_without(path: Path) -> None:
    """Write a zip whose end record places all members 1000 bytes too early, before the start of the file."""
    archives.zip_of(path, ("a.png", _PNG))
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\5\6")
    begin = int.from_bytes(content[end + 16 : end + 20], "little")
    content[end + 16 : end + 20] = (begin + 1000).to_bytes(4, "little")
    path.write_bytes(content)


def _second_header(path: Path) -> None:
    """Write a tar whose second header is damaged; `tarfile` takes a damaged header for the end of the tar."""
    archives.tar_of(path, ("a.png", _PNG), ("b.png", _PNG))
    content = bytearray(path.read_bytes())
    place = 512 + -(-len(_PNG) // 512) * 512
    content[place : place + 512] = b"x" * 512
    path.write_bytes(content)


def _one_damaged(folder: Path) -> None:
    """Write a folder with two zips, one of them damaged."""
    archives.zip_of(folder / "a.zip", ("a.png", _PNG))
    (folder / "b.zip").write_bytes(b"no zip")


def _nameless(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", _PNG)
        archive.filelist[0].filename = ""  # changes only the directory, which is written last


def _header(text: bytes) -> bytes:
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


def _long_header_tar(path: Path) -> None:
    info = archives.member("a.png", tarfile.GNUTYPE_LONGNAME)
    info.size = 2 << 20
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4 << 20))


def _negative_tar(path: Path) -> None:
    info = archives.member("a.png")
    info.size = -512
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))


def _fifo(path: Path) -> None:
    os.mkfifo(path)


_LISTS = pyarrow.array([[_PNG]], pyarrow.list_(pyarrow.binary()))

CASES = [
    Case("prepare", "a single image", _file("a.png", _PNG), "a.png"),
    Case("prepare", "a file of an unknown kind", _file("notes.txt", b"notes"), "notes.txt"),
    Case("prepare", "a compressed archive", _file("a.tar.gz", b"\x1f\x8b"), "a.tar.gz"),
    Case("prepare", "a named pipe", _made("pipe", _fifo), "pipe"),
    Case("prepare", "a file that Git LFS has not fetched", _file("a.parquet", archives.POINTER), "a.parquet"),
    Case("prepare", "a zip with --kind tar", _made("a.zip", _zip(("a.png", _PNG)), "--kind", "tar"), "a.zip"),
    Case("prepare", "--split with a file of arrays", _made("a.npy", _npy(2, 8, 8), "--split", "test"), "a.npy"),
    Case("prepare", "--column with a zip", _made("a.zip", _zip(("a.png", _PNG)), "--column", "a"), "a.zip"),
    Case("prepare", "--column with a .npy", _made("a.npy", _npy(2, 8, 8), "--column", "a"), "a.npy"),
    Case("prepare", "--column with a CIFAR batch", _cifar({"data": _ROWS}, "--column", "a"), "data_batch_1"),
    # Zips and tars.
    Case("prepare", "a damaged zip", _file("a.zip", b"PK\3\4"), "a.zip", machine=_QUOTED),
    Case("prepare", "a zip without images", _made("a.zip", _zip(("a.txt", b"notes"))), "a.zip"),
    Case("prepare", "a zip with a member without a name", _made("a.zip", _nameless), "a.zip", machine=_QUOTED),
    Case(
        "prepare",
        "a zip with a member that lies outside the file, with --strict",
        _made("a.zip", _member_without, "--strict"),
        "a.zip/a.png",
        leaves=_STRICT_LEAVES,
    ),
    Case(
        "prepare",
        "a zip compressed by bzip2, with --strict",
        _made("a.zip", _bzip2("a.png", _PNG), "--strict"),
        "a.zip/a.png",
        leaves=_STRICT_LEAVES,
    ),
    Case(
        "prepare",
        "an encrypted zip, with --strict",
        _made("a.zip", _locked, "--strict"),
        "a.zip/a.png",
        leaves=_STRICT_LEAVES,
    ),
    Case("prepare", "a damaged tar", _file("a.tar", b"no tar" * 500), "a.tar", machine=_QUOTED),
    Case(
        "prepare", "a tar that is cut short", _made("a.tar", _cut(_tar(("a.png", _PNG), ("b.png", _PNG)), 0.1)), "a.tar"
    ),
    Case("prepare", "a tar with a header of 2 MiB", _made("a.tar", _long_header_tar), "a.tar"),
    Case("prepare", "a tar with a member of negative size", _made("a.tar", _negative_tar), "a.tar"),
    Case("prepare", "a tar with a damaged header", _made("a.tar", _second_header), "a.tar"),
    Case(
        "prepare", "a folder of zips, one of them damaged", _made("zips", _one_damaged), "zips/b.zip", machine=_QUOTED
    ),
    Case("prepare", "a tar without images", _made("a.tar", _tar(("a.txt", b"notes"))), "a.tar"),
    Case(
        "prepare",
        "a --column that no webdataset sample has",
        _made("a.tar", _tar(("0.jpg", _PNG), ("0.mask.png", _PNG)), "--column", "depth.png"),
        "a.tar",
        machine=_QUOTED,
    ),
    # Parquet and LMDB.
    Case("prepare", "a damaged parquet file", _file("a.parquet", b"PAR1"), "a.parquet", machine=_QUOTED),
    Case(
        "prepare",
        "a parquet file, but no package pyarrow",
        _file("a.parquet", b"PAR1"),
        "a.parquet",
        around=_without("pyarrow.parquet"),
    ),
    Case(
        "prepare",
        "a parquet file without rows",
        _made("a.parquet", lambda path: archives.parquet_of(path, [])),
        "a.parquet",
    ),
    Case("prepare", "a parquet file without images", _made("a.parquet", _table(label=[1, 2])), "a.parquet"),
    Case(
        "prepare",
        "a parquet file with two columns of images",
        _made("a.parquet", _table(left=[_PNG], right=[_PNG])),
        "a.parquet",
    ),
    Case(
        "prepare",
        "a --column that the parquet file does not have",
        _made("a.parquet", _table(left=[_PNG]), "--column", "right"),
        "a.parquet",
    ),
    Case(
        "prepare",
        "a parquet column with lists of images",
        _made("a.parquet", _table(frames=_LISTS), "--column", "frames"),
        "a.parquet",
    ),
    Case(
        "prepare",
        "a parquet row without bytes, with --strict",
        _made("a.parquet", lambda path: archives.parquet_of(path, [_PNG, None]), "--strict"),
        "a.parquet, row 1",
        leaves=_STRICT_LEAVES,
    ),
    Case(
        "prepare", "a parquet file with a damaged page", _made("a.parquet", _damaged_page), "a.parquet", machine=_QUOTED
    ),
    Case(
        "prepare",
        "a parquet row that could fill the memory, with --strict",
        _made("a.parquet", _zeros(image=[bytes(100_000)]), "--strict"),
        "a.parquet, row 0",
        around=_little_room,
        machine=(r"(?<=at most )\d+",),
        leaves=_STRICT_LEAVES,
    ),
    Case(
        "prepare",
        "a parquet column that could fill the memory",
        _made("a.parquet", _zeros(photo=[_PNG], large=[bytes(100_000)])),
        "a.parquet",
        around=_little_room,
        machine=(r"(?<=at most )\d+",),
    ),
    Case("prepare", "a damaged LMDB", _file("a.lmdb", b"no database" * 1000), "a.lmdb", machine=_QUOTED),
    Case("prepare", "an LMDB with a damaged page", _made("a.lmdb", _damaged_lmdb(2)), "a.lmdb", machine=_PAGE),
    Case(
        "prepare",
        "an LMDB with a damaged value, with --strict",
        _made("a.lmdb", _damaged_lmdb(4), "--strict"),
        "a.lmdb",
        machine=_PAGE,
        leaves=_STRICT_LEAVES,
    ),
    Case("prepare", "an LMDB of a later version of the format", _made("a.lmdb", _later_lmdb), "a.lmdb"),
    Case(
        "prepare",
        "an LMDB that is cut short",
        _made("a.lmdb", _cut(_lmdb, 0.7)),
        "a.lmdb",
        machine=(r"\d+ of \d+ bytes",),
    ),
    Case("prepare", "an empty LMDB", _made("a.lmdb", _empty_lmdb), "a.lmdb"),
    # NumPy's files.
    Case("prepare", "a .npy that holds other data", _file("a.npy", b"notes"), "a.npy"),
    Case("prepare", "a .npy without its header", _file("a.npy", b"\x93NUMPY"), "a.npy"),
    Case("prepare", "a .npy with a header of 60 kilobytes", _file("a.npy", _header(bytes(60_000))), "a.npy"),
    Case("prepare", "a .npy with a damaged header", _file("a.npy", _header(b"{'descr':")), "a.npy", machine=_QUOTED),
    Case(
        "prepare",
        "a .npy of a later version of the format",
        _file("a.npy", b"\x93NUMPY\x09\0" + (2).to_bytes(4, "little") + b"{}"),
        "a.npy",
    ),
    Case("prepare", "a .npy that is cut short", _made("a.npy", _cut(_npy(9, 8, 8), 0.9)), "a.npy"),
    Case("prepare", "an array with 0 images", _made("a.npy", _npy(0, 8, 8)), "a.npy"),
    Case("prepare", "an array of flattened images", _made("a.npy", _npy(2, 64)), "a.npy"),
    Case("prepare", "an array of floats", _made("a.npy", _npy(2, 8, 8, dtype="float32")), "a.npy"),
    Case("prepare", "an array that is one image", _made("a.npy", _npy(8, 8, 3)), "a.npy"),
    Case("prepare", "an array with two axes that could be the channels", _made("a.npy", _npy(2, 3, 8, 3)), "a.npy"),
    Case("prepare", "an array with 7 channels", _made("a.npy", _npy(2, 8, 8, 7)), "a.npy"),
    Case(
        "prepare",
        "an array of images that are too large",
        _file("a.npy", array_files.header((1, 20_000, 20_000))),
        "a.npy",
    ),
    Case("prepare", "a damaged .npz", _file("a.npz", b"PK\3\4"), "a.npz", machine=_QUOTED),
    Case("prepare", "an .npz without arrays", _made("a.npz", _zip(("a.txt", b"notes"))), "a.npz"),
    Case("prepare", "an .npz without images", _made("a.npz", _npz(labels=np.zeros(3))), "a.npz"),
    Case(
        "prepare",
        "an .npz with two arrays of images",
        _made("a.npz", _npz(left=array_files.images(2, 8, 8), right=array_files.images(2, 8, 8))),
        "a.npz",
    ),
    Case(
        "prepare",
        "a --column that the .npz does not have",
        _made("a.npz", _npz(left=array_files.images(2, 8, 8)), "--column", "right"),
        "a.npz",
    ),
    Case(
        "prepare",
        "a --column of an .npz that holds no images",
        _made("a.npz", _npz(labels=np.zeros(3)), "--column", "labels"),
        "a.npz",
    ),
    Case("prepare", "an .npz in Fortran order", _made("a.npz", _fortran), "a.npz"),
    Case("prepare", "an .npz with more bytes than an array's header says", _made("a.npz", _longer), "a.npz"),
    Case(
        "prepare",
        "an .npz with a damaged array",
        _made("a.npz", _damaged_member),
        "a.npz",
        machine=(r"(?<=unreadable \().*(?=\), expected)",),
    ),
    Case("prepare", "an .npz compressed by bzip2", _made("a.npz", _bzip2("a.npy", b"")), "a.npz"),
    # HDF5.
    Case(
        "prepare",
        "an HDF5 file, but no package h5py",
        _made("a.h5", _h5(images=array_files.images(2, 8, 8))),
        "a.h5",
        around=_without("h5py"),
    ),
    Case("prepare", "a damaged HDF5 file", _file("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(100)), "a.h5", machine=_QUOTED),
    Case("prepare", "an HDF5 dataset without a shape", _made("a.h5", _h5(a=h5py.Empty("u1")), "--column", "a"), "a.h5"),
    Case(
        "prepare",
        "an HDF5 dataset that is a link into another file",
        _made("a.h5", _h5(a=h5py.ExternalLink("others.h5", "/a")), "--column", "a"),
        "a.h5",
    ),
    Case("prepare", "a virtual HDF5 dataset of another file", _made("a.h5", _virtual, "--column", "images"), "a.h5"),
    Case("prepare", "an HDF5 dataset in chunks of 4 GB", _made("a.h5", _large_chunks), "a.h5"),
    Case(
        "prepare",
        "an HDF5 dataset compressed by an unknown filter",
        _made("a.h5", _packed_by_filter),
        "a.h5",
        around=_without_filter,
    ),
    Case(
        "prepare",
        "a --column that the HDF5 file does not have",
        _made("a.h5", _h5(images=array_files.images(2, 8, 8)), "--column", "labels"),
        "a.h5",
    ),
    # Batches of CIFAR.
    Case("prepare", "a CIFAR batch that is a pickled list", _cifar([1]), "data_batch_1"),
    Case("prepare", "a CIFAR batch without data", _cifar({"labels": [1]}), "data_batch_1"),
    Case("prepare", "a CIFAR batch with floats", _cifar({"data": _ROWS.astype("f4")}), "data_batch_1"),
    Case("prepare", "a CIFAR batch with rows of another length", _cifar({"data": _ROWS[:, :47]}), "data_batch_1"),
    Case("prepare", "a CIFAR batch whose data are a list", _cifar({"data": [1]}), "data_batch_1"),
    Case(
        "prepare",
        "a CIFAR batch whose pickle would run code",
        _cifar({"data": Path("a")}),
        "data_batch_1",
        machine=_QUOTED,
    ),
    Case("prepare", "a CIFAR batch whose data are a set", _cifar({"data": {1}}), "data_batch_1"),
    Case("prepare", "a CIFAR batch with a tuple as a key", _cifar({(1, 2): 3}), "data_batch_1"),
    Case(
        "prepare",
        "a CIFAR batch that is cut short",
        _file("data_batch_1", pickle.dumps({"data": _ROWS}, 4)[:60]),
        "data_batch_1",
        machine=_QUOTED,
    ),
]
