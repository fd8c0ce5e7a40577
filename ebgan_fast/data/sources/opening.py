"""Open the images at a path: find out their kind, and choose among several kinds and splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError, NoImagesError, no_images
from .arrays import open_array
from .cifar import open_batch
from .folder import FolderSource, list_folder
from .lsun import LmdbSource
from .names import (
    COMPRESSED,
    HEAD_BYTES,
    KINDS,
    NOUNS,
    SUFFIX_KINDS,
    Kind,
    image_suffixes,
    is_batch,
    looks_like_image,
    split_of,
    suffix_of,
)
from .parquet import ParquetSource
from .reading import head_of, is_lfs_pointer
from .source import Joined, Source, Tally
from .splits import ALL, chosen_split
from .tars import TarSource
from .zipped import ZipSource

_UNDERSTOOD = (
    "a folder with images at any depth, or zips, tars, parquet files, LMDBs (data.mdb) or arrays (.npy, .npz, .h5, "
    "CIFAR's batches) of them, or a folder of such files"
)
_OF_COLUMNS: tuple[Kind, ...] = ("parquet", "tar", "arrays")
# Above this number, arrays beside images are taken for features of the images, and aren't opened to be counted.
_ARRAYS_BESIDE = 100
_LMDB_MAGIC = b"\xde\xc0\xef\xbe"  # stands at byte 16


def open_source(path: Path, *, kind: Kind | None = None, split: str | None = None, column: str | None = None) -> Source:
    """Open the images of a file or folder. Their kind is found out; nothing is downloaded.

    A folder may hold several kinds. The kind with the most images is taken; on a tie, the one that `KINDS` names first.
    The rest is counted in the source's `aside`.

    Args:
        path: a file or folder.
        kind: the kind to take in a folder of several. None: the kind with the most images.
        split: the split to take of a set that has several, or "all". None: the set must have only one.
        column: the part to take of a parquet file, a webdataset, an .npz or an HDF5 file. None: the part named "image",
            or the only part that holds images; in a webdataset one image of each sample.

    Raises:
        DataError: the path doesn't exist or holds nothing that can be read here, a file is damaged, or there are
            several splits and none was chosen. The message says what to do.
        ValueError: the kind is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    if path.is_dir():
        source = _in_folder(path, kind, split, column)
    elif path.exists() and not path.is_file():  # opening a FIFO would wait for a writer
        raise DataError(f"{path}: got neither a file nor a folder, expected {_UNDERSTOOD}")
    elif path.exists():
        found = _kind_of(path)
        if kind not in (None, found):
            raise DataError(f"{path}: got a file of the kind {found}, expected one of {kind}")
        _check_column(path, found, column)
        inside = None if split == split_of(path.name, found) else split
        source = _open(path, found, inside, column)
        if inside not in (None, ALL) and found in ("parquet", "lmdb", "arrays"):
            raise DataError(f"{path}: got --split {split} and a file of no splits, expected none")
    else:
        raise DataError(f"{path}: got no such file or folder, expected {_UNDERSTOOD}")
    return source


def _open(path: Path, kind: Kind, split: str | None, column: str | None) -> Source:
    """Open one file of many images."""
    _check_fetched(path)
    if kind == "parquet":
        return ParquetSource(path, column)
    if kind == "tar":
        return TarSource(path, column, split)
    if kind == "zip":
        return ZipSource(path, split)
    if kind == "lmdb":
        return LmdbSource(path)
    if not _is_batch_file(path):
        return open_array(path, column)
    if column is not None:
        raise DataError(f"{path}: got --column {column} and a batch of CIFAR's, expected none: it has no columns")
    return open_batch(path)


def _kind_of(path: Path) -> Kind:
    """Return the kind of a file, by its suffix, or by its first bytes if it has no known one.

    So a damaged archive keeps the kind that its suffix names, and its error says that it is damaged.
    """
    suffix = suffix_of(path.name)
    if suffix in SUFFIX_KINDS:
        return SUFFIX_KINDS[suffix]
    _check_fetched(path)
    head = head_of(path, 1 << 9)
    if suffix in COMPRESSED:
        raise DataError(
            f"{path}: got a compressed archive, expected one whose images can be read one by one: unpack it first, and "
            "give the folder"
        )
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    if head[16:20] == _LMDB_MAGIC:
        return "lmdb"
    if head.startswith((b"\x93NUMPY", b"\x89HDF")) or _is_batch_file(path):
        return "arrays"
    if suffix in image_suffixes() or looks_like_image(head):
        raise DataError(f"{path}: got a single image, expected the folder that holds it")
    raise DataError(f"{path}: got a file of an unknown kind, expected {_UNDERSTOOD}")


def _is_batch_file(path: Path) -> bool:
    return is_batch(path.name) and head_of(path, 1) == b"\x80"


def _check_fetched(path: Path) -> None:
    path = path / "data.mdb" if path.is_dir() else path
    if path.is_file() and is_lfs_pointer(head_of(path, HEAD_BYTES)):
        raise DataError(
            f"{path}: got a pointer of Git LFS in place of the file, expected the file itself: git lfs pull fetches it"
        )


def _check_column(path: Path, kind: Kind, column: str | None) -> None:
    if column is not None and kind not in _OF_COLUMNS:
        raise DataError(
            f"{path}: got --column {column} and {kind}, expected none: only parquet, tars, .npz and HDF5 have columns"
        )


def _in_folder(path: Path, kind: Kind | None, split: str | None, column: str | None) -> Source:
    """Open the images of a folder, of the kind asked for or else of the kind with the most images."""
    listing = list_folder(path)
    names = {"images": listing.images, **listing.sets}
    there = [each for each in KINDS if names.get(each)]
    if there and kind is not None and kind not in there:
        raise DataError(f"{path}: got a folder without {NOUNS[kind]}, expected --kind {' or '.join(there)}")
    wanted = [each for each in there if kind in (None, each) and (column is None or each in _OF_COLUMNS)]
    if there and not wanted:
        _check_column(path, kind or there[0], column)
    if kind is None and listing.images and len(names.get("arrays", [])) > _ARRAYS_BESIDE:
        wanted = [each for each in wanted if each != "arrays"]
    found = {each: _opened(path, each, names[each], split, column) for each in wanted}
    if not any(found.values()):
        errors = [error for opened in found.values() for error in (opened.error, opened.empty) if error is not None]
        raise errors[0] if errors else no_images(path, "a folder", str(listing.aside), _UNDERSTOOD)
    best = max(found, key=lambda each: len(found[each]))  # on a tie the first of them
    if (error := found[best].error) is not None:
        raise error
    sources = found[best].sources
    source = sources[0] if len(sources) == 1 else Joined(sources)
    source.aside.update(found[best].aside)
    source.aside.update(listing.aside)
    for each in there:
        if each != best:
            text = f"{NOUNS[each]} {_hint(each, found.get(each))}"
            for name in names[each]:
                source.aside.add(text, name or ".")
    return source


@dataclass
class _Opened:
    """The opened files of one kind in a folder.

    Attributes:
        sources: the files that hold images.
        aside: the count of files without images, and of files of other splits.
        error: the first error because of which not all files can be taken, such as that of a damaged file.
        empty: the error of the first file without images.
    """

    sources: list[Source] = field(default_factory=list)
    aside: Tally = field(default_factory=Tally)
    error: DataError | None = None
    empty: DataError | None = None

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)


def _opened(path: Path, kind: Kind, names: list[str], split: str | None, column: str | None) -> _Opened:
    """Open the files of one kind that belong to the chosen split.

    Raises:
        DataError: the files belong to several splits, and none was chosen.
    """
    opened = _Opened()
    if kind not in ("tar", "zip") or any(split_of(name, kind) is not None for name in names):
        try:
            taken = chosen_split(names, kind, split, path)
        except DataError as error:
            if split is None:
                raise
            return _Opened(error=error)  # files of another kind may have the split
        for name, wanted in zip(names, taken, strict=True):
            if not wanted:
                opened.aside.add(f"{NOUNS[kind]} of other splits", name)
        names = [name for name, wanted in zip(names, taken, strict=True) if wanted]
        split = ALL if split == ALL else None  # from here on: the split to take within each file
    if kind == "images":
        opened.sources.append(FolderSource(path, names))
        return opened
    for name in names:
        try:
            opened.sources.append(_open(path / name, kind, split, column))
        except NoImagesError as error:
            opened.empty = opened.empty or error
            opened.aside.add(f"{NOUNS[kind]} without images", name)
        except DataError as error:
            opened.error = opened.error or error
    return opened


def _hint(kind: Kind, opened: _Opened | None) -> str:
    """Return the words that follow the name of a kind that isn't taken: how to take it, or why it can't be."""
    if opened is None or len(opened):
        return f"(--kind {kind} takes them)"
    return f"that can't be taken (--kind {kind} says why)" if opened.error is not None else "without images"
