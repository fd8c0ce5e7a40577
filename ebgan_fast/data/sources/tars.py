"""Tar files: any images, or webdataset's samples, whose members share their name up to its first dot."""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..._console import shortened
from ..errors import DataError, no_images
from .members import from_root, images_among
from .names import HEAD_BYTES
from .reading import check_size, quoted
from .source import ENDLESS, JOINED, Tally
from .splits import chosen_split

_FURTHER = (
    "further images of webdataset samples (--column NAME takes those of one name, --column all takes each as an image)"
)
_ALL = "all"  # a column, as it is a split

_STEP = 1 << 20
_LONGEST_HEADER = 1 << 20  # bytes: of a long name, or of attributes
_DUMPED_FOLDER = b"D"  # GNU's incremental dumps list a folder in a member of this type

# The name of a sample's part is a word, "mask.png". The rest of IMG.001.jpg or v1.0-a.jpg is no word.
_WORDS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class _Headers(io.BufferedReader):
    """A tar's file, of which tarfile reads no more at once than a header has.

    A damaged header claims any length. tarfile would reserve that much memory.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"damaged: a header of {size} bytes")
        return super().read(size)


class TarSource:
    """The images of a tar, in its order: one of each webdataset sample, or those that are asked for.

    Of two members with one name the last is taken, as unpacking leaves it.

    Args:
        path: a tar, uncompressed, so that an image is read where it lies.
        column: what follows the first dot of the names to take, such as "mask.png", or "all". None: one of each
            sample, see `_of_samples`.
        split: the split to take, of those that folders in it name.

    Raises:
        DataError: no tar, or one without images or of several splits.
    """

    def __init__(self, path: Path, column: str | None = None, split: str | None = None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.aside = Tally()
        try:
            with _Headers(io.FileIO(path)) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                found = self._list(tar, file)
        except Exception as error:  # tarfile's own kinds, and whatever else a damaged tar makes it raise
            raise DataError(
                f"{path}: got a file that can't be read ({quoted(error)}), expected an uncompressed tar"
            ) from error
        if not found:
            raise no_images(path, "a tar", str(self.aside))
        names = list(found)
        taken = chosen_split(names, "images", split, path)
        names = [name for name, wanted in zip(names, taken, strict=True) if wanted]
        if column is None:
            names = _of_samples(names, self._tell)
        elif column != _ALL:
            names = _named(names, column, path)
        self._names = names
        self._places = [found[name] for name in self._names]

    def _tell(self, kind: str, name: str) -> None:
        self.aside.add(kind, f"{self._path.name}/{name}")

    def _list(self, tar: tarfile.TarFile, file: BinaryIO) -> dict[str, tuple[int, int]]:
        """Offset and size of each image."""
        files: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        names: dict[str, None] = {}
        end = 0
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # it keeps them all: 1 kB each
            if member.size < 0 or tar.offset <= end:  # which would lead back, and around
                raise tarfile.ReadError(f"damaged: a member of {member.size} bytes at byte {member.offset}")
            end = tar.offset
            name, target = member.name.removeprefix("./"), member.linkname.removeprefix("./")
            is_unknown = member.type not in tarfile.SUPPORTED_TYPES
            if member.isdir() or member.type == _DUMPED_FOLDER:
                continue
            if member.issparse():
                self._tell("sparse members, to be unpacked first", name)
                continue
            if member.isfile() or (is_unknown and member.size):  # an unknown type is a file's, says POSIX
                files[name] = member.offset_data, member.size
            elif member.islnk() and target in files:  # a file as it is so far: a later one may have its name
                files[name] = files[target]
            elif member.islnk() or member.issym():
                links[name] = target if member.islnk() else from_root(name, member.linkname)
                files.pop(name, None)
            else:
                self._tell("members of unknown types, without data" if is_unknown else "devices and FIFOs", name)
                continue
            if name in files:
                links.pop(name, None)
            names[name] = None
        self._check_end(file, tar.offset)

        def head(name: str) -> bytes:
            file.seek(files[name][0])
            return file.read(min(HEAD_BYTES, files[name][1]))

        found = images_among(files, links, list(names), head, self._tell)
        return {name: files[target] for name, target in found.items()}

    def _check_end(self, file: BinaryIO, end: int) -> None:
        """Look at what follows the last member: two blocks of zeros, of which more may follow.

        Raises:
            tarfile.ReadError: a damaged header, which tarfile takes for the end.
        """
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"damaged or cut short at byte {end}")
        if file.tell() == end:
            self.aside.add(ENDLESS, str(self._path))
        while rest := file.read(_STEP):
            if rest.strip(b"\0"):
                self.aside.add(JOINED, str(self._path))
                break

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return f"{self._path}/{self._names[index]}"

    def read(self, index: int) -> bytes:
        offset, size = self._places[index]
        check_size(size)
        if self._file is None:
            self._file = self._path.open("rb")
        self._file.seek(offset)
        return self._file.read(size)

    def files(self) -> Iterator[str]:
        yield str(self._path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def _parted(name: str) -> tuple[str, str]:
    """A member's sample, with its folder, and the name of its part: webdataset's rule."""
    folder, slash, base = name.rpartition("/")
    sample, _, part = base.partition(".")
    return f"{folder}{slash}{sample}", part


def _named(names: list[str], column: str, path: Path) -> list[str]:
    """The images whose part has this name."""
    found = [name for name in names if _parted(name)[1] == column]
    if not found:
        common = Counter(_parted(name)[1] for name in names).most_common(10)
        parts = ", ".join(shortened(part) for part, _ in common)
        raise DataError(f"{path}: got no images named *.{column}, expected one of {parts}, or {_ALL}")
    return found


def _of_samples(names: list[str], tell: Callable[[str, str], None]) -> list[str]:
    """One image of each sample, and all images that are no samples' parts.

    Images with one name up to the first dot are a sample if one of them has no further dot, or if two have a rest that
    occurs again. IMG.001.jpg and IMG.002.jpg, or john.smith.jpg and john.doe.jpg alone, are two images.

    The order of a tar's members is no sample's own, so parts are ranked once for the tar: those without a further dot
    first, such as jpg, then those that occur more often, then those that come earlier. A sample gives the part of the
    highest rank. If all of its parts have a further dot, one may be an image and another its mask: then it gives the
    same part as all samples of this kind, or none. No part that stands beside a jpg is given by a sample without.
    """
    parts = {name: part for name in names if _WORDS.fullmatch(part := _parted(name)[1])}
    samples: dict[str, dict[str, str]] = {}
    for name, part in parts.items():
        samples.setdefault(_parted(name)[0], {})[part] = name
    if len(samples) == len(parts):
        return names
    occurring = Counter(parts.values())
    ranked = sorted(occurring, key=lambda part: ("." in part, -occurring[part]))
    ranks = {part: rank for rank, part in enumerate(ranked)}
    beside: set[str] = set()  # one without a further dot
    equals: set[str] = set()
    for sample in samples.values():
        dotted = {part for part in sample if "." in part}
        recurring = {part for part in dotted if occurring[part] > 1}
        if len(dotted) < len(sample):
            beside |= dotted
        elif len(recurring) > 1:
            equals |= recurring
    chosen = min(equals - beside, key=ranks.__getitem__, default=None)
    dropped: set[str] = set()
    for sample in samples.values():
        best = min(sample, key=ranks.__getitem__)
        if "." in best and beside.isdisjoint(sample) and equals.isdisjoint(sample):
            continue
        taken = chosen if "." in best else best
        dropped.update(name for part, name in sample.items() if part != taken)
    for name in names:
        if name in dropped:
            tell(_FURTHER, name)
    return [name for name in names if name not in dropped]
