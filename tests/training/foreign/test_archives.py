"""Tests of checkpoint files made to harm: they run no code, take no more memory than their size, and end in one
sentence.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ebgan_fast._console import shown

from ...hanging import ends
from ...limited_memory import needs_linux
from .conftest import Refusal

pytestmark = needs_linux


def members(run: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(run / "checkpoint.pt") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(run: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(run / "checkpoint.pt", "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def structure_of(run: Path) -> str:
    return next(name for name in members(run) if name.endswith("data.pkl"))


def compressed_zeros(run: Path) -> None:
    parts = members(run)
    packed(run, {**parts, "archive/data/0": bytes(1 << 26)}, zipfile.ZIP_DEFLATED)


def short_storage(run: Path) -> None:
    """Shorten a tensor's part of the archive, so that torch would read on behind the part."""
    parts = members(run)
    packed(run, {**parts, "archive/data/0": parts["archive/data/0"][:8]})


def missing_storage(run: Path) -> None:
    parts = members(run)
    del parts["archive/data/0"]
    packed(run, parts)


def twice(run: Path) -> None:
    """List one part in a thousand more entries of the table, as in an archive that grows without end."""
    parts = members(run)
    with zipfile.ZipFile(run / "checkpoint.pt", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        for index in range(1000):
            entry = zipfile.ZipInfo(f"archive/data/{1000 + index}")
            held = archive.getinfo("archive/data/0")
            entry.header_offset, entry.CRC = held.header_offset, held.CRC
            entry.file_size = entry.compress_size = held.file_size
            archive.filelist.append(entry)


def locked(run: Path) -> None:
    """Mark a part as protected by a password."""
    parts = members(run)
    with zipfile.ZipFile(run / "checkpoint.pt", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        archive.infolist()[0].flag_bits |= 1


def before_an_archive(run: Path) -> None:
    """Put a file of torch's older format before the archive. torch reads the older file, and Python's zip reader the
    archive.
    """
    honest = (run / "checkpoint.pt").read_bytes()
    older = io.BytesIO()
    torch.save({"weights": torch.zeros(3)}, older, _use_new_zipfile_serialization=False)
    (run / "checkpoint.pt").write_bytes(older.getvalue() + honest)


def behind_a_file(run: Path) -> None:
    """Put a whole archive, whose table has the right places, behind a file of torch's older format."""
    honest = members(run)
    torch.save({"weights": torch.zeros(3)}, run / "checkpoint.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(run / "checkpoint.pt", "a") as archive:
        for name, content in honest.items():
            archive.writestr(name, content)


def end_of(name: str, run: Path) -> tuple[bytes, int]:
    """Return the archive's bytes, and the place of its last record of that name."""
    whole = (run / "checkpoint.pt").read_bytes()
    return whole, whole.rindex(name.encode())


def a_comment(run: Path) -> None:
    """Add a comment. A comment could hold a table that only one of two readers finds."""
    with zipfile.ZipFile(run / "checkpoint.pt", "a") as archive:
        archive.comment = b"PK\x01\x02"


def a_table_elsewhere(run: Path) -> None:
    """Let the archive's end point to a copy of the table, while another reader takes the table next to the end."""
    packed(run, members(run))
    whole, place = end_of("PK\x05\x06", run)
    size, begin = struct.unpack("<2L", whole[place + 12 : place + 20])
    table = whole[begin : begin + size]
    end = whole[place : place + 16] + struct.pack("<LH", begin, 0)
    (run / "checkpoint.pt").write_bytes(whole[:begin] + table + table + end)


def a_record_elsewhere(run: Path) -> None:
    """Let the locator name a 64-bit record other than the one beside it."""
    packed(run, members(run))
    whole, place = end_of("PK\x05\x06", run)
    size, begin = struct.unpack("<2L", whole[place + 12 : place + 20])
    count = int.from_bytes(whole[place + 10 : place + 12], "little")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, begin)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, begin + size, 1)
    (run / "checkpoint.pt").write_bytes(whole[:place] + record + record + locator + whole[place:])


def two_tables(run: Path) -> None:
    """Let the 64-bit record point to one table, and the archive's end to another."""
    a_record_elsewhere(run)
    whole, place = end_of("PK\x06\x07", run)
    begin = place - 56
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, begin, 1)
    (size,) = struct.unpack("<Q", whole[begin + 40 : begin + 48])
    record = whole[begin : begin + 48] + struct.pack("<Q", begin - size)
    (run / "checkpoint.pt").write_bytes(whole[:begin] + record + locator + whole[place + 20 :])


def in_either_case(run: Path) -> None:
    parts = members(run)
    packed(run, {**parts, "archive/DATA/0": parts["archive/data/0"]})


def two_structures(run: Path) -> None:
    parts = members(run)
    packed(run, {**parts, "other/data.pkl": parts[structure_of(run)]})


class Called:
    """An object that is pickled as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self._call


def pickled(content: bytes) -> Callable[[Path], None]:
    """Return a function that writes a structure beside one empty storage."""
    return lambda run: packed(run, {"archive/data/0": b"", structure_of(run): content})


def shared(container: Callable[[list[Any]], Any]) -> Any:
    """Return twenty nested containers, each with ten references to the one before: 10^20 parts in few bytes."""
    part = container([])
    for _ in range(20):
        part = container([part] * 10)
    return part


def with_attributes(attributes: dict[str, Any]) -> OrderedDict[str, Any]:
    named: OrderedDict[str, Any] = OrderedDict()
    named.__dict__.update(attributes)
    return named


def as_keys(count: int) -> bytes:
    """Return the pickle of a dict whose keys would take forever to hash. Python cannot build the dict, so the bytes are
    joined.
    """
    key = pickle.dumps(shared(tuple), 2)[2:-1]
    return (
        b"\x80\x02}(" + (b"K\x01K\x01" * (count - 1)) + key + b"K\x01u."
        if count > 1
        else b"\x80\x02}" + key + b"K\x01s."
    )


def a_tensor(
    requires_grad: bytes = b"\x89", hooks: bytes = b"ccollections\nOrderedDict\n)R", more: bytes = b""
) -> bytes:
    """Return the pickled call that makes a tensor from the archive's first storage, as long as the test's model has
    there.
    """
    storage = b"(X\x07\x00\x00\x00storagectorch\nByteStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x00tQ"
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00))" + requires_grad + hooks + more + b"tR."
    )


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "zeros in few bytes": (compressed_zeros, "got compressed parts"),
    "a tensor larger than its part": (short_storage, "in a part of 8 bytes"),
    "a tensor without its part": (missing_storage, "in a part of -1 bytes"),
    "a part under many names": (twice, "got "),
    "a part with a password": (locked, "expected a checkpoint"),
    "a file before the archive": (before_an_archive, "expected a table of parts that ends the file"),
    "an archive behind a file": (behind_a_file, "got something before its parts"),
    "a comment": (a_comment, "it ends as no zip"),
    "a table elsewhere": (a_table_elsewhere, "got something behind its parts"),
    "a record elsewhere": (a_record_elsewhere, "got a record elsewhere"),
    "two tables": (two_tables, "got two tables"),
    "nothing": (lambda run: (run / "checkpoint.pt").write_bytes(b""), "it ends as no zip"),
    "names that differ by case": (in_either_case, "got parts that overlap"),
    "two structures": (two_structures, "got 2 parts called data.pkl"),
    "a call": (pickled(pickle.dumps(Called(os.system, "true"), 2)), "posix.system, not tensors"),
    "100 GB of zeros by a call": (pickled(pickle.dumps(Called(bytearray, 10**11), 2)), "bytearray, not tensors"),
    "100 GB of zeros by an instruction": (
        pickled(b"\x80\x05\x96" + struct.pack("<Q", 10**11) + b"."),
        "only 1 remain",
    ),
    "a list in itself": (pickled(b"\x80\x02]2a."), "an instruction DUP"),
    "a place in memory that is far": (pickled(b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b"."), "got "),
    "a number of a million digits": (
        pickled(b"\x80\x02\x8b" + struct.pack("<I", 2**20) + b"\x7f" * 2**20 + b"."),
        "got ",
    ),
    "no structure": (pickled(b""), "got what torch.save doesn't write"),
    "a structure cut short": (lambda run: pickled(members(run)[structure_of(run)][:-10])(run), "got what torch.save"),
    "lists in lists": (pickled(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."), "more than 32 levels"),
    "lists that share parts": (pickled(pickle.dumps(shared(list), 2)), "hold one another more than"),
    "tuples that share parts": (pickled(pickle.dumps(shared(tuple), 2)), "hold one another more than"),
    "dicts that share parts": (
        pickled(pickle.dumps(shared(lambda parts: dict(enumerate(parts))), 2)),
        "hold one another more than",
    ),
    "attributes that share parts": (
        pickled(pickle.dumps(with_attributes({"_metadata": shared(list)}), 2)),
        "hold one another more than",
    ),
    "attributes that hide parts": (
        pickled(pickle.dumps(with_attributes({"values": OrderedDict}), 2)),
        "attributes of something else",
    ),
    "attributes of a function": (
        pickled(b"\x80\x02ccollections\nOrderedDict\n}(X\x09\x00\x00\x00_metadataK\x01ub."),
        "attributes of something else",
    ),
    "a type in a key's place": (
        pickled(b"\x80\x02}(X\x0c\x00\x00\x00FloatStorageK\x01ctorch\nFloatStorage\nNu."),
        "a key of type list",
    ),
    "keys of one hash": (
        pickled(pickle.dumps(dict.fromkeys(range(0, 99 << 61, (1 << 61) - 1)), 2)),
        "a key of type int, 2305",
    ),
    "a tensor with hooks": (pickled(a_tensor(hooks=pickle.dumps({0: 1}, 2)[2:-1])), "a gradient, hooks or properties"),
    "a tensor with a gradient": (pickled(a_tensor(requires_grad=b"\x88")), "a gradient, hooks or properties"),
    "a tensor with properties": (
        pickled(a_tensor(more=pickle.dumps({"neg": True}, 2)[2:-1])),
        "a gradient, hooks or properties",
    ),
    "a list in itself by memory": (pickled(b"\x80\x02]q\x00h\x00a."), "hold one another more than"),
    "a dict in itself by memory": (pickled(b"\x80\x02}q\x00K\x01h\x00s."), "hold one another more than"),
    "a key that shares parts": (pickled(as_keys(1)), "a key of type tuple"),
    "keys that share parts": (pickled(as_keys(3)), "a key of type tuple"),
    "a dict of such pairs": (
        pickled(pickle.dumps(Called(OrderedDict, [(shared(tuple), 1)]), 2)),
        "got what torch.save doesn't write",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_torch_save_does_not_write(name: str, run: Path, refusal: Refusal) -> None:
    make, told = FILES[name]
    make(run)
    assert told in refusal()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_a_pipe_in_its_place(run: Path, refusal: Refusal) -> None:
    (run / "checkpoint.pt").unlink()
    os.mkfifo(run / "checkpoint.pt")
    assert refusal() == "got a pipe or device, expected a file"


def test_what_is_shown_of_a_value_is_short() -> None:
    """A value is shown in short. Python's `repr` of it would have 10^20 parts, and reprlib calls `repr` for types that
    it doesn't know.
    """
    for value in (shared(list), shared(tuple), shared(lambda parts: OrderedDict(enumerate(parts)))):
        with ends():
            assert len(shown(value)) <= 100
