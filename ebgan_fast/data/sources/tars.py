"""Read images from tar files: any images, or webdataset samples, whose members share their name up to its first dot."""

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
_ALL = "all"  # the column that stands for every image

_STEP = 1 << 20
_LONGEST_HEADER = 1 << 20  # bytes that a long name or attributes may take
_DUMPED_FOLDER = b"D"  # GNU's incremental dumps list a folder in a member of this type

# The name of a sample's part consists of words, such as "mask.png". "001.jpg" of IMG.001.jpg doesn't, nor "0-a.jpg" of
# v1.0-a.jpg.
_WORDS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class _Headers(io.BufferedReader):
    """A tar's file that refuses to read more bytes at once than a header can have.

    A damaged header may claim any length, and tarfile would reserve that much memory.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"damaged: a header of {size} bytes")
        return super().read(size)


class TarSource:
    """The images of a tar, in its order: one image of each webdataset sample, or those that `column` names.

    If two members have one name, the last is taken, which unpacking would leave on the disk.

    Args:
        path: the tar. It must be uncompressed, so that an image can be read without the bytes before it.
        column: the rest after the first dot of the names to take, such as "mask.png", or "all" for every image. None:
            one image of each sample, see `_of_samples`.
        split: the split to take, if folders in the tar are named after splits.

    Raises:
        DataError: the file is no tar, or the tar has no images, or it has several splits and none was chosen.
    """

    def __init__(self, path: Path, column: str | None = None, split: str | None = None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.aside = Tally()
        try:
            with _Headers(io.FileIO(path)) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                found = self._list(tar, file)
        except Exception as error:  # tarfile's own errors, and any other that a damaged tar makes it raise
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
        """Return the offset and size of each image, by name."""
        files: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        names: dict[str, None] = {}
        end = 0
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep all members, 1 kB each
            if member.size < 0 or tar.offset <= end:  # would lead back to earlier members, in an endless loop
                raise tarfile.ReadError(f"damaged: a member of {member.size} bytes at byte {member.offset}")
            end = tar.offset
            name, target = member.name.removeprefix("./"), member.linkname.removeprefix("./")
            is_unknown = member.type not in tarfile.SUPPORTED_TYPES
            if member.isdir() or member.type == _DUMPED_FOLDER:
                continue
            if member.issparse():
                self._tell("sparse members, to be unpacked first", name)
                continue
            if member.isfile() or (is_unknown and member.size):  # POSIX: treat members of unknown types as files
                files[name] = member.offset_data, member.size
            elif member.islnk() and target in files:  # resolved now: a later file may have the target's name
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
        """Check the bytes after the last member: a tar ends with two blocks of zeros, and more zeros may follow.

        Raises:
            tarfile.ReadError: a damaged header stands there, which tarfile takes for the end.
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
    """Return the sample of a member, with its folder, and the name of its part, by webdataset's rule."""
    folder, slash, base = name.rpartition("/")
    sample, _, part = base.partition(".")
    return f"{folder}{slash}{sample}", part


def _named(names: list[str], column: str, path: Path) -> list[str]:
    """Return the names of the images whose part is called `column`.

    Raises:
        DataError: there are no such images.
    """
    found = [name for name in names if _parted(name)[1] == column]
    if not found:
        common = Counter(_parted(name)[1] for name in names).most_common(10)
        parts = ", ".join(shortened(part) for part, _ in common)
        raise DataError(f"{path}: got no images named *.{column}, expected one of {parts}, or {_ALL}")
    return found


def _of_samples(names: list[str], tell: Callable[[str, str], None]) -> list[str]:
    """Return the names of one image of each webdataset sample, and of all images that belong to no sample.

    Images that share their name up to the first dot are a sample in two cases: the rest of one name, its part, has no
    further dot; or the parts of two of them occur in other names too. IMG.001.jpg and IMG.002.jpg are two images, and
    so are john.smith.jpg and john.doe.jpg if no other name ends like them.

    The members of samples may stand in any order, so the parts are ranked once for the whole tar. Parts without a
    further dot come first, such as jpg; then parts that occur more often; then parts that come earlier. The image of a
    sample is its part of the highest rank. If all parts of a sample have a further dot, one may be an image and another
    its mask: then all such samples give the same part, or no image. A part that stands beside a jpg in some sample is
    never the image of a sample without a jpg.

    Args:
        names: the names of all images in the tar.
        tell: called with the kind and the name of each image that isn't taken.
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
    beside: set[str] = set()  # parts with a further dot that stand beside one without
    equals: set[str] = set()  # parts with a further dot that stand beside each other
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
