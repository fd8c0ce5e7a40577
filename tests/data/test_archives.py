"""Tars and zips: which members are taken as images, where links lead, and which other members are reported."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from ebgan_fast.data import DataError
from ebgan_fast.data.prepare import prepare_images
from ebgan_fast.data.sources import open_source

from .archives import PNGS, hard, held, linked, member, symbolic, tar_of, zip_of


def names_of(path: Path, column: str | None = None) -> list[str]:
    """Return the names, within an archive, of the images that are taken."""
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
    """A sample gives the image whose part has no further dot, such as jpg, or else the part that occurs most often."""
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
        # The part that occurs most often is taken, in whatever order each sample has its parts.
        (
            ["0.jpg", "0.png", "1.png", "1.jpg", "2.png", "3.jpg", "4.png"],
            ["0.png", "1.png", "2.png", "3.jpg", "4.png"],
        ),
        # Among equally frequent parts, the one that comes first in the tar is taken.
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
        # A part that occurs once belongs to its sample; without a sample it is an image.
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
        hard("b.png", "b.png"),  # `tar` writes such a link for a file that it is given twice
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


def test_a_dangling_link_is_lost_and_not_aside(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", ("a.png", PNGS[0]), symbolic("b.png", "c.png"))
    prepared = prepare_images(path, tmp_path / "out", 8, workers=1)
    assert str(prepared.left_out) == "1 link to nothing (a.tar/b.png)"
    assert not prepared.left_aside
