"""List a tree of files, and read the images in it, such as ImageNet's or CelebA's. Each folder is listed only once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .names import (
    COMPRESSED,
    HEAD_BYTES,
    SUFFIX_KINDS,
    Kind,
    image_suffixes,
    is_batch,
    is_hidden,
    looks_like_image,
    suffix_of,
)
from .reading import head_of, is_lfs_pointer, whole_file
from .source import CLOSED, DANGLING, HIDDEN, NO_SUFFIX, Tally

_AGAIN = "folders read already, under another name"
_AROUND = "links to a folder around them"
_SPECIAL = "neither files nor folders"


@dataclass
class Listing:
    """The content of a folder at any depth. Paths are relative to the folder, joined by "/", and sorted.

    Attributes:
        images: the paths of files that hold one image.
        sets: the paths of files that hold many images, by kind. An LMDB may be a folder.
        aside: the count of anything else.
    """

    images: list[str] = field(default_factory=list)
    sets: dict[Kind, list[str]] = field(default_factory=dict)
    aside: Tally = field(default_factory=Tally)


def list_folder(path: Path) -> Listing:
    """List a folder.

    A link to a folder is followed, unless that folder was listed already or contains the link. Real folders are listed
    first, so that an image which lies inside the folder gets its real path.

    Raises:
        OSError: the folder itself can't be read.
    """
    listing, seen = Listing(), set()
    links: list[str] = []
    with os.scandir(path):  # raises if the folder itself can't be read
        pass

    def visit(folder: str) -> None:
        waiting = [folder]
        while waiting:
            inside = waiting.pop()
            place = os.path.join(path, inside)
            try:
                if (number := _number(place)) in seen:  # mounted twice, or replaced by a link in this moment
                    listing.aside.add(_AGAIN, inside)
                    continue
                seen.add(number)
                with os.scandir(place) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError:
                listing.aside.add(CLOSED, inside)
                continue
            for entry in found:
                name = f"{inside}/{entry.name}" if inside else entry.name
                if is_hidden(entry.name):
                    listing.aside.add(HIDDEN, name)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                elif _leads(entry.is_dir):
                    links.append(name)
                else:
                    _classify(listing, name, entry)

    visit("")
    while links:
        link = links.pop(0)
        place = os.path.join(path, link)
        if _is_around(os.path.realpath(place), os.path.realpath(os.path.dirname(place))):
            listing.aside.add(_AROUND, link)
        else:
            visit(link)
    listing.images.sort()
    for files in listing.sets.values():
        files.sort()
    return listing


def _number(path: str) -> tuple[int, int]:
    """Return the device and inode of a folder, which are the same through every link."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _is_around(outer: str, inner: str) -> bool:
    try:
        return os.path.commonpath([outer, inner]) == outer
    except ValueError:  # on two drives
        return False


def _leads(there: Callable[[], bool]) -> bool:
    """Return the result of an entry's method, or False if it raises, as for a link that leads to itself."""
    try:
        return there()
    except OSError:
        return False


def _classify(listing: Listing, name: str, entry: os.DirEntry[str]) -> None:
    """Add a file to the listing's images, sets or count of anything else."""
    suffix = suffix_of(entry.name)
    if not _leads(entry.is_file):
        # A broken link without a suffix may have led to a folder of images.
        of_images = not suffix or suffix in image_suffixes() or suffix in SUFFIX_KINDS
        is_dangling = entry.is_symlink() and not os.path.exists(entry.path)
        listing.aside.add(DANGLING if is_dangling and of_images else suffix if is_dangling else _SPECIAL, name)
    elif suffix in image_suffixes():
        listing.images.append(name)
    elif suffix in SUFFIX_KINDS:
        listing.sets.setdefault(SUFFIX_KINDS[suffix], []).append(name)
    elif entry.name == "data.mdb":
        listing.sets.setdefault("lmdb", []).append(name.rpartition("/")[0])
    elif suffix in COMPRESSED:
        listing.aside.add(f"{suffix}, to be unpacked first", name)
    elif suffix:
        if entry.name != "lock.mdb":
            listing.aside.add(suffix, name)
    elif is_batch(name) and _is_batch_file(_head(entry.path)):
        listing.sets.setdefault("arrays", []).append(name)
    elif looks_like_image(_head(entry.path)):
        listing.images.append(name)
    else:
        listing.aside.add(NO_SUFFIX, name)


def _is_batch_file(head: bytes) -> bool:
    """Return True for the first bytes of a pickle, or of Git LFS's pointer to a file that wasn't fetched."""
    return head[:1] == b"\x80" or is_lfs_pointer(head)


def _head(path: str) -> bytes:
    try:
        return head_of(path, HEAD_BYTES)
    except OSError:
        return b""


class FolderSource:
    """The images of a folder, each in a file of its own, in the order of `names`.

    Args:
        path: the folder.
        names: the paths of the files, relative to the folder.
    """

    def __init__(self, path: Path, names: list[str]) -> None:
        self._path = str(path)
        self._names = names
        self.aside = Tally()

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return os.path.join(self._path, self._names[index])

    def read(self, index: int) -> bytes:
        return whole_file(self.name(index))

    def files(self) -> Iterator[str]:
        for index in range(len(self)):
            yield self.name(index)

    def close(self) -> None:
        pass  # nothing stays open
