"""Write archives and tables with any members, and list the pictures that a source reads from them."""

from __future__ import annotations

import io
import mmap
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import lmdb
import pyarrow
import pyarrow.parquet

from ebgan_fast.data.sources import Source

from . import layouts

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 123\n"
"""The pointer that Git LFS leaves in place of a file."""

PNGS = [layouts.encoded(layouts.picture(number)) for number in range(12)]


def pictures(folder: Path, count: int, first: int = 0) -> Path:
    """Write `count` PNGs, numbered from `first`, into a folder that may exist; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        (folder / f"{number:02d}.png").write_bytes(PNGS[number])
    return folder


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def hard(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.LNKTYPE, target)


def symbolic(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, target)


def tar_of(path: Path, *members: tuple[str | tarfile.TarInfo, bytes] | tarfile.TarInfo) -> Path:
    """Write a tar of files, given as name and content, and of members without content, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for each in members:
            if isinstance(each, tarfile.TarInfo):
                tar.addfile(each)
            else:
                info = each[0] if isinstance(each[0], tarfile.TarInfo) else member(each[0])
                info.size = len(each[1])
                tar.addfile(info, io.BytesIO(each[1]))
    return path


def linked(name: str) -> zipfile.ZipInfo:
    """Return the head of a zip's member that is a symbolic link; the member's content is the target."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def zip_of(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def parquet_of(path: Path, contents: Sequence[bytes | None], column: str = "image") -> Path:
    """Write a table with one column of images, as Hugging Face's datasets do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [None if content is None else {"bytes": content, "path": None} for content in contents]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    pyarrow.parquet.write_table(pyarrow.table({column: pyarrow.array(rows, kind)}), path)
    return path


LMDB_PAGE = min(mmap.PAGESIZE, 1 << 15)  # bytes of a page that liblmdb writes on this machine


def lmdb_of(path: Path, contents: Sequence[bytes], subdir: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), map_size=1 << 24, subdir=subdir) as database, database.begin(write=True) as writing:
        for number, content in enumerate(contents):
            writing.put(f"{number:03d}".encode(), content)
    return path


def held(source: Source) -> list[int]:
    """Return the numbers of the pictures that a source reads, in its order."""
    numbers = {content: number for number, content in enumerate(PNGS)}
    stored = [source.read(index) for index in range(len(source))]
    return [numbers[content] for content in stored if isinstance(content, bytes)]


def encrypt(path: Path, name: str) -> None:
    """Mark a member of a zip as encrypted, in both of its headers."""
    content = bytearray(path.read_bytes())
    for magic, flags, named in ((b"PK\x03\x04", 6, 30), (b"PK\x01\x02", 8, 46)):
        place = content.find(magic)
        while content[place + named : place + named + len(name)] != name.encode():
            place = content.find(magic, place + 1)
        content[place + flags] |= 1
    path.write_bytes(content)
