"""Tar files: any images, or webdataset's samples, whose members share their name up to its first dot."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError, NoImagesError
from .members import from_root, images_among
from .names import HEAD_BYTES
from .reading import check_size
from .source import ENDLESS, JOINED, Tally
from .splits import chosen_split

_FURTHER = "further images of webdataset samples (--column NAME takes those of one name, such as mask.png)"

_STEP = 1 << 20

# The name of a sample's part is a word, "mask.png". The rest of IMG.001.jpg or v1.0-a.jpg is no word.
_WORDS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class TarSource:
    """The images of a tar, in its order: of a webdataset sample the first, or the one that is asked for.

    Of two members with one name the last is taken, as unpacking leaves it.

    Args:
        path: a tar, uncompressed, so that an image is read where it lies.
        column: what follows the first dot of the names to take, such as "mask.png". None: see above.
        split: the split to take, of those that folders in it name.

    Raises:
        DataError: no tar, or one without images or of several splits.
    """

    def __init__(self, path: Path, column: str | None = None, split: str | None = None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.aside = Tally()
        found = self._list()
        if not found:
            raise NoImagesError(path, "a tar", str(self.aside))
        names = list(found)
        taken = chosen_split(names, "images", split, path)
        names = [name for name, wanted in zip(names, taken, strict=True) if wanted]
        self._names = _of_samples(names, self.aside) if column is None else _named(names, column, path)
        self._places = [found[name] for name in self._names]

    def _list(self) -> dict[str, tuple[int, int]]:
        """Offset and size of each image."""
        files: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        names: dict[str, None] = {}
        try:
            with tarfile.open(self._path, "r:") as tar, self._path.open("rb") as file:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # it keeps them all: 1 kB each
                    name, target = member.name.removeprefix("./"), member.linkname.removeprefix("./")
                    if member.issparse():
                        self.aside.add("sparse members, to be unpacked first", name)
                        continue
                    if member.isfile():
                        files[name] = member.offset_data, member.size
                    elif member.islnk() and target in files:  # a file as it is so far: a later one may have its name
                        files[name] = files[target]
                    elif member.islnk() or member.issym():
                        links[name] = target if member.islnk() else from_root(name, member.linkname)
                        files.pop(name, None)
                    else:
                        continue
                    if name in files:
                        links.pop(name, None)
                    names[name] = None
                self._check_end(file, tar.offset)

                def head(name: str) -> bytes:
                    file.seek(files[name][0])
                    return file.read(min(HEAD_BYTES, files[name][1]))

                found = images_among(files, links, list(names), head, self.aside)
        except (tarfile.TarError, OSError) as error:
            raise DataError(
                f"{self._path}: got a file that can't be read ({error}), expected an uncompressed tar"
            ) from error
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
        parts = ", ".join(part for part, _ in Counter(_parted(name)[1] for name in names).most_common(10))
        raise DataError(f"{path}: got no images named *.{column}, expected one of {parts}")
    return found


def _of_samples(names: list[str], aside: Tally) -> list[str]:
    """The first image of each sample, and all images that are no samples' parts.

    Images with one name up to the first dot are a sample if one of them has no further dot, or if the rest of each
    name occurs again in another sample. IMG.001.jpg and IMG.002.jpg, or john.smith.jpg and john.doe.jpg alone, are two.
    """
    samples: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        sample, part = _parted(name)
        samples.setdefault(sample, []).append((name, part))
    if len(samples) == len(names):
        return names
    occurring = Counter(part for members in samples.values() for _, part in members)
    dropped: set[str] = set()
    for members in samples.values():
        parts = [(name, part) for name, part in members if _WORDS.fullmatch(part)]
        if any("." not in part for _, part in parts) or all(occurring[part] > 1 for _, part in parts):
            dropped.update(name for name, _ in parts[1:])
    for name in names:
        if name in dropped:
            aside.add(_FURTHER, name)
    return [name for name in names if name not in dropped]
