"""Some zips unpack to far more bytes than they have. A member is read up to the wanted bytes, or not at all."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ebgan_fast.data import DataError
from ebgan_fast.data.sources import open_source
from ebgan_fast.data.sources.reading import open_member
from ebgan_fast.data.worker import decoded_squares

from ..limited_memory import Fork, error_within, needs_linux
from .archives import PNGS, linked
from .array_files import header, images

LARGE = 96 << 20
ROOM = 64 << 20
PACKINGS = {"bzip2": zipfile.ZIP_BZIP2, "LZMA": zipfile.ZIP_LZMA}

pytestmark = pytest.mark.xdist_group("forked")


def packed(path: Path, method: int, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    """Write a zip of members compressed by a method; the member a.png is not compressed."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content, zipfile.ZIP_STORED if name == "a.png" else method)
    return path


def claim(path: Path, name: str, size: int) -> None:
    """Change the zip's directory so that it claims `size` bytes for a member."""
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\1\2")
    while content[place + 46 : place + 46 + len(name)] != name.encode():
        place = content.rindex(b"PK\1\2", 0, place)
    content[place + 24 : place + 28] = size.to_bytes(4, "little")
    path.write_bytes(content)


def decode_all(path: Path) -> None:
    """Decode all images of a file; raise a ValueError with the reasons for all others."""
    source = open_source(path)
    squares = decoded_squares(source, 8, range(len(source)))
    told = [f"{square.name}: {square.text}" for square in squares if not isinstance(square, bytes)]
    raise ValueError("; ".join([*told, *source.aside.texts()]))


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("method", PACKINGS)
def test_a_member_that_would_fill_the_memory_is_not_unpacked(method: str, fork: Fork, tmp_path: Path) -> None:
    path = packed(
        tmp_path / "a.zip",
        PACKINGS[method],
        ("a.png", PNGS[0]),
        ("notes", bytes(LARGE)),
        ("b.png", bytes(LARGE)),
        (linked("c.png"), b"a.png"),
    )
    assert path.stat().st_size < 100_000
    claim(path, "b.png", 1000)
    assert error_within(fork, ROOM, decode_all, path) == (
        "ValueError",
        f"{path}/b.png: packed by {method}, expected deflate or no packing: pack the zip again; "
        f"{path}/c.png: packed by {method}, expected deflate or no packing: pack the zip again; "
        f"1 member without a suffix, packed by {method}, which isn't read: pack the zip again (a.zip/notes)",
    )


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("method", PACKINGS)
def test_an_array_that_would_fill_the_memory_is_not_unpacked(method: str, fork: Fork, tmp_path: Path) -> None:
    path = packed(tmp_path / "a.npz", PACKINGS[method], ("images.npy", header((LARGE >> 6, 8, 8)) + bytes(LARGE)))
    assert error_within(fork, ROOM, open_source, path) == (
        "DataError",
        f"{path}: got images.npy in it packed by {method}, expected deflate or no packing: pack the zip again",
    )


@needs_linux
def test_no_more_is_unpacked_than_the_table_says(fork: Fork, tmp_path: Path) -> None:
    path = packed(
        tmp_path / "a.zip",
        zipfile.ZIP_DEFLATED,
        ("a.png", PNGS[0]),
        ("b.png", PNGS[1] + bytes(LARGE)),
        ("notes", bytes(LARGE)),
    )
    claim(path, "b.png", 1000)
    assert error_within(fork, ROOM, decode_all, path) == (
        "ValueError",
        f"{path}/b.png: BadZipFile: Bad CRC-32 for file 'b.png'; 1 without a suffix (a.zip/notes)",
    )


def test_a_link_to_a_member_that_is_not_read(tmp_path: Path) -> None:
    """The link counts as an image, since its target exists, but the target can't be read."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(linked("link.png"), b"plain")
        archive.writestr("plain", PNGS[0], zipfile.ZIP_BZIP2)
    source = open_source(path)
    assert source.name(0) == f"{path}/link.png"
    with pytest.raises(DataError, match="packed by bzip2, expected deflate or no packing: pack the zip again"):
        source.read(0)


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (93, "Zstandard"), (95, "XZ"), (1, "method 1")])
def test_other_packings_are_named(method: int, name: str, tmp_path: Path) -> None:
    """Other methods of compression are refused by name, also those that a later Python can unpack."""
    path = packed(tmp_path / "a.zip", zipfile.ZIP_STORED, ("a.png", PNGS[0]))
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("a.png")
        info.compress_type = method
        with pytest.raises(DataError, match=f"packed by {name}, expected deflate"):
            open_member(archive, info)


def test_an_array_is_read_as_it_was_packed(tmp_path: Path) -> None:
    """A compressed array is read; after the file was changed to another compression, it is refused."""
    array, content = images(3, 8, 8), io.BytesIO()
    np.save(content, array)
    path = packed(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, ("images.npy", content.getvalue()))
    source = open_source(path)
    assert np.array_equal(source.read(2), array[2])
    source.close()
    packed(path, zipfile.ZIP_BZIP2, ("images.npy", content.getvalue()))
    with pytest.raises(DataError, match="packed by bzip2"):
        source.read(2)
