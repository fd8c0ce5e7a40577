"""Folders with links, names of every kind, pipes and devices, and files that can't be opened."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ebgan_fast import cli
from ebgan_fast.data import DataError
from ebgan_fast.data.decoding import decode
from ebgan_fast.data.prepare import prepare_images
from ebgan_fast.data.sources import open_source

from . import layouts
from .archives import PNGS, held, pictures, tar_of, zip_of


def names_of(path: Path) -> list[str]:
    source = open_source(path)
    return [os.path.relpath(source.name(index), path) for index in range(len(source))]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    """A folder inside the tree keeps its real name, even if a link to it comes first."""
    pictures(tmp_path / "outside" / "deep", 2)
    root = pictures(tmp_path / "set" / "real", 1, first=2).parent
    (root / "again").symlink_to("real")
    (root / "first").symlink_to(tmp_path / "outside" / "deep")
    (root / "second").symlink_to(tmp_path / "outside")
    assert names_of(root) == ["first/00.png", "first/01.png", "real/02.png"]
    source = open_source(root)
    assert held(source) == [0, 1, 2]
    assert str(source.aside) == "2 folders read already, under another name (again, second/deep)"


def test_links_around_and_loops_end(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set" / "a" / "b", 2).parents[1]
    (root / "a" / "b" / "up").symlink_to("..")
    (root / "a" / "root").symlink_to(root)
    (root / "parent").symlink_to(tmp_path)
    (root / "self").symlink_to("self")
    (root / "x").symlink_to("y")
    (root / "y").symlink_to("x")
    (root / "z.png").symlink_to("z.png")
    source = open_source(root)
    assert held(source) == [0, 1]
    assert source.aside.texts() == [
        "4 links to nothing (self, x, y, ...)",
        "3 links to a folder around them (parent, a/root, a/b/up)",
    ]


def test_two_outside_folders_that_link_to_each_other(tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "one", 1), pictures(tmp_path / "two", 1, first=1)
    (one / "other").symlink_to(two)
    (two / "other").symlink_to(one)
    root = pictures(tmp_path / "set", 1, first=2)
    (root / "one").symlink_to(one)
    assert sorted(held(open_source(root))) == [0, 1, 2]


def test_a_tree_of_links_only(tmp_path: Path) -> None:
    real = pictures(tmp_path / "real", 3)
    (tmp_path / "set" / "files").mkdir(parents=True)
    (tmp_path / "set" / "folder").symlink_to(real)
    for number in range(2):
        (tmp_path / "set" / "files" / f"{number}.png").symlink_to(f"../../real/{number:02d}.png")
    (tmp_path / "root").symlink_to(tmp_path / "set")
    source = open_source(tmp_path / "root")
    assert held(source) == [0, 1, 0, 1, 2]
    assert not source.aside


def test_broken_links_are_lost(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 2)
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "gone").symlink_to(tmp_path / "no folder")
    prepared = prepare_images(root, tmp_path / "out", 8, workers=1)
    assert (prepared.images, str(prepared.left_out)) == (2, "2 links to nothing (gone, gone.png)")
    with pytest.raises(DataError, match=r"set: got 2 links to nothing \(gone, gone.png\), expected none"):
        prepare_images(root, tmp_path / "strict", 8, workers=1, strict=True)


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_folder_that_cannot_be_opened(through_a_link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "set", 2)
    closed = pictures(tmp_path / "elsewhere" if through_a_link else root / "closed", 1)
    if through_a_link:
        (root / "closed").symlink_to(closed)
    scandir: Callable[..., Any] = os.scandir

    def refusing(path: Any = ".") -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    prepared = prepare_images(root, tmp_path / "out", 8, workers=1)
    assert (prepared.images, str(prepared.left_out)) == (2, "1 folder that can't be opened (closed)")
    with pytest.raises(DataError, match=r"set: got 1 folder that can't be opened \(closed\), expected none"):
        prepare_images(root, tmp_path / "strict", 8, workers=1, strict=True)


def test_what_is_no_file_is_told_and_not_opened(tmp_path: Path) -> None:
    """Opening a FIFO would wait for a process that writes to it."""
    root = pictures(tmp_path / "set", 1)
    for name in ("a.png", "plain", "b.tar", "c.parquet"):
        os.mkfifo(root / name)
    (root / "link.png").symlink_to("a.png")
    (root / "zero.png").symlink_to("/dev/zero")
    listening = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(root)  # a socket's path has to be short, so it is made in the current folder
    try:
        listening.bind("socket.jpg")
    finally:
        os.chdir(here)
        listening.close()
    source = open_source(root)
    assert held(source) == [0]
    assert str(source.aside) == "7 neither files nor folders (a.png, b.tar, c.parquet, ...)"


@pytest.mark.parametrize("name", ["a.png", "a.tar", "a.zip", "a.parquet", "a.npy", "plain"])
def test_a_source_that_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="neither a file nor a folder, expected a folder with images") as error:
        open_source(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: got ")


ODD = {"text that is none": b"\xff\xfe", "an escape": b"\x1b[31m\x1b]0;title\x07", "lines": b"a\nb\r", "a space": b" "}


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_names_of_any_bytes(name: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files with odd names are packed, and their names are printed without control characters."""
    odd = os.fsdecode(name)
    root = pictures(tmp_path / f"set{odd}", 1)
    pictures(root / odd, 1, first=1)
    (root / f"{odd}.png").write_bytes(PNGS[2])
    (root / f"{odd}damaged.png").write_bytes(b"no image")
    (root / f"x.{odd}t").write_bytes(b"")
    (root / f"{odd}gone.png").symlink_to(f"{odd}nowhere")
    tar_of(root / f"{odd}.tar", (f"{odd}.png", PNGS[3]))
    zip_of(root / f"{odd}.zip", ("a.txt", b""))
    out = tmp_path / f"out{odd}"
    said = ""
    for arguments, status in (
        ([root, out], 0),
        ([root, out, "--kind", "tar"], 1),
        ([root, tmp_path / f"strict{odd}", "--strict"], 1),
        ([root / f"{odd}.zip", out], 1),
        ([root / f"{odd}none", out], 1),
        ([root, out, "--kind", "tar", "--column", odd], 1),
        ([root, out, "--split", odd], 1),
    ):
        given = ["prepare", *map(str, arguments), "--size", "8", "--workers", "1"]
        assert cli.main(given) == status
        printed = capsys.readouterr()
        said += printed.out + printed.err
        if status:
            assert printed.err.count("\n") == 1 or "--strict" in arguments
    assert "3 images of 8 x 8, 1 that can't be decoded left out" in said
    assert all(sign.isprintable() or sign == "\n" for sign in said), ascii(said)


def encoders() -> list[tuple[str, str]]:
    """Return every suffix that Pillow can write, with its format."""
    Image.init()
    return [(suffix, kind) for suffix, kind in Image.registered_extensions().items() if kind in Image.SAVE]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Pillow warns of formats that it will drop
def test_every_suffix_that_pillow_decodes(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    wanted = {}
    for suffix, kind in encoders():
        for mode in ("RGB", "RGBA", "L", "P", "1"):
            path = root / f"{suffix[1:]}{suffix}"
            try:
                layouts.picture(0, 32, 32).convert(mode).save(path, kind)
                decode(path.read_bytes())
            except Exception:  # the format lacks the mode, or Pillow can only write the format
                path.unlink(missing_ok=True)
                continue
            wanted[path.name] = suffix
            break
    assert {".jpg", ".jfif", ".jpe", ".jp2", ".tga", ".webp", ".bmp", ".tif", ".gif"} <= set(wanted.values())
    assert (".avif" in wanted.values()) == ("AVIF" in Image.SAVE)
    # Pillow leaves these formats to other programs, or only writes them.
    assert not {".eps", ".ps", ".pdf", ".emf", ".wmf"} & set(wanted.values())
    assert set(names_of(root)) == set(wanted)
    prepared = prepare_images(root, tmp_path / "out", 8, workers=1)
    assert prepared.skipped == []


def test_the_case_of_a_suffix_does_not_matter(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for number, name in enumerate(["a.PNG", "b.Png", "c.pNg"]):
        (root / name).write_bytes(PNGS[number])
    assert held(open_source(root)) == [0, 1, 2]
    assert len(open_source(tar_of(tmp_path / "A.TAR", ("A.PNG", PNGS[0])))) == 1
    (tmp_path / "upper").mkdir()
    zip_of(tmp_path / "upper" / "A.ZIP", ("A.PNG", PNGS[0]))
    assert len(open_source(tmp_path / "upper")) == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_files_without_a_suffix_by_their_first_bytes(kind: str, tmp_path: Path) -> None:
    if kind not in Image.SAVE:
        pytest.skip(f"Pillow writes no {kind} here")
    root = tmp_path / "set"
    root.mkdir()
    (root / "picture").write_bytes(layouts.encoded(layouts.picture(0), kind))
    (root / "README").write_text("Bitmaps\n")
    (root / "BMP").write_text("BM is no bitmap in a text of many letters")
    (root / "empty").write_bytes(b"")
    source = open_source(root)
    assert [Path(source.name(0)).name] == ["picture"]
    assert len(source) == 1
    assert str(source.aside) == "3 without a suffix (BMP, README, empty)"


def test_hidden_files_and_folders(tmp_path: Path) -> None:
    root = pictures(tmp_path / ".hidden root", 1)
    pictures(root / ".cache", 1)
    pictures(root / "__MACOSX", 1)
    (root / "._00.png").write_bytes(b"a Mac's")
    (root / ".link").symlink_to(root / "__MACOSX")
    source = open_source(root)
    assert held(source) == [0]
    assert str(source.aside).startswith("4 hidden (")
