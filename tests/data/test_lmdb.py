"""The reader of LMDBs finds liblmdb's entries, and no damage of a database ends the process."""

from __future__ import annotations

import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from ebgan_fast.data import DataError
from ebgan_fast.data.errors import ImageError
from ebgan_fast.data.prepare import prepare_images
from ebgan_fast.data.sources import lmdb_pages, open_source
from ebgan_fast.data.sources.lsun import LmdbSource

from ..limited_memory import Fork, error_within, needs_linux
from .archives import LMDB_PAGE as PAGE
from .archives import PNGS, lmdb_of

LEAF, LONG = 2, 4


def written(path: Path, seed: int, count: int, longest_key: int, longest: int) -> Path:
    """Write a database in several transactions, which also replace and delete entries."""
    draw = random.Random(seed)
    path.mkdir()
    with lmdb.open(str(path), map_size=1 << 26, sync=False) as database:
        for _ in range(5):
            with database.begin(write=True) as writing:
                for _ in range(count // 5):
                    key = draw.randbytes(draw.randint(1, longest_key))
                    writing.put(key, draw.randbytes(draw.choice((0, 1, 40, draw.randint(0, longest)))))
                for number, key in enumerate(list(writing.cursor().iternext(values=False))):
                    if number % 7 == 6:
                        writing.delete(key)
    return path


def by_liblmdb(path: Path) -> list[tuple[bytes, bytes]]:
    with lmdb.open(str(path), readonly=True, lock=False) as database, database.begin() as reading:
        return [(bytes(key), bytes(value)) for key, value in reading.cursor()]


@pytest.mark.parametrize(
    ("count", "longest_key", "longest"),
    [(5, 8, 100), (100, 4, 9000), (3000, 40, 200), (3000, 511, 60), (600, 20, 40_000), (40_000, 30, 1)],
)
def test_every_entry_is_liblmdbs(tmp_path: Path, count: int, longest_key: int, longest: int) -> None:
    """The trees have one to four levels. One copy has pages that were freed and used again, the other no free pages."""
    path = written(tmp_path / "db", count, count, longest_key, longest)
    (tmp_path / "copy").mkdir()
    with lmdb.open(str(path), readonly=True, lock=False) as database:
        database.copy(str(tmp_path / "copy"), compact=True)
    for place in (path, tmp_path / "copy"):
        expected = by_liblmdb(place)
        source = pickle.loads(pickle.dumps(LmdbSource(place)))
        assert source._entries.keys == [key for key, _ in expected]
        assert [source.read(index) for index in range(len(source))] == [value for _, value in expected]
        source.close()


def photographs(path: Path) -> Path:
    """Write 60 images, most of them within leaves, some on pages of their own."""
    contents = [PNGS[number % len(PNGS)] + bytes(PAGE + 1000 if number % 4 == 0 else 0) for number in range(60)]
    return lmdb_of(path, contents, subdir=False)


def read_flipped(path: Path, flips: list[tuple[int, int]]) -> None:
    """Open and read copies of a database, each with two bytes flipped; print how each ended."""
    whole, copy = path.read_bytes(), path.with_name("flipped.mdb")
    for place, flip in flips:
        content = bytearray(whole)
        for byte in (place, place + 1):
            content[byte] ^= flip
        copy.write_bytes(content)
        try:
            source = LmdbSource(copy)
        except DataError as error:
            print("refused", error)
            continue
        damaged = 0
        for index in range(len(source)):
            try:
                source.read(index)
            except ImageError:
                damaged += 1
        source.close()
        print("read", damaged)


@pytest.mark.slow
@pytest.mark.xdist_group("forked")
def test_a_flipped_byte_ends_no_process(fork: Fork, tmp_path: Path) -> None:
    """Bytes in the head of each page and node are flipped. liblmdb ended one of six processes by SIGABRT or SIGBUS."""
    path = photographs(tmp_path / "a.mdb")
    draw = random.Random(0)
    heads = [page + place for page in range(0, path.stat().st_size, PAGE) for place in range(0, 40, 2)]
    flips = [(place, flip) for place in heads for flip in (0xFF, draw.randint(1, 254))]
    child = fork(read_flipped, path, flips)
    assert child.status() == 0, child.said
    said = child.said.splitlines()
    assert len(said) == len(flips)
    refused = [line for line in said if line.startswith("refused")]
    start = f"refused {path.with_name('flipped.mdb')}: got a database that can't be read ("
    others = {line for line in refused if not (line.startswith(start) and line.endswith("), expected a whole LMDB"))}
    assert others == set()
    assert len(refused) > 50
    assert len({line for line in said if line.startswith("read")}) > 1  # some copies lost no value, others did


def leaf_of(content: bytes, flags: int = LEAF) -> int:
    """Return the offset of the last page with these flags."""
    places = [place for place in range(2 * PAGE, len(content), PAGE) if content[place + 10] == flags]
    return places[-1]


def nodes_of_long_values(content: bytearray) -> list[int]:
    """Return the offsets of the nodes whose values have pages of their own."""
    found = []
    for page in range(2 * PAGE, len(content), PAGE):
        count = (struct.unpack_from("<H", content, page + 12)[0] - 16) // 2 if content[page + 10] == LEAF else 0
        nodes = [page + pointer for pointer in struct.unpack_from(f"<{count}H", content, page + 16)]
        found += [node for node in nodes if struct.unpack_from("<H", content, node + 4)[0] == 1]
    return found


def a_leaf_that_is_none(content: bytearray) -> None:
    struct.pack_into("<H", content, leaf_of(content) + 10, LONG)


def a_pointer_out_of_its_page(content: bytearray) -> None:
    struct.pack_into("<H", content, leaf_of(content) + 16, 65_534)


def a_key_out_of_its_page(content: bytearray) -> None:
    leaf = leaf_of(content)
    node = leaf + struct.unpack_from("<H", content, leaf + 16)[0]
    struct.pack_into("<H", content, node + 6, 60_000)


def a_child_far_away(content: bytearray) -> None:
    """Let the first child in the root of a two-level tree be a page far beyond the file."""
    root = leaf_of(content, 1)
    node = root + struct.unpack_from("<H", content, root + 16)[0]
    struct.pack_into("<HHH", content, node, 0xFFFF, 0xFFFF, 0xFFFF)


def a_child_twice(content: bytearray) -> None:
    root = leaf_of(content, 1)
    first, second = struct.unpack_from("<HH", content, root + 16)
    content[root + second : root + second + 6] = content[root + first : root + first + 6]


def a_value_far_away(content: bytearray) -> None:
    """Let each value with pages of its own begin at an offset to which no file can seek."""
    for node in nodes_of_long_values(content):
        (key,) = struct.unpack_from("<H", content, node + 6)
        struct.pack_into("<Q", content, node + 8 + key, 1 << 50)


def more_keys_than_there_are(content: bytearray) -> None:
    for meta in (0, PAGE):
        struct.pack_into("<Q", content, meta + 16 + 104, 61)


def metas(place: int, form: str, value: int) -> Callable[[bytearray], None]:
    def write(content: bytearray) -> None:
        for meta in (0, PAGE):
            struct.pack_into(form, content, meta + 16 + place, value)

    return write


def flags_of_nodes(flags: int) -> Callable[[bytearray], None]:
    def write(content: bytearray) -> None:
        leaf = leaf_of(content)
        struct.pack_into("<H", content, leaf + struct.unpack_from("<H", content, leaf + 16)[0] + 4, flags)

    return write


def a_leaf_of_another_number(content: bytearray) -> None:
    struct.pack_into("<Q", content, leaf_of(content), 2**40)


DAMAGE: dict[str, tuple[Callable[[bytearray], None], str]] = {
    "a leaf that is none": (a_leaf_that_is_none, "damaged at page"),
    "a leaf of another number": (a_leaf_of_another_number, "damaged at page"),
    "a node of an unknown kind": (flags_of_nodes(4), "damaged at page"),
    "a database within it": (flags_of_nodes(2), "databases within it, which aren't read"),
    "a pointer out of its page": (a_pointer_out_of_its_page, "damaged at page"),
    "a key out of its page": (a_key_out_of_its_page, "damaged at page"),
    "a child far away": (a_child_far_away, "damaged: it names page 281474976710655 of"),
    "a child twice": (a_child_twice, "damaged: page 2 in two places"),
    "a value far away": (a_value_far_away, "damaged at page"),
    "more keys than there are": (more_keys_than_there_are, "damaged: 60 keys of 61"),
    "a later version": (metas(4, "<I", 2), "version 2 of the format, not 1"),
    "pages of three bytes": (metas(24, "<I", 3), "damaged at page 0"),
    "a tree of a thousand levels": (metas(24 + 48 + 6, "<H", 1000), "damaged at page 0"),
    "several values for one key": (metas(24 + 48 + 4, "<H", 4), "several values for one key"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_said(damage: str, tmp_path: Path) -> None:
    damaging, words = DAMAGE[damage]
    path = photographs(tmp_path / "a.mdb")
    content = bytearray(path.read_bytes())
    damaging(content)
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        open_source(path)
    assert str(error.value).startswith(f"{path}: got a database that can't be read ({words}")


def value_page(form: str, place: int, value: int) -> Callable[[bytearray], None]:
    """Return a function that changes a field in the head of the last page that begins a value."""
    return lambda content: struct.pack_into(form, content, leaf_of(content, LONG) + place, value)


@pytest.mark.parametrize(
    "damaging",
    [value_page("<Q", 0, 2**40), value_page("<H", 10, LONG | LEAF), value_page("<I", 12, 1)],
    ids=["another number", "two kinds", "fewer pages"],
)
def test_a_value_on_a_damaged_page_is_lost_alone(damaging: Callable[[bytearray], None], tmp_path: Path) -> None:
    """In the last case the value fills a page less its head, so one page is too few although the bytes would fit."""
    long = PNGS[0] + bytes(PAGE - 8 - len(PNGS[0]))
    path = lmdb_of(tmp_path / "a.mdb", [PNGS[1], long], subdir=False)
    content = bytearray(path.read_bytes())
    damaging(content)
    path.write_bytes(content)
    source = open_source(path)
    assert source.read(0) == PNGS[1]
    with pytest.raises(ImageError, match="no whole value in its database"):
        source.read(1)


@needs_linux
@pytest.mark.xdist_group("forked")
def test_a_value_beyond_the_file_asks_for_no_memory(fork: Fork, tmp_path: Path) -> None:
    """A node may claim a value of a gigabyte, and the value's page may claim as many pages."""
    path = photographs(tmp_path / "a.mdb")
    content = bytearray(path.read_bytes())
    for page in range(2 * PAGE, len(content), PAGE):
        if content[page + 10] == LONG:
            struct.pack_into("<I", content, page + 12, 1 << 20)
    for node in nodes_of_long_values(content):
        struct.pack_into("<HH", content, node, 0, (1 << 30) - 1 >> 16)
    path.write_bytes(content)
    assert error_within(fork, 1 << 28, read_what_there_is, path) == ("", "")


def read_what_there_is(path: Path) -> None:
    source = open_source(path)
    lost = 0
    for index in range(60):
        try:
            source.read(index)
        except ImageError:
            lost += 1
    assert lost == 15


def test_a_database_that_changes_meanwhile_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = photographs(tmp_path / "a.mdb")
    add_leaf = lmdb_pages._add_leaf

    def change_first(found: lmdb_pages.Entries, page: bytes, number: int) -> None:
        with lmdb.open(str(path), subdir=False, lock=False) as database, database.begin(write=True) as writing:
            writing.put(b"more", b"")
        add_leaf(found, bytes(len(page)), number)

    monkeypatch.setattr(lmdb_pages, "_add_leaf", change_first)
    with pytest.raises(DataError, match="another process writes it"):
        open_source(path)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_on_a_damaged_page_is_left_out(workers: int, tmp_path: Path) -> None:
    path = photographs(tmp_path / "a.mdb")
    content = bytearray(path.read_bytes())
    content[leaf_of(content, LONG) + 10] = LEAF
    path.write_bytes(content)
    prepared = prepare_images(path, tmp_path / "out", 8, workers=workers)
    assert (prepared.images, len(prepared.skipped)) == (59, 1)
    assert str(prepared.left_out).startswith("1 no whole value in its database (")


def test_a_database_that_is_cut_short_while_it_is_read(tmp_path: Path) -> None:
    """With liblmdb a read beyond the file's new end would kill the process by SIGBUS."""
    path = photographs(tmp_path / "a.mdb")
    source = open_source(path)
    whole = path.stat().st_size
    for size in (whole // 2, 0):
        with path.open("r+b") as file:
            file.truncate(size)
        lost = 0
        for index in range(60):
            try:
                assert source.read(index).startswith(PNGS[index % len(PNGS)])
            except ImageError:
                lost += 1
        assert lost == 60 if size == 0 else 0 < lost < 60


@needs_linux
@pytest.mark.xdist_group("forked")
def test_nodes_that_overlap_take_no_gigabytes(fork: Fork, tmp_path: Path) -> None:
    """One page of 64 kB has 3,700 pointers to one key of 30,000 bytes, together 111 MB."""
    page, count, key = 1 << 16, 3_700, 30_000
    tree = struct.pack("<IHHQQQQQ", 0, 0, 1, 0, 1, 0, count, 2)
    meta = struct.pack("<II16xI44x", 0xBEEFC0DE, 1, page) + tree + struct.pack("<QQ", 2, 1)
    pages = [struct.pack("<QHHHH", number, 0, 8, 0, 0) + meta for number in range(2)]
    node = page - 8 - key
    head = struct.pack("<QHHHH", 2, 0, LEAF, 16 + 2 * count, node)
    pages.append(head + struct.pack("<H", node) * count)
    content = bytearray(b"".join(one.ljust(page, b"\0") for one in pages))
    struct.pack_into("<HHHH", content, 2 * page + node, 0, 0, 0, key)
    path = tmp_path / "a.mdb"
    path.write_bytes(content)
    expected = f"{path}: got a database that can't be read (damaged at page 2), expected a whole LMDB"
    assert error_within(fork, 1 << 26, LmdbSource, path) == ("DataError", expected)
