"""A reader of LMDB files that checks the bounds of everything that it reads.

liblmdb trusts the file that it maps: a damaged page kills the process by a signal, without a message. Here every number
in the file is compared with the size of its page and of the file, so that damage raises an ordinary error.

The format is that of LMDB 0.9 with numbers of 64 bits, lowest byte first. The file is a B+ tree of pages. Its leaves
hold keys and values. A value that is too long for its leaf lies on pages of its own.
"""

from __future__ import annotations

import struct
from array import array
from typing import IO, NamedTuple

from .reading import check_size

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_PAGE_SIZES = tuple(1 << bits for bits in range(8, 17))
_MOST_LEVELS = 32  # liblmdb's limit
_NOWHERE = (1 << 64) - 1  # the root of an empty tree

_PAGE = struct.Struct("<QHHHH")  # the page's number, padding, flags, the ends of its pointers and of its free space
_LONG_PAGE = struct.Struct("<Q2xHI")  # the page's number, flags, the number of pages that the value takes
_NODE = struct.Struct("<HHHH")  # the two halves of a size or page number, flags, the size of the key
_META = struct.Struct("<II16xI48xHHQQQQQQQ")
_BRANCH, _LEAF, _LONG, _IS_META = 1, 2, 4, 8  # flags of a page
_KIND = 0x6F  # the flags that give the kind of a page; the others are for processes that write
_ELSEWHERE, _TREE = 1, 2  # flags of a node: its value lies on pages of its own, or is the root of another tree
_SEVERAL = 4  # a flag of a tree: a key has several values


class PageError(Exception):
    """The error of a file that is no LMDB, or one that can't be read."""


class _Tree(NamedTuple):
    page_size: int
    pages: int
    levels: int
    entries: int
    root: int


class Entries(NamedTuple):
    """The entries of a database in the order of its keys: the keys, and the offsets and sizes of the values."""

    page_size: int
    end: int  # the offset where the pages in use end
    keys: list[bytes]
    places: array[int]  # the offset of each value; it begins a page if the value has pages of its own
    sizes: array[int]


def read_entries(file: IO[bytes]) -> Entries:
    """Read all keys of a database, with the offsets and sizes of the values. Values on pages of their own aren't read.

    Raises:
        PageError: the file is no LMDB, is truncated or damaged, has several values for one key or databases within it,
            or another process is writing it.
        OSError: the file can't be read.
    """
    tree = _read_tree(file)
    try:
        return _entries_of(file, tree)
    except PageError as error:
        if _read_tree(file) != tree:
            raise PageError("another process writes it: wait for its end") from error
        raise


def _entries_of(file: IO[bytes], tree: _Tree) -> Entries:
    found = Entries(tree.page_size, tree.pages * tree.page_size, [], array("Q"), array("Q"))
    seen: set[int] = set()
    left = [(tree.root, 1)] if tree.root != _NOWHERE else []
    while left:
        number, level = left.pop()
        if number >= tree.pages:
            raise PageError(f"damaged: it names page {number} of {tree.pages}")
        if number in seen:
            raise PageError(f"damaged: page {number} in two places")
        seen.add(number)
        file.seek(number * tree.page_size)
        page = file.read(tree.page_size)
        try:
            if level < tree.levels:
                left += [(child, level + 1) for child in reversed(_children(page, number))]
            else:
                _add_leaf(found, page, number)
        except struct.error as error:  # a pointer leads out of the page, or the page is truncated
            raise _damaged(number) from error
    if len(found.keys) != tree.entries:
        raise PageError(f"damaged: {len(found.keys)} keys of {tree.entries}")
    return found


def read_value(file: IO[bytes], entries: Entries, index: int) -> bytes:
    """Return the value of an entry.

    Args:
        file: the database.
        entries: the result of `read_entries`.
        index: the number of the entry.

    Raises:
        PageError: the value's page is damaged.
        ImageError: the value is longer than an image can be.
        OSError: the file can't be read.
    """
    place, size = entries.places[index], entries.sizes[index]
    check_size(size)
    if not size:  # an empty value may lie at the end of its page, which would look like the start of the next
        return b""
    number, start = divmod(place, entries.page_size)
    if place + size + (0 if start else _LONG_PAGE.size) > entries.end:
        raise _damaged(number)
    file.seek(place)
    if not start:
        head = file.read(_LONG_PAGE.size)
        if len(head) < _LONG_PAGE.size:
            raise _damaged(number)
        own, flags, pages = _LONG_PAGE.unpack(head)
        if own != number or flags & _KIND != _LONG or _LONG_PAGE.size + size > pages * entries.page_size:
            raise _damaged(number)
    value = file.read(size)
    if len(value) != size:
        raise _damaged(number)
    return value


def _damaged(number: int) -> PageError:
    return PageError(f"damaged at page {number}")


def _read_tree(file: IO[bytes]) -> _Tree:
    """Read the tree's description from the first two pages, which hold an older and a newer one. Return the newer."""
    size = file.seek(0, 2)
    newest, found = -1, None
    place = 0
    for number in range(2):
        file.seek(place)
        head = file.read(_PAGE.size + _META.size)
        if len(head) < _PAGE.size + _META.size:
            raise PageError("cut short" if number else "no LMDB")
        flags = _PAGE.unpack_from(head)[2]
        magic, version, page_size, tree_flags, levels, _, _, _, entries, root, last, change = _META.unpack_from(
            head, _PAGE.size
        )
        if magic != _MAGIC or not flags & _IS_META:
            raise PageError("damaged at page 1" if number else "no LMDB")
        if version != _VERSION:
            raise PageError(f"version {version} of the format, not {_VERSION}")
        if page_size not in _PAGE_SIZES or levels > _MOST_LEVELS:
            raise _damaged(number)
        if change > newest:
            newest, found = change, _Tree(page_size, last + 1, levels, entries, root)
            is_of_several = bool(tree_flags & _SEVERAL)
        place = page_size
    assert found is not None
    if size < found.pages * found.page_size:
        raise PageError(f"cut short: {size} of {found.pages * found.page_size} bytes")
    if is_of_several:
        raise PageError("several values for one key")
    return found


def _pointers(page: bytes, number: int, kind: int) -> tuple[int, ...]:
    """Return the offsets of a page's nodes within the page."""
    own, _, flags, lower, upper = _PAGE.unpack_from(page)
    count = (lower - _PAGE.size) // 2
    has_room = count >= 0 and lower <= upper
    if own != number or flags & _KIND != kind or not has_room:
        raise _damaged(number)
    return struct.unpack_from(f"<{count}H", page, _PAGE.size)


def _children(page: bytes, number: int) -> list[int]:
    nodes = [_NODE.unpack_from(page, pointer) for pointer in _pointers(page, number, _BRANCH)]
    return [low | middle << 16 | high << 32 for low, middle, high, _ in nodes]


def _add_leaf(found: Entries, page: bytes, number: int) -> None:
    """Add the entries of a leaf page to those found."""
    page_size, end_of_pages, keys, places, sizes = found
    before, unpack, size_of_head = number * page_size, _NODE.unpack_from, _NODE.size
    taken = 0
    for pointer in _pointers(page, number, _LEAF):
        low, high, flags, key_size = unpack(page, pointer)
        if flags & _TREE:
            raise PageError("databases within it, which aren't read")
        value = pointer + size_of_head + key_size
        size = low | high << 16
        if flags & _ELSEWHERE:
            place = int.from_bytes(page[value : value + 8], "little") * page_size
            end = value + 8
        else:
            place, end = before + value, value + size
        taken += end - pointer
        # Without a check of the sum, nodes that overlap could give a gigabyte of keys from one page.
        if end > page_size or taken > page_size or flags > _ELSEWHERE or place > end_of_pages:
            raise _damaged(number)
        keys.append(page[pointer + size_of_head : value])
        places.append(place)
        sizes.append(size)
