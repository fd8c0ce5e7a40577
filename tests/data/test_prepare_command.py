"""The lines that `ebgan-fast prepare` prints account for every file, and hold no control characters."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from ebgan_fast import cli
from ebgan_fast._console import abridged
from ebgan_fast.data import worker
from ebgan_fast.data.packed import PackedImages
from ebgan_fast.data.prepare import prepare_images
from ebgan_fast.data.sources.folder import FolderSource

from . import layouts
from .archives import PNGS, tar_of, zip_of

SIZE = ("--size", "8", "--workers", "1")


def prepared(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str], list[str]]:
    """Run `prepare` on these arguments; return the status and the lines of both outputs, without progress."""
    status = cli.main(["prepare", *map(str, arguments), *SIZE])
    out, err = capsys.readouterr()
    return status, out.splitlines(), [line for line in err.splitlines() if not line.startswith("images: ")]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Make a folder of 7 images (1 truncated), 5 PNGs without an image, 2 texts, a README, a hidden file and a tar."""
    folder = layouts.folder(tmp_path / "photos")
    whole = layouts.encoded(layouts.picture(0))
    (folder / "003.png").write_bytes(whole[:200])
    for number in range(5):
        (folder / f"z{number}.png").write_bytes(b"no image")
    for name in ("a.txt", "b.txt", ".hidden.png", "README"):
        (folder / name).write_text("text")
    with tarfile.open(folder / "backup.tar", "w") as tar:
        tar.add(folder / "000.png", "000.png")
    return folder


def test_the_last_lines_say_what_became_of_everything(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    status, said, told = prepared(capsys, photos, out)
    assert status == 0
    bad = ", ".join(str(photos / f"z{number}.png") for number in range(3))
    assert said == [
        "left aside: 2 .txt (a.txt, b.txt)",
        "left aside: 1 hidden (.hidden.png)",
        "left aside: 1 tar (--kind tar takes it) (backup.tar)",
        "left aside: 1 without a suffix (README)",
        f"left out: 5 no image that Pillow knows ({bad}, ...)",
        f"left out: 1 OSError: image file is truncated ({photos / '003.png'})",
        f"6 images of 8 x 8, 6 that can't be decoded left out: {out}",
    ]
    assert told[0] == "left aside: 1 tar (--kind tar takes it) (backup.tar)"
    assert len(told) == 7
    assert prepared(capsys, photos, out) == (0, said, [])  # for a finished set the last lines are the same


def test_the_other_kind_is_taken_when_it_is_asked_for(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said, _ = prepared(capsys, photos, tmp_path / "out", "--kind", "tar")
    assert status == 0
    assert "left aside: 12 images (--kind images takes them) (000.png, 001.png, 002.png, ...)" in said
    assert said[-1] == f"1 image of 8 x 8: {tmp_path / 'out'}"


def test_no_name_moves_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names with escape sequences, line ends, right-to-left text and bytes that are no text are printed escaped."""
    folder = layouts.folder(tmp_path / "photos\x1b[2J")
    for place, name in enumerate(["\x1b]0;title\x07", "line\nbreak", "\u202egnp.exe", os.fsdecode(b"\xff\xfe")]):
        (folder / f"{name}.png").write_bytes(layouts.encoded(layouts.picture(place)) if place % 2 else b"no image")
        (folder / f"{name}.txt").write_text("text")
    out = tmp_path / "out\x1b[1m"
    status, said, told = prepared(capsys, folder, out)
    assert status == 0
    assert said[-1].startswith("9 images of 8 x 8, 2 that can't be decoded left out: ")
    status, _, refused = prepared(capsys, folder, out, "--split", "\x1b[31mtest")
    assert status == 1
    for line in (*said, *told, *refused):
        assert line.isprintable(), line
    assert len(refused) == 1


LONG = 60_000  # characters of a name
LONGEST = 2_200  # characters of a line: a kind, three names of at most 500 characters each, and the words between


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_no_name_fills_the_screen(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A long name is abridged wherever it is printed; the set's index has the whole name."""
    write = {"tar": tar_of, "zip": zip_of}[kind]
    name = "b" * LONG
    members = [(f"{name}.png", b"no image"), (f"{name}.txt", b"text"), (name, b"text"), ("a." + "c" * LONG, b"text")]
    if kind == "tar":
        members += [(f"z.{name}.png", PNGS[1]), (f"z.{name}d.png", PNGS[1]), ("z.png", PNGS[0])]
    path = write(tmp_path / f"a.{kind}", ("a.png", PNGS[0]), *members)
    status, said, told = prepared(capsys, path, tmp_path / "out")
    assert status == 0
    assert told[-1].startswith(f"left out: {path}/bbb")
    assert told[-1].endswith("bbb.png: no image that Pillow knows")
    assert PackedImages(tmp_path / "out").skipped == [f"{path}/{name}.png"]
    for arguments in [("--strict",), *([("--column", "depth.png")] if kind == "tar" else [])]:
        status, _, refused = prepared(capsys, path, tmp_path / "refused", *arguments)
        assert status == 1
        told += refused
    assert max(map(len, said + told)) < LONGEST


def test_a_name_is_whole_or_its_two_ends() -> None:
    assert abridged("a" * 500) == "a" * 500
    assert abridged("a" * 500 + "b") == "a" * 248 + "..." + "a" * 247 + "b"
    assert abridged("a\n" + "b" * LONG + "\n") == "a\\n" + "b" * 245 + "..." + "b" * 246 + "\\n"
    assert len(abridged("\x1b" * 499)) == 499  # the escaped name would be too long, so it is abridged


@pytest.mark.slow
def test_no_columns_fill_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file may have thousands of columns, so a message names only some of them."""
    for kind, value in (("numbers", 1), ("sounds", b"no image"), ("images", PNGS[0])):
        path = tmp_path / f"{kind}.parquet"
        names = [*(f"column {number}" for number in range(2000)), "b" * LONG]
        pyarrow.parquet.write_table(pyarrow.table({name: [value] for name in names}), path)
        for arguments in ((), ("--column", "none")):
            status, _, told = prepared(capsys, path, tmp_path / "out", *arguments)
            assert (status, len(told)) == (1, 1)
            assert len(told[0]) < LONGEST
    pyarrow.parquet.write_table(pyarrow.table({"image": [PNGS[0]], **{name: [PNGS[0]] for name in names}}), path)
    status, said, told = prepared(capsys, path, tmp_path / "out")
    assert status == 0
    assert max(map(len, said + told)) < LONGEST


def test_what_is_lost_ends_a_strict_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = layouts.folder(tmp_path / "photos")
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    status, said, _ = prepared(capsys, folder, tmp_path / "out")
    assert status == 0
    assert "left out: 2 links to nothing (gone, gone.png)" in said
    status, _, told = prepared(capsys, folder, tmp_path / "strict", "--strict")
    assert status == 1
    assert told == [
        f"ebgan-fast: {folder}: got 2 links to nothing (gone, gone.png), expected none (without --strict they are left "
        "out)"
    ]
    assert not (tmp_path / "strict").exists()


def test_a_set_that_was_begun_without_it_is_strict_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = layouts.folder(tmp_path / "photos"), tmp_path / "out"
    (folder / "bad.png").write_bytes(b"no image")
    assert prepared(capsys, folder, out)[0] == 0
    status, _, told = prepared(capsys, folder, out, "--strict")
    assert status == 1
    assert told == [
        f"ebgan-fast: {folder / 'bad.png'}: got an image that can't be taken (no image that Pillow knows), "
        "expected one that can (without --strict it is left out)"
    ]
    (out / "index.json").unlink()  # now the set is a shard that an earlier call has packed
    record = {"shard": {"file": "shard_00000.bin", "images": 7, "digest": "0" * 32}}
    record["skipped"] = [{"name": "bad.png", "reason": "bad", "text": "worse"}]  # type: ignore[assignment]
    (out / "shard_00000.json").write_text(json.dumps(record))
    status, _, told = prepared(capsys, folder, out, "--strict")
    assert status == 1
    assert told[0].startswith("ebgan-fast: bad.png: got an image that can't be taken (worse), expected")


def test_a_failing_disk_ends_the_command_and_leaves_nothing_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing disk ends the command. A file without the permission to read is left out: the disk has answered."""
    folder, out = layouts.folder(tmp_path / "photos"), tmp_path / "out"
    read = FolderSource.read

    def failing(number: int) -> None:
        def fail(source: FolderSource, index: int) -> bytes:
            if index == 3:
                raise OSError(number, os.strerror(number), source.name(index))
            return read(source, index)

        monkeypatch.setattr(FolderSource, "read", fail)

    for number in (errno.EIO, errno.EMFILE, errno.ESTALE):
        failing(number)
        status, _, told = prepared(capsys, folder, out)
        assert status == 1
        assert told == [
            f"ebgan-fast: {folder / '003.png'}: {os.strerror(number)}; once that is fixed, the same command goes on "
            "after the last whole shard"
        ]
    failing(errno.EACCES)
    status, said, _ = prepared(capsys, folder, out)
    assert status == 0
    assert said[0] == f"left out: 1 Permission denied ({folder / '003.png'})"


def test_memory_that_runs_out_is_not_the_images_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(image: object, size: int) -> None:
        raise MemoryError

    folder = layouts.folder(tmp_path / "photos")
    monkeypatch.setattr(worker, "center_crop", full)
    status, _, told = prepared(capsys, folder, tmp_path / "out")
    assert status == 1
    assert f"{folder / '000.png'}: no memory is left; fewer workers or a smaller size take less; once" in told[0]


def test_a_console_that_is_gone_ends_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = layouts.folder(tmp_path / "photos")
    (folder / "bad.png").write_bytes(b"no image")

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    assert prepare_images(folder, tmp_path / "out", 8, workers=1).images == 7


def test_an_earlier_versions_set_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = layouts.folder(tmp_path / "photos"), tmp_path / "out"
    prepared(capsys, folder, out)
    plan = json.loads((out / "prepare.json").read_text())
    (out / "prepare.json").write_text(
        json.dumps({name: plan[name] for name in ("source", "images", "size", "per_shard")})
    )
    status, _, told = prepared(capsys, folder, out)
    assert status == 0
    assert all("changes since aren't seen" in line for line in told)
    assert told
    status, _, told = prepared(capsys, folder, out, "--split", "all")
    assert status == 1
    assert "an earlier version began" in told[0]
