"""Opening a source by what lies at a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError, NoImagesError
from .arrays import open_array
from .cifar import open_batch
from .folder import FolderSource, list_folder
from .lsun import LmdbSource
from .names import (
    COMPRESSED,
    KINDS,
    SUFFIX_KINDS,
    Kind,
    image_suffixes,
    is_batch,
    looks_like_image,
    split_of,
    suffix_of,
)
from .parquet import ParquetSource
from .reading import is_lfs_pointer
from .source import Joined, Source, Tally
from .splits import ALL, chosen_split
from .tars import TarSource
from .zipped import ZipSource

_UNDERSTOOD = (
    "a folder with images at any depth, or zips, tars, parquet files, LMDBs (data.mdb) or arrays (.npy, .npz, .h5, "
    "CIFAR's batches) of them, or a folder of such files"
)
_OF_COLUMNS: tuple[Kind, ...] = ("parquet", "tar", "arrays")
# Arrays beside images are features of these if they are many, and each is opened to be counted.
_ARRAYS_BESIDE = 100
_HEAD = 64  # bytes, of which the first tell a file's kind
_LMDB_MAGIC = b"\xde\xc0\xef\xbe"  # at byte 16


def open_source(path: Path, *, kind: Kind | None = None, split: str | None = None, column: str | None = None) -> Source:
    """Open images by what the path is and holds; nothing is downloaded.

    A folder may hold several kinds: the one of the most images is taken, of two with as many the first of `KINDS`. What
    is left is counted in the source's `aside`.

    Args:
        path: a file or folder.
        kind: the kind to take in a folder of several.
        split: the split to take of a set that has several, or "all". None: there must be one.
        column: of a parquet file, a webdataset, an .npz or an HDF5 file, the part to take. None: the part that is
            named "image", or the only one of images.

    Raises:
        DataError: nothing there, nothing that is understood, several splits, or a file that is damaged; the message
            says what would do.
        ValueError: an unknown kind.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    if path.is_dir():
        source = _in_folder(path, kind, split, column)
    elif path.exists() and not path.is_file():  # to open a FIFO would wait
        raise DataError(f"{path}: got neither a file nor a folder, expected {_UNDERSTOOD}")
    elif path.exists():
        found = _kind_of(path)
        if kind not in (None, found):
            raise DataError(f"{path}: got a file of the kind {found}, expected one of {kind}")
        _check_column(path, found, column)
        source = _open(path, found, split, column)
        if split not in (None, ALL) and found in ("parquet", "lmdb", "arrays"):
            raise DataError(f"{path}: got --split {split} and a file of no splits, expected none")
    else:
        raise DataError(f"{path}: no such file or folder, expected {_UNDERSTOOD}")
    return source


def _open(path: Path, kind: Kind, split: str | None, column: str | None) -> Source:
    """Open one file of many images."""
    _check_whole(path)
    if kind == "parquet":
        return ParquetSource(path, column)
    if kind == "tar":
        return TarSource(path, column, split)
    if kind == "zip":
        return ZipSource(path, split)
    if kind == "lmdb":
        return LmdbSource(path)
    return open_batch(path) if is_batch(path.name) else open_array(path, column)


def _kind_of(path: Path) -> Kind:
    """The kind of a file, by its suffix or else its first bytes: a damaged one is told from one of something else."""
    suffix = suffix_of(path.name)
    if suffix in SUFFIX_KINDS:
        return SUFFIX_KINDS[suffix]
    _check_whole(path)
    head = _head(path, 1 << 9)
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
    if head.startswith((b"\x93NUMPY", b"\x89HDF")) or (head[:1] == b"\x80" and is_batch(path.name)):
        return "arrays"
    if suffix in image_suffixes() or looks_like_image(head):
        raise DataError(f"{path}: got a single image, expected the folder that holds it")
    raise DataError(f"{path}: got a file of an unknown kind, expected {_UNDERSTOOD}")


def _check_whole(path: Path) -> None:
    path = path / "data.mdb" if path.is_dir() else path
    if path.is_file() and is_lfs_pointer(_head(path, _HEAD)):
        raise DataError(
            f"{path}: got a pointer of Git LFS in place of the file, expected the file itself: git lfs pull fetches it"
        )


def _head(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _check_column(path: Path, kind: Kind, column: str | None) -> None:
    if column is not None and kind in ("images", "zip", "lmdb"):
        raise DataError(
            f"{path}: got --column {column} and {kind}, expected none: only parquet, tars, .npz and HDF5 have columns"
        )


def _in_folder(path: Path, kind: Kind | None, split: str | None, column: str | None) -> Source:
    """Open the kind of which a folder holds the most images."""
    listing = list_folder(path)
    names = {"images": listing.images, **listing.sets}
    there = [each for each in KINDS if names.get(each)]
    if there and kind not in (None, *there):
        raise DataError(f"{path}: got no {kind} in the folder, expected --kind {' or '.join(there)}")
    wanted = [each for each in there if kind in (None, each) and (column is None or each in _OF_COLUMNS)]
    if there and not wanted:
        _check_column(path, kind or there[0], column)
    if kind is None and listing.images and len(names.get("arrays", [])) > _ARRAYS_BESIDE:
        wanted = [each for each in wanted if each != "arrays"]
    found = {each: _Candidate(path, each, names[each], split, column, alone=len(wanted) == 1) for each in wanted}
    if not any(found.values()):
        errors = [error for candidate in found.values() for error in candidate.errors]
        raise errors[0] if errors else NoImagesError(path, "a folder", str(listing.aside), _UNDERSTOOD)
    best = max(found, key=lambda each: len(found[each]))  # the first of those that have as many
    source = found[best].opened()
    source.aside.update(listing.aside)
    for each in there:
        if each != best:
            unfit = each in found and not found[each]
            text = f"{each} files without images that fit" if unfit else f"{each} files (--kind {each} takes them)"
            for name in names[each]:
                source.aside.add("images (--kind images takes them)" if each == "images" else text, name or ".")
    return source


class _Candidate:
    """The files of one kind in a folder, opened to be counted.

    Args:
        path: the folder.
        kind: their kind.
        names: their paths within it.
        split, column: see `open_source`.
        alone: no other kind is there, so that an error needn't wait for the choice.

    Attributes:
        errors: those of files that can't be taken, the ones that end it first.
    """

    def __init__(
        self, path: Path, kind: Kind, names: list[str], split: str | None, column: str | None, alone: bool
    ) -> None:
        self.errors: list[DataError] = []
        self._fatal: DataError | None = None
        self._parts: list[Source] = []
        self._aside = Tally()
        inside = split
        try:
            if kind in ("images", "parquet", "lmdb", "arrays") or _have_splits(names, kind):
                taken = chosen_split(names, kind, split, path)
                inside = split if split == ALL else None
                for name, wanted in zip(names, taken, strict=True):
                    if not wanted:
                        self._aside.add(f"{kind} of other splits", name)
                names = [name for name, wanted in zip(names, taken, strict=True) if wanted]
        except DataError as error:
            if split is not None and not alone:  # another kind may have it
                self.errors.append(error)
                return
            self._fail(error, alone)
            inside = ALL
        if kind == "images":
            self._parts.append(FolderSource(path, names, Tally()))
            return
        for name in names:
            try:
                self._parts.append(_open(path / name, kind, inside, column))
            except NoImagesError as error:
                self.errors.append(error)
                self._aside.add(f"{kind} files without images", name)
            except DataError as error:
                if kind == "arrays":  # labels, features
                    self.errors.append(error)
                    self._aside.add("arrays of something else", name)
                else:
                    self._fail(error, alone)

    def _fail(self, error: DataError, alone: bool) -> None:
        if alone:
            raise error
        self.errors.insert(0, error)
        self._fatal = self._fatal or error

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def opened(self) -> Source:
        """Return the images. Raises the DataError that ends it: a damaged file, or several splits."""
        if self._fatal is not None:
            raise self._fatal
        source = self._parts[0] if len(self._parts) == 1 else Joined(self._parts)
        source.aside.update(self._aside)
        return source


def _have_splits(names: Sequence[str], kind: Kind) -> bool:
    return any(split_of(name, kind) is not None for name in names)
