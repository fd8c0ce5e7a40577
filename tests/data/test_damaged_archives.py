"""Tars and zips that are damaged, cut short, compressed, encrypted or hostile are refused or reported."""

from __future__ import annotations

import io
import itertools
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from ebgan_fast.data import DataError
from ebgan_fast.data.prepare import prepare_images
from ebgan_fast.data.sources import open_source
from ebgan_fast.data.sources.reading import quoted

from .archives import PNGS, encrypt, held, linked, member, symbolic, tar_of, zip_of

TEN = [(f"{number:03d}", PNGS[number]) for number in range(10)]


def sparse(path: Path) -> Path:
    """Write a tar of two pictures, the second stored as GNU tar stores a sparse file."""
    info = tarfile.TarInfo("hole.png")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, 512)
    block[483:495] = b"%011o\0" % 4096
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    tar_of(path, ("a.png", PNGS[0]))
    with path.open("r+b") as file:
        file.seek(512 + -(-len(PNGS[0]) // 512) * 512)
        file.write(block + bytes(512) + bytes(1024))
    return path


def test_sparse_members_are_told(tmp_path: Path) -> None:
    source = open_source(sparse(tmp_path / "a.tar"))
    assert held(source) == [0]
    assert str(source.aside) == "1 sparse member, to be unpacked first (a.tar/hole.png)"


@pytest.mark.parametrize("lost", ["in the content", "in a header", "in the padding"])
def test_a_tar_that_is_cut_short(lost: str, tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", *((f"{name}.png", content) for name, content in TEN))
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    end = {
        "in the content": last.offset_data + 100,
        "in a header": last.offset + 300,
        "in the padding": last.offset_data + last.size + 3,
    }[lost]
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DataError, match=r"can't be read \(.*\), expected an uncompressed tar") as error:
        open_source(path)
    assert str(error.value).startswith(f"{path}: got ")


def test_a_damaged_header_does_not_end_a_tar(tmp_path: Path) -> None:
    """If a damaged header ended the tar, the images behind it would be lost without a word."""
    path = tar_of(tmp_path / "a.tar", *((f"{name}.png", content) for name, content in TEN))
    with tarfile.open(path) as tar:
        fifth = tar.getmembers()[4]
    content = bytearray(path.read_bytes())
    content[fifth.offset + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="can't be read"):
        open_source(path)


def test_a_compressed_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(member("a.png"), io.BytesIO())
    with pytest.raises(DataError, match=r"a\.tar\.gz: got a compressed archive, expected .* unpack it first"):
        open_source(tmp_path / "a.tar.gz")
    renamed = (tmp_path / "a.tar.gz").rename(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"a\.tar: got a file that can't be read .* expected an uncompressed tar"):
        open_source(renamed)


def test_encrypted_members_are_named(tmp_path: Path) -> None:
    path = zip_of(
        tmp_path / "a.zip",
        ("a.png", PNGS[0]),
        ("secret.png", PNGS[1]),
        ("plain", PNGS[2]),
        (linked("link.png"), b"a.png"),
    )
    for name in ("secret.png", "plain", "link.png"):
        encrypt(path, name)
    source = open_source(path)
    assert source.read(0) == PNGS[0]
    prepared = prepare_images(path, tmp_path / "out", 8, workers=1)
    assert (prepared.images, prepared.skipped) == (1, [f"{path}/link.png", f"{path}/secret.png"])
    assert "encrypted, expected no password: unpack" in str(prepared.left_out)


@pytest.mark.parametrize("name", ["a", "a.png"])
def test_a_damaged_member_does_not_end_a_zip(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, PNGS[0])
        archive.writestr("b.png", PNGS[1])
    content = bytearray(path.read_bytes())
    begin = 30 + len(name)
    content[begin : begin + 20] = b"\xff" * 20
    path.write_bytes(content)
    prepared = prepare_images(path, tmp_path / "out", 8, workers=1)
    assert prepared.images == 1
    assert name in str(prepared.left_out) + str(prepared.left_aside)


def test_a_tar_that_goes_on_after_its_end(tmp_path: Path) -> None:
    """`cat a.tar b.tar` makes such a tar. The second tar's images are lost and reported; zeros at the end are not."""
    both = [tar_of(tmp_path / f"{number}.tar", (f"{number}.png", PNGS[number])).read_bytes() for number in range(2)]
    (tmp_path / "joined.tar").write_bytes(b"".join(both))
    (tmp_path / "padded.tar").write_bytes(both[0] + bytes(1 << 21))
    joined = open_source(tmp_path / "joined.tar")
    assert len(joined) == 1
    assert str(joined.aside) == f"1 tar with more after the end, which isn't read ({tmp_path / 'joined.tar'})"
    assert not open_source(tmp_path / "padded.tar").aside
    with pytest.raises(DataError, match=r"got 1 tar with more after the end"):
        prepare_images(tmp_path / "joined.tar", tmp_path / "out", 8, workers=1, strict=True)


def test_a_tar_without_an_end_is_told(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", ("0.png", PNGS[0]))
    blocks = -(-len(PNGS[0]) // 512)
    path.write_bytes(path.read_bytes()[: 512 * (1 + blocks)])
    source = open_source(path)
    assert len(source) == 1
    assert str(source.aside) == f"1 tar without an end, perhaps cut short ({path})"


def long_name(size: int) -> bytes:
    """Return the header of GNU tar's member that holds a long name of `size` bytes."""
    info = member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def of_size(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = member("a.png", kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


HOSTILE_TARS = {
    "a chain of long names": (long_name(2) + b"a".ljust(512, b"\0")) * 3000 + of_size(0),
    "a name of 2^60 bytes": long_name(2**60),
    "a name of 2^32 bytes": long_name(2**32),
    "a name of less than no bytes": long_name(-512) + bytes(2048),
    "attributes of 2^60 bytes": of_size(2**60, tarfile.XHDTYPE),
    "a member of 2^63 bytes": of_size(2**63),
    "a member that leads back": of_size(0) + of_size(-512) + bytes(2048),
    "a sparse member that leads back": of_size(0) + of_size(-512, tarfile.GNUTYPE_SPARSE) + bytes(2048),
}


@pytest.mark.parametrize("content", HOSTILE_TARS.values(), ids=HOSTILE_TARS)
def test_hostile_tars(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(
            DataError, match=r"got a file that can't be read \(.+\), expected an uncompressed tar"
        ) as error:
            open_source(path)
        assert str(error.value).startswith(f"{path}: got ")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("name", "instead"), [("a.png", b"\0.png"), ("\u00e9.png", b"\xff\xff.png")])
def test_hostile_names_in_a_zip(name: str, instead: bytes, tmp_path: Path) -> None:
    """A zip is refused if a name is empty, or is marked as UTF-8 and is not."""
    path = zip_of(tmp_path / "a.zip", (name, PNGS[0]), ("b.png", PNGS[1]))
    path.write_bytes(path.read_bytes().replace(name.encode(), instead))
    with pytest.raises(DataError, match=r"got a file that can't be read \(.+\), expected a whole zip") as error:
        open_source(path)
    assert str(error.value).startswith(f"{path}: got ")


def test_a_member_that_lies_outside_of_its_zip(tmp_path: Path) -> None:
    """Only that image is lost. The error is no OSError, which would stand for a failing disk and end the command."""
    path = zip_of(tmp_path / "a.zip", ("a.png", PNGS[0]), ("b.png", PNGS[1]))
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    begin = int.from_bytes(content[end + 16 : end + 20], "little")
    content[end + 16 : end + 20] = (begin + 1000).to_bytes(4, "little")  # moves all members 1000 bytes toward the start
    path.write_bytes(content)
    source = open_source(path)
    with pytest.raises(DataError, match="got a member that lies outside of its zip"):
        source.read(0)


def damaged_tars(content: bytes) -> list[bytes]:
    """Return copies of a tar, each with one byte of its first three blocks set to 255 and both checksums repaired."""
    found = []
    for place in range(1024 + 512):
        changed = bytearray(content)
        changed[place] = 255
        for header in (0, 1024):
            changed[header + 148 : header + 156] = b" " * 8
            changed[header + 148 : header + 156] = b"%06o\0 " % sum(changed[header : header + 512])
        found.append(bytes(changed))
    return found


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_no_damage_ends_in_another_error(kind: str, tmp_path: Path) -> None:
    if kind == "tar":
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            info = member("\u00e9.png")
            info.size, info.mtime = 3, 1.5
            tar.addfile(info, io.BytesIO(b"abc"))
            tar.addfile(symbolic("l.png", "\u00e9.png"))
        damaged = damaged_tars(stream.getvalue())
    else:
        whole = zip_of(tmp_path / "a.zip", ("\u00e9.png", PNGS[0]), (linked("l.png"), b"a.png")).read_bytes()
        begin = whole.index(b"PK\x01\x02")
        places = itertools.product(range(begin, len(whole)), (0, 255))
        damaged = [whole[:place] + bytes([value]) + whole[place + 1 :] for place, value in places]
    path = tmp_path / f"a.{kind}"
    said = []
    for content in damaged:
        path.write_bytes(content)
        try:
            assert len(open_source(path))
        except DataError as error:
            said.append(str(error))
    assert 0 < len(said) < len(damaged)
    assert all(text.startswith(f"{path}: got ") for text in said)


def test_reasons_are_short() -> None:
    assert quoted(ValueError("a\n\x1b" + "b" * 1000)) == ("a\\n\\x1b" + "b" * 1000)[:197] + "..."
    assert quoted(ValueError("b" * 200)) == "b" * 200
    assert quoted(MemoryError()) == "MemoryError"
    assert quoted(PermissionError(13, "Permission denied", "a.tar")) == "Permission denied"
