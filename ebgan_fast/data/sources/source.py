"""The interface of a source of images, several sources joined to one, and the count of what lies beside the images."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._console import abridged

Pixels: TypeAlias = NDArray[np.uint8]
"""The pixels of one image: uint8 [H, W] of gray, or [H, W, C] with C = 1 (gray), 3 (RGB) or 4 (RGBA)."""

_PLURAL = re.compile(r"\b(array|column|file|folder|image|link|LMDB|member|tar|zip)s\b")
_NAMED = 3  # names that are shown of a kind
_SHOWN = 20  # kinds that are shown one by one; the others are summed up

# Kinds of a tally.
CLOSED = "folders that can't be opened"
DANGLING = "links to nothing"
JOINED = "tars with more after the end, which isn't read"
ENDLESS = "tars without an end, perhaps cut short"
LOST = (CLOSED, DANGLING, JOINED, ENDLESS)
"""The kinds of things that may have held images, which are then lost."""
HIDDEN = "hidden"
NO_SUFFIX = "without a suffix"


class Tally:
    """A count of things by kind, with the first three names of each kind.

    Example:
        >>> from ebgan_fast.data.sources import Tally
        >>> tally = Tally()
        >>> for kind, name in ((".txt", "a.txt"), (".txt", "b.txt"), (".json", "c.json")):
        ...     tally.add(kind, name)
        >>> print(tally)
        2 .txt (a.txt, b.txt), 1 .json (c.json)
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Count one thing of a kind."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        names = self._names.setdefault(kind, [])
        if len(names) < _NAMED:
            names.append(name)

    def update(self, other: Tally) -> None:
        """Add another tally's counts."""
        for kind, count in other._counts.items():
            self._counts[kind] = self._counts.get(kind, 0) + count
            self._names[kind] = (self._names.get(kind, []) + other._names[kind])[:_NAMED]

    @property
    def kinds(self) -> list[str]:
        """The kinds, in the order in which they were first added."""
        return list(self._counts)

    def of(self, kinds: Iterable[str]) -> Tally:
        """Return the counts of these kinds alone."""
        found = Tally()
        for kind in kinds:
            if kind in self._counts:
                found._counts[kind], found._names[kind] = self._counts[kind], self._names[kind]
        return found

    def without(self, kinds: Collection[str]) -> Tally:
        """Return the counts of all kinds but these."""
        return self.of(kind for kind in self._counts if kind not in kinds)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and (self._counts, self._names) == (other._counts, other._names)

    def texts(self) -> list[str]:
        """Return a text for each kind, with its count and names, the largest count first.

        The names are printable, so that none can move a terminal's cursor. They are also shortened: a member of an
        archive may have a name of 64 kB.
        """
        found = []
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        for kind, count in ordered[:_SHOWN]:
            names = self._names[kind]
            more = ", ..." if count > len(names) else ""
            words = abridged(kind if count > 1 else _of_one(kind))
            found.append(f"{count} {words} ({', '.join(map(abridged, names))}{more})")
        if rest := ordered[_SHOWN:]:
            found.append(f"{sum(count for _, count in rest)} of {len(rest)} other kinds")
        return found

    def __str__(self) -> str:
        return ", ".join(self.texts())


def _of_one(kind: str) -> str:
    """Return a kind's words for one thing: "links to a folder around them" becomes "link to a folder around it"."""
    return _PLURAL.sub(r"\1", kind, count=1).replace(" them", " it", 1)


class Source(Protocol):
    """A source of images in a fixed order. It can be pickled, but without its open files."""

    aside: Tally
    """The count of everything else that lies there and isn't taken."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return the path of an image, with its place in the archive, by which a user can find it."""

    def read(self, index: int) -> bytes | Pixels:
        """Return an image in its stored form: the bytes of a file such as a JPEG, or pixels."""

    def files(self) -> Iterator[str]:
        """Give the path of every file from which images are read."""

    def close(self) -> None:
        """Close the files that `read` has opened. A later `read` opens them again."""


def stamp(source: Source, root: Path) -> str:
    """Return 32 hex digits that change with the name, size or time of any file that an image is read from.

    Sizes and times are those at the moment of the call. A file that is gone has neither.

    Args:
        source: the images.
        root: the file or folder that was opened. Only names within it count, so that another path to it, such as a
            relative one, gives the same digits.
    """
    prefix = str(root)
    digest = hashlib.blake2b(digest_size=16)
    for path in source.files():
        try:
            found = os.stat(path)
            facts = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:
            facts = "gone"
        name = path.removeprefix(prefix).lstrip("/\\")
        digest.update(f"{name}\0{facts}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()


class Joined:
    """Several sources joined one after the other to one. Only the source that was read last has open files."""

    def __init__(self, parts: Sequence[Source]) -> None:
        self._parts = list(parts)
        self._ends = list(itertools.accumulate(len(part) for part in self._parts))
        self._open: int | None = None
        self.aside = Tally()
        for part in self._parts:
            self.aside.update(part.aside)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _place(self, index: int) -> tuple[int, int]:
        """Return the number of the part that holds an image, and the image's index in this part."""
        number = bisect.bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def name(self, index: int) -> str:
        number, inside = self._place(index)
        return self._parts[number].name(inside)

    def read(self, index: int) -> bytes | Pixels:
        number, inside = self._place(index)
        if self._open not in (None, number):
            self.close()
        self._open = number
        return self._parts[number].read(inside)

    def files(self) -> Iterator[str]:
        for part in self._parts:
            yield from part.files()

    def close(self) -> None:
        if self._open is not None:
            self._parts[self._open].close()
            self._open = None
