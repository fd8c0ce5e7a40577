"""An inspection of a checkpoint's file before any memory is allocated for it, as it may come from a stranger.

torch's reader with `weights_only` runs no code of the file, but it trusts the sizes in it. A file of a few hundred
bytes can make it allocate terabytes, or read more of a tensor than the file holds.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from typing import Any, BinaryIO, ClassVar

from ..._console import shown

# The bytes of one number, by torch's name of the storage. Checkpoints hold weights, moments, counts and random states.
_BYTES = {
    "BFloat16Storage": 2,
    "BoolStorage": 1,
    "ByteStorage": 1,
    "CharStorage": 1,
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "IntStorage": 4,
    "LongStorage": 8,
    "ShortStorage": 2,
}
# The instructions that torch.save writes for tensors and plain values in containers. Others, such as BYTEARRAY8,
# allocate the size that they claim before they read.
_OPCODES = frozenset(
    (
        *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("EMPTY_DICT", "SETITEM", "SETITEMS", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT"),
        *("GLOBAL", "BINPERSID", "REDUCE", "BUILD"),
    )
)

_MOST_DIMENSIONS = 8
_MOST_LEVELS = 32  # of containers in containers; a run's state has 6
# The records at the end of a zip. _END: signature, ..., bytes and offset of the table of parts, bytes of a comment.
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")  # signature, disk, offset of the record _END64, disks
_END64 = struct.Struct("<4sQ2H2L4Q")
_SEE_64 = 0xFFFFFFFF  # stands for a number that the record of 64 bits has

# The function that pickle's reader calls for each instruction.
_RULES: dict[int, Any] = {**pickle._Unpickler.dispatch}


def check_archive(file: BinaryIO) -> None:
    """Raise an error if parts of the file are incomplete or claim more than it holds. The file's position changes.

    Args:
        file: the open file.

    Raises:
        ValueError: the file isn't such an archive. The message says why.
        OSError: the file can't be read.
    """
    size = file.seek(0, io.SEEK_END)
    try:
        _check_directory(file, size)
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
        names = [member.filename for member in members]
        file.seek(0)
        # Bytes before an archive: Python's reader skips them, and torch's takes the file for one of its older format.
        if file.read(4) != b"PK\x03\x04" or min((member.header_offset for member in members), default=1) != 0:
            raise ValueError("got something before its parts, expected a checkpoint")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("got compressed parts, expected them as torch.save writes them")
        # torch doesn't tell upper case from lower case in the names of parts.
        if len({name.casefold() for name in names}) != len(names) or sum(member.file_size for member in members) > size:
            raise ValueError("got parts that overlap, expected each at its own place")
        # torch's reader doesn't check the checksums that its writer stores.
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"got damaged data in {damaged!r}, expected a whole checkpoint")
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError(f"got {len(pickles)} parts called data.pkl, expected a checkpoint, which has one")
        (structure,) = pickles
        text = archive.read(structure)
    except (OSError, ValueError):
        raise
    except Exception as error:  # a foreign file can make zipfile raise anything
        raise ValueError(f"got a truncated file or one of another program ({error}), expected a checkpoint") from error
    storages = {member.filename: member.file_size for member in members}
    _check_structure(text, structure.partition("/")[0], storages, size)


def _check_directory(file: BinaryIO, size: int) -> None:
    """Raise a ValueError unless Python's and torch's readers must find the table of parts at the same place.

    The table must end where the records behind it begin, and these records must end the file. See the zip format's
    APPNOTE.TXT, 4.3.14 to 4.3.16.
    """
    expected = "expected a table of parts that ends the file, as torch.save writes it"
    file.seek(max(0, size - _END.size - _LOCATOR.size - _END64.size))
    tail = file.read()
    if tail[-_END.size :][:4] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        raise ValueError("got a truncated file or one of another program (it ends as no zip), expected a checkpoint")
    end = _END.unpack(tail[-_END.size :])
    length, begin, place = end[5], end[6], size - _END.size
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if locator[:4] == b"PK\x06\x07":
        place -= _LOCATOR.size + _END64.size
        end64 = _END64.unpack(tail[-_END.size - _LOCATOR.size - _END64.size :][: _END64.size])
        if end64[0] != b"PK\x06\x06" or _LOCATOR.unpack(locator)[2] != place:
            raise ValueError(f"got a record elsewhere, {expected}")
        length, begin = end64[8], end64[9]
        if (end[5], end[6]) not in {(length, begin), (_SEE_64, _SEE_64), (length, _SEE_64), (_SEE_64, begin)}:
            raise ValueError(f"got two tables, {expected}")
    if begin + length != place:
        raise ValueError(f"got something behind its parts, {expected}")


def _check_structure(text: bytes, prefix: str, members: dict[str, int], size: int) -> None:
    listing = _Listing(text, prefix, members)
    try:
        for opcode, _, _ in pickletools.genops(text):
            if opcode.name not in _OPCODES:
                raise ValueError(f"an instruction {opcode.name}")
        _check_size(listing.load(), len(text))
    except Exception as error:  # a foreign pickle can raise anything
        reason = str(error) or type(error).__name__
        raise ValueError(f"got what torch.save doesn't write ({reason}), expected a checkpoint") from error
    if listing.total > size:
        raise ValueError(f"got tensors of {listing.total} bytes in a file of {size}, expected at most as many")


def _check_size(structure: object, most: int) -> None:
    """Raise a ValueError for containers that hold themselves, or that share parts so often that a walk never ends.

    Thirty lists, each of which holds the one before it twice, take 150 bytes and a billion steps.

    Args:
        structure: the containers.
        most: the largest number of parts. A part counts each time the walk meets it. A part that isn't shared takes at
            least one byte.
    """
    count, level = 0, [structure]
    for _ in range(_MOST_LEVELS):
        inner: list[object] = []
        for container in level:
            parts = _parts(container)
            count += len(parts)
            if count > most:
                raise ValueError(f"parts that hold one another more than {most} times")
            inner.extend(part for part in parts if isinstance(part, (dict, list, tuple)))
        level = inner
        if not level:
            return
    raise ValueError(f"more than {_MOST_LEVELS} levels")


def _parts(container: object) -> list[object]:
    if isinstance(container, dict):
        return [*dict.values(container), *getattr(container, "__dict__", {}).values()]
    return list(container) if isinstance(container, (list, tuple)) else []


class _Listing(pickle._Unpickler):  # the reader in Python: that in C trusts the file's indices of its memo
    """A reader of a checkpoint's structure that creates no tensors.

    Args:
        text: the bytes of data.pkl.
        prefix: the folder in the archive.
        members: the size in bytes of each part of the archive.

    Attributes:
        total: the number of bytes of all tensors.
    """

    stack: list[Any]

    def __init__(self, text: bytes, prefix: str, members: dict[str, int]) -> None:
        super().__init__(io.BytesIO(text))
        self._prefix = prefix
        self._members = members
        self.total = 0

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _BYTES:
            return [name]  # a list, so that it can't be a dict's key: for torch it differs from a text of this name
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("collections", "OrderedDict"):
            return _empty_dict
        raise ValueError(f"{module}.{name}, not tensors and plain values alone")

    def persistent_load(self, pid: Any) -> tuple[int, int]:
        """Return how many numbers a storage has, and how many bytes each takes."""
        kind, (name,), key, _, count = pid
        if not isinstance(key, str) or not _is_count(count):
            raise ValueError(f"a storage of {shown(count)} numbers in {shown(key)}")
        held = self._members.get(f"{self._prefix}/data/{key}", -1)
        if kind != "storage" or count * _BYTES[name] != held:
            raise ValueError(f"{count} numbers of {name} in a part of {held} bytes")
        return count, _BYTES[name]

    def _set_item(self) -> None:
        _check_keys(self.stack[-2:-1])
        _RULES[pickle.SETITEM[0]](self)

    def _set_items(self) -> None:
        _check_keys(self.stack[::2])
        _RULES[pickle.SETITEMS[0]](self)

    def _build(self) -> None:
        """Set the versions of a module's state, the only attribute that torch.save writes."""
        state, holder = self.stack[-1], self.stack[-2]
        if type(holder) is not OrderedDict or type(state) is not dict or list(state) != ["_metadata"]:
            raise ValueError("attributes of something else than a module's state")
        _RULES[pickle.BUILD[0]](self)

    dispatch: ClassVar[dict[int, Any]] = {
        **_RULES,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.BUILD[0]: _build,
    }

    def _tensor(self, storage: tuple[int, int], offset: Any, shape: Any, strides: Any, *rest: Any) -> None:
        count, width = storage
        if len(rest) != 2 or rest[0] is not False or rest[1] != OrderedDict():
            raise ValueError("a tensor with a gradient, hooks or properties")
        if max(len(shape), len(strides)) > _MOST_DIMENSIONS:
            raise ValueError(f"a tensor of {len(shape)} dimensions")
        if not _is_count(offset) or len(shape) != len(strides) or not all(map(_is_count, [*shape, *strides])):
            raise ValueError(f"a tensor of shape {shown(shape)}, strides {shown(strides)} at {shown(offset)}")
        numbers = math.prod(shape)
        # Each number needs a place of its own: with strides of 0, a small storage would make a large tensor.
        if offset + numbers > count:
            raise ValueError(f"a tensor of shape {list(shape)} in a storage of {count} numbers")
        self.total += numbers * width


def _empty_dict() -> OrderedDict[Any, Any]:
    """Return an empty OrderedDict. torch.save calls OrderedDict without arguments; arguments could be keys that aren't
    checked."""
    return OrderedDict()


def _check_keys(keys: list[Any]) -> None:
    """Raise a ValueError for keys that are neither text nor small numbers, because a dict hashes each key.

    Hashing a tuple takes as long as a walk through it, and all multiples of 2^61 - 1 have the same hash.
    """
    for key in keys:
        if type(key) is not str and not (type(key) is int and 0 <= key < 1 << 32):
            raise ValueError(f"a key of type {type(key).__name__}, {shown(key)}")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63
