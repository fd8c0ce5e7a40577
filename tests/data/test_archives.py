"""Tars and zips: which members are images, what links lead to, and what is told of the rest."""

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

from .archives import PNGS, encrypt, hard, held, linked, member, symbolic, tar_of, zip_of

TEN = [(f"{number:03d}", PNGS[number]) for number in range(10)]


def names_of(path: Path, column: str | None = None) -> list[str]:
    """The names within an archive of the images that are taken."""
    source = open_source(path, column=column)
    return [source.name(index).removeprefix(f"{path}/") for index in range(len(source))]


@pytest.mark.parametrize(
    "names",
    [
        [f"IMG.{number:03d}.jpg" for number in range(1, 6)],
        ["john.smith.jpg", "john.doe.jpg"],
        ["v1.0-a.jpg", "v1.0-b.jpg"],
        ["a/1.0.jpg", "a/1.1.jpg", "b/1.0.jpg", "b/1.1.jpg"],
        ["1.1.png", "1.2.png", "2.1.png", "2.2.png"],
        ["2024.01.png", "2024.02.png"],
    ],
)
def test_dots_in_names_make_no_sample(names: list[str], tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", *zip(names, PNGS, strict=False))
    assert names_of(path) == names_of(path, "all") == names
    assert not open_source(path).aside


def test_a_sample_gives_one_image(tmp_path: Path) -> None:
    """A part is what recurs, or stands beside one without a further dot."""
    path = tar_of(
        tmp_path / "a.tar",
        ("000.jpg", PNGS[0]),
        ("000.mask.png", PNGS[1]),
        ("000.cls", b"3"),
        ("001.img.png", PNGS[2]),
        ("001.seg.png", PNGS[3]),
        ("002.img.png", PNGS[4]),
        ("002.seg.png", PNGS[5]),
        ("002.json", b"{}"),
    )
    source = open_source(path)
    assert held(source) == [0, 2, 4]
    told = str(source.aside)
    assert (
        "3 further images of webdataset samples (--column NAME takes those of one name, --column all takes each as an "
        "image) (a.tar/000.mask.png, a.tar/001.seg.png, a.tar/002.seg.png)"
    ) in told
    for part in ("1 .cls (a.tar/000.cls)", "1 .json (a.tar/002.json)"):
        assert part in told
    assert held(open_source(path, column="seg.png")) == [3, 5]
    assert held(open_source(path, column="mask.png")) == [1]
    assert held(open_source(path, column="jpg")) == [0]
    assert held(open_source(path, column="all")) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(DataError, match=r"a\.tar: got no images named \*\.cls, expected one of .*mask\.png.*, or all"):
        open_source(path, column="cls")


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        # The part that occurs most often, in whatever order each sample has them.
        (
            ["0.jpg", "0.png", "1.png", "1.jpg", "2.png", "3.jpg", "4.png"],
            ["0.png", "1.png", "2.png", "3.jpg", "4.png"],
        ),
        # Of parts as frequent the one that comes first in the tar.
        (["0.seg.png", "0.img.png", "1.img.png", "1.seg.png"], ["0.seg.png", "1.seg.png"]),
        (["0.png", "0.jpg", "1.jpg", "1.png"], ["0.png", "1.png"]),
        # A sample without the image gives none.
        (
            ["0.seg.png", "0.img.png", "1.seg.png", "1.img.png", "2.img.png", "3.seg.png", "4.img.png"],
            ["0.img.png", "1.img.png", "2.img.png", "4.img.png"],
        ),
        (["0.mask.png", "0.jpg", "1.mask.png", "2.jpg"], ["0.jpg", "2.jpg"]),
        (
            ["0.mask.png", "0.jpg", "1.mask.png", "1.seg.png", "2.seg.png", "2.mask.png"],
            ["0.jpg", "1.seg.png", "2.seg.png"],
        ),
        # A part that occurs once goes with its sample; without a sample it is an image.
        (["a.x.png", "a.y.png", "a.z.png", "b.y.png", "b.x.png", "c.w.png"], ["a.x.png", "b.x.png", "c.w.png"]),
        (["john.smith.jpg", "john.doe.jpg", "mary.smith.jpg", "mary.doe.jpg"], ["john.smith.jpg", "mary.smith.jpg"]),
    ],
)
def test_samples_give_the_same_part(names: list[str], taken: list[str], tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", *zip(names, PNGS, strict=False))
    assert names_of(path) == taken
    assert str(open_source(path).aside).startswith(
        f"{len(names) - len(taken)} further images of webdataset samples (--"
    )
    assert names_of(path, "all") == names
    assert not open_source(path, column="all").aside


def test_a_sample_has_its_folder(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", ("a/0.png", PNGS[0]), ("b/0.png", PNGS[1]), ("a/0.m.png", PNGS[2]))
    assert names_of(path) == ["a/0.png", "b/0.png"]


def test_links_of_a_tar(tmp_path: Path) -> None:
    path = tar_of(
        tmp_path / "a.tar",
        ("data/a.png", PNGS[0]),
        hard("hard.png", "data/a.png"),
        hard("./again.png", "./hard.png"),
        symbolic("links/up.png", "../data/a.png"),
        symbolic("links/chain.png", "up.png"),
        symbolic("links/no_suffix", "up.png"),
        symbolic("links/missing.png", "a.png"),
        symbolic("links/outside.png", "/data/a.png"),
        symbolic("loop.png", "pool.png"),
        symbolic("pool.png", "loop.png"),
        symbolic("self.png", "self.png"),
        hard("gone.png", "gone/gone.png"),
        member("folder.png", tarfile.DIRTYPE),
        symbolic("to_folder.png", "data"),
        member("fifo.png", tarfile.FIFOTYPE),
    )
    assert names_of(path) == ["data/a.png", "hard.png", "again.png"] + [
        f"links/{name}" for name in ("up.png", "chain.png", "no_suffix")
    ]
    source = open_source(path)
    assert held(source) == [0] * 6
    assert source.aside.texts() == [
        "7 links to nothing (a.tar/links/missing.png, a.tar/links/outside.png, a.tar/loop.png, ...)",
        "1 devices and FIFOs (a.tar/fifo.png)",
    ]
    with pytest.raises(DataError, match=r"a\.tar: got 7 links to nothing .*without --strict they are left out"):
        prepare_images(path, tmp_path / "out", 8, workers=1, strict=True)


def test_links_of_a_zip(tmp_path: Path) -> None:
    path = zip_of(
        tmp_path / "a.zip",
        ("data/a.png", PNGS[0]),
        (linked("links/up.png"), b"../data/a.png"),
        (linked("links/chain.png"), b"up.png"),
        (linked("links/no_suffix"), b"up.png"),
        (linked("missing.png"), b"gone.png"),
        (linked("loop.png"), b"pool.png"),
        (linked("pool.png"), b"loop.png"),
        (linked("to_folder.png"), b"data"),
    )
    assert names_of(path) == ["data/a.png", "links/chain.png", "links/no_suffix", "links/up.png"]
    source = open_source(path)
    assert held(source) == [0] * 4
    assert str(source.aside) == "4 links to nothing (a.zip/missing.png, a.zip/loop.png, a.zip/pool.png, ...)"


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_links_that_lose_no_image(kind: str, tmp_path: Path) -> None:
    links = {
        "current": "v1",
        "latest": "current",
        "v1.1": "./v1",
        "v1/deep/up": "../..",
        "notes": "gone",
        "round": "round",
        "readme.txt": "gone.txt",
    }
    if kind == "tar":
        members = [symbolic(name, target) for name, target in links.items()]
        path = tar_of(tmp_path / "a.tar", ("v1/deep/a.png", PNGS[0]), *members)
    else:
        contents = [(linked(name), target.encode()) for name, target in links.items()]
        path = zip_of(tmp_path / "a.zip", ("v1/deep/a.png", PNGS[0]), *contents)
    prepared = prepare_images(path, tmp_path / "out", 8, workers=1, strict=True)
    assert prepared.images == 1
    assert prepared.left_aside.texts() == [
        f"4 links to folders inside an archive (a.{kind}/current, a.{kind}/latest, a.{kind}/v1.1, ...)",
        f"2 without a suffix (a.{kind}/notes, a.{kind}/round)",
        f"1 .txt (a.{kind}/readme.txt)",
    ]


def test_members_of_unknown_types_are_files(tmp_path: Path) -> None:
    path = tar_of(
        tmp_path / "a.tar",
        (member("a.png", b"Z"), PNGS[0]),
        (member("b.png", b"M"), PNGS[1]),
        (member("plain", b"9"), PNGS[2]),
        member("label.png", b"V"),
        (member("folder", b"D"), b"Ya.png\0\0"),
        member("disk", tarfile.BLKTYPE),
        member("terminal", tarfile.CHRTYPE),
        ("c.png", PNGS[3]),
    )
    source = open_source(path)
    assert held(source) == [0, 1, 2, 3]
    assert source.aside.texts() == [
        "2 devices and FIFOs (a.tar/disk, a.tar/terminal)",
        "1 member of unknown types, without data (a.tar/label.png)",
    ]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_in_several_archives_are_told_apart(kind: str, tmp_path: Path) -> None:
    write = {"tar": tar_of, "zip": zip_of}[kind]
    for number, name in enumerate("ab"):
        write(tmp_path / "set" / f"{name}.{kind}", ("a.png", PNGS[number]), ("notes.txt", b"text"))
    assert str(open_source(tmp_path / "set").aside) == f"2 .txt (a.{kind}/notes.txt, b.{kind}/notes.txt)"


def test_the_last_of_members_of_one_name(tmp_path: Path) -> None:
    tar = tar_of(
        tmp_path / "a.tar",
        ("a.png", PNGS[0]),
        ("b.png", PNGS[1]),
        hard("early.png", "b.png"),
        ("link.png", PNGS[2]),
        symbolic("file.png", "b.png"),
        ("./a.png", PNGS[3]),
        symbolic("link.png", "a.png"),
        ("file.png", PNGS[4]),
        ("b.png", PNGS[5]),
        hard("b.png", "b.png"),  # as tar has it that is given a file twice
    )
    assert dict(zip(names_of(tar), held(open_source(tar)), strict=True)) == {
        "a.png": 3,
        "b.png": 5,
        "early.png": 1,
        "link.png": 3,
        "file.png": 4,
    }
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zip_of(
            tmp_path / "a.zip",
            ("a.png", PNGS[0]),
            ("link.png", PNGS[2]),
            (linked("file.png"), b"a.png"),
            ("a.png", PNGS[3]),
            (linked("link.png"), b"a.png"),
            ("file.png", PNGS[4]),
        )
    assert dict(zip(names_of(path), held(open_source(path)), strict=True)) == {"a.png": 3, "file.png": 4, "link.png": 3}


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_what_else_an_archive_holds_is_told(kind: str, tmp_path: Path) -> None:
    write = {"tar": tar_of, "zip": zip_of}[kind]
    path = write(
        tmp_path / f"a.{kind}",
        ("./a.PNG", PNGS[0]),
        ("b/plain", PNGS[1]),
        ("b/other", b"no image"),
        ("b/empty", b""),
        (".c.png", PNGS[2]),
        (".git/d.png", PNGS[2]),
        ("__MACOSX/b/._e.png", PNGS[2]),
        ("more.zip", b"PK"),
        ("more.tar.gz", b"\x1f\x8b"),
        ("labels.txt", b"a"),
    )
    source = open_source(path)
    assert sorted(held(source)) == [0, 1]
    assert source.aside.texts() == [
        f"3 hidden (a.{kind}/.c.png, a.{kind}/.git/d.png, a.{kind}/__MACOSX/b/._e.png)",
        f"2 without a suffix (a.{kind}/b/other, a.{kind}/b/empty)",
        f"1 .tar.gz inside, to be unpacked first (a.{kind}/more.tar.gz)",
        f"1 .txt (a.{kind}/labels.txt)",
        f"1 .zip inside, to be unpacked first (a.{kind}/more.zip)",
    ]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_of_archives(kind: str, tmp_path: Path) -> None:
    write = {"tar": tar_of, "zip": zip_of}[kind]
    path = write(tmp_path / f"a.{kind}", ("n01.tar", b"tar"), ("n02.tar", b"tar"))
    with pytest.raises(DataError, match=r"without images, of 2 \.tar inside, to be unpacked first") as error:
        open_source(path)
    assert str(error.value).startswith(f"{path}: got a {kind} without images")


def sparse(path: Path) -> Path:
    """A tar of two pictures, the second stored as GNU tar stores a file with holes."""
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
    """It would hide the images behind it."""
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


def test_a_dangling_link_is_lost_and_not_aside(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", ("a.png", PNGS[0]), symbolic("b.png", "c.png"))
    prepared = prepare_images(path, tmp_path / "out", 8, workers=1)
    assert str(prepared.left_out) == "1 link to nothing (a.tar/b.png)"
    assert not prepared.left_aside


def test_a_tar_that_goes_on_after_its_end(tmp_path: Path) -> None:
    """As `cat a.tar b.tar` makes: what follows the first is lost, and told; more zeros are no more than an end."""
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
    """The header of GNU's member that holds a long name."""
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
    """An empty one, and one that says it is UTF-8 and isn't."""
    path = zip_of(tmp_path / "a.zip", (name, PNGS[0]), ("b.png", PNGS[1]))
    path.write_bytes(path.read_bytes().replace(name.encode(), instead))
    with pytest.raises(DataError, match=r"got a file that can't be read \(.+\), expected a whole zip") as error:
        open_source(path)
    assert str(error.value).startswith(f"{path}: got ")


def test_a_member_that_lies_outside_of_its_zip(tmp_path: Path) -> None:
    """It costs that image alone: an OSError would be a failing disk's."""
    path = zip_of(tmp_path / "a.zip", ("a.png", PNGS[0]), ("b.png", PNGS[1]))
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    begin = int.from_bytes(content[end + 16 : end + 20], "little")
    content[end + 16 : end + 20] = (begin + 1000).to_bytes(4, "little")  # all members lie 1000 bytes before
    path.write_bytes(content)
    source = open_source(path)
    with pytest.raises(DataError, match="got a member that lies outside of its zip"):
        source.read(0)


def damaged_tars(content: bytes) -> list[bytes]:
    """A tar with each byte of its first header, and of a pax one, set to 255, and the checksum repaired."""
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
