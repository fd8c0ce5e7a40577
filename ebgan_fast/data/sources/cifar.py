"""Read the batches of CIFAR-10, CIFAR-100 and the downsampled ImageNet: pickled dicts, read without running the pickle.

A pickle is a program that may call any function. Here it may name only the functions that make an array, and even these
aren't called: each call is recorded, and the pixels are then made from the recorded bytes.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, NoImagesError
from .array_layout import described, shortened, unreadable
from .source import Pixels, Source, Tally

_EXPECTED = 'expected a pickled dict with "data" of uint8 [N, 3 * side * side], as of CIFAR'

_ARRAY = "_reconstruct"  # makes an array in protocols 0 to 4
_BUFFER = "_frombuffer"  # makes an array in protocol 5
_NUMPY = {  # each function twice, because numpy 2 has renamed numpy.core
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): _ARRAY,
    ("numpy._core.multiarray", "_reconstruct"): _ARRAY,
    ("numpy.core.numeric", "_frombuffer"): _BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _BUFFER,
}
_UINT8 = ("u1", b"u1", "|u1", b"|u1", "uint8", b"uint8", "B", b"B")

# All but the opcodes that look up classes in other ways, make instances by themselves, or hash other things than text.
# fmt: off
_TAKEN_CODES = (
    *pickle.MARK, *pickle.STOP, *pickle.POP, *pickle.POP_MARK, *pickle.NONE, *pickle.NEWTRUE, *pickle.NEWFALSE,
    *pickle.INT, *pickle.BININT, *pickle.BININT1, *pickle.BININT2, *pickle.LONG, *pickle.LONG1, *pickle.LONG4,
    *pickle.FLOAT, *pickle.BINFLOAT,
    *pickle.STRING, *pickle.BINSTRING, *pickle.SHORT_BINSTRING, *pickle.UNICODE, *pickle.BINUNICODE,
    *pickle.SHORT_BINUNICODE, *pickle.BINUNICODE8,
    *pickle.BINBYTES, *pickle.SHORT_BINBYTES, *pickle.BINBYTES8, *pickle.BYTEARRAY8,
    *pickle.EMPTY_LIST, *pickle.LIST, *pickle.APPEND, *pickle.APPENDS, *pickle.EMPTY_DICT, *pickle.DICT,
    *pickle.SETITEM, *pickle.SETITEMS, *pickle.EMPTY_TUPLE, *pickle.TUPLE, *pickle.TUPLE1, *pickle.TUPLE2,
    *pickle.TUPLE3,
    *pickle.GET, *pickle.BINGET, *pickle.LONG_BINGET, *pickle.PUT, *pickle.BINPUT, *pickle.LONG_BINPUT,
    *pickle.MEMOIZE, *pickle.PROTO, *pickle.FRAME, *pickle.GLOBAL, *pickle.STACK_GLOBAL, *pickle.REDUCE,
    *pickle.BUILD,
)
# fmt: on


class _Record:
    """The record of a call that isn't made: the function's name, the arguments, and the state set after the call."""

    __slots__ = ("arguments", "made_by", "state")

    def __init__(self, made_by: str, arguments: tuple[Any, ...]) -> None:
        self.made_by = made_by
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _StandIn:
    """A stand-in for a function or class of numpy, which records calls. It is no type: no opcode can instantiate it."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *arguments: Any) -> _Record:
        return _Record(self._name, arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"it changes {self._name}")


class _Encode:
    """A stand-in for `_codecs.encode` that takes Latin-1 only. Python 3 writes bytes so in protocol 2."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError("it encodes other than Latin-1")
        return text.encode("latin-1")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes _codecs.encode")


class _Entries(dict[Any, Any]):
    """A dict with keys of text, bytes and integers only: hashing a tuple nested a million deep kills the process."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, (bytes, str, int)):
            raise pickle.UnpicklingError(f"a key of a dict is a {type(key).__name__}")
        super().__setitem__(key, value)


class _Reader(pickle._Unpickler):
    """An unpickler that calls no function that the pickle names.

    It derives from the unpickler that is written in Python. The one in C reserves memory for as many entries as the
    largest index in the file says, up to 64 GiB.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: pickle._Unpickler.dispatch[code] for code in _TAKEN_CODES
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _Encode()
        if (module, name) not in _NUMPY:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which it may not use")
        return _StandIn(_NUMPY[module, name])

    def _load_empty_dict(self) -> None:
        self.append(_Entries())  # type: ignore[attr-defined]

    def _load_dict(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        entries = _Entries()
        for place in range(0, len(items), 2):
            entries[items[place]] = items[place + 1]
        self.append(entries)  # type: ignore[attr-defined]

    dispatch[pickle.EMPTY_DICT[0]] = _load_empty_dict
    dispatch[pickle.DICT[0]] = _load_dict


class CifarSource:
    """The images of a pickled batch, in the batch's order. Each is uint8 [side, side, 3], of the planes R, G and B."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: NDArray[np.uint8] | None = None
        self._shape = _load(path).shape  # the rows aren't kept: of five batches only the one in use should be in memory
        self._side = math.isqrt(self._shape[1] // 3)
        self.aside = Tally()

    def __len__(self) -> int:
        count: int = self._shape[0]
        return count

    def name(self, index: int) -> str:
        return f"{self._path}, image {index}"

    def read(self, index: int) -> Pixels:
        if not 0 <= index < len(self):
            raise IndexError(f"{self._path}: got index {index}, expected 0 to {len(self) - 1}")
        if self._rows is None:
            rows = _load(self._path)
            if rows.shape != self._shape:
                raise DataError(f"{self._path}: got another batch than when it was opened, expected the same")
            self._rows = rows
        planes = self._rows[index].reshape(3, self._side, self._side)
        return np.array(planes.transpose(1, 2, 0), order="C")

    def files(self) -> Iterator[str]:
        yield str(self._path)

    def close(self) -> None:
        self._rows = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}


def open_batch(path: Path) -> Source:
    """Open the images of a pickled batch, such as CIFAR-10's data_batch_1, without running the pickle.

    Args:
        path: the file, unchanged from the published archive.

    Raises:
        DataError: the file can't be read, or isn't such a batch.
    """
    return CifarSource(path)


def _load(path: Path) -> NDArray[np.uint8]:
    """Return the rows of a batch, uint8 [N, 3 * side * side].

    Raises:
        DataError: the file can't be read, or isn't such a batch.
    """
    try:
        with path.open("rb") as file:
            loaded = _unpickled(file)
    except Exception as error:  # a damaged or malicious pickle may raise any error, even RecursionError or MemoryError
        raise unreadable(path, error, _EXPECTED) from error
    if not isinstance(loaded, _Entries):
        raise NoImagesError(f"{path}: got a pickled {_kind(loaded)}, {_EXPECTED}")
    data = loaded.get(b"data", loaded.get("data"))
    if data is None:
        keys = ", ".join(shortened(key.decode("latin-1") if isinstance(key, bytes) else key) for key in [*loaded][:12])
        raise NoImagesError(f"{path}: got a pickled dict of {shortened(keys) or 'nothing'}, {_EXPECTED}")
    rows = _rows_of(data)
    if isinstance(rows, str):
        raise DataError(f'{path}: got "data" of {rows}, {_EXPECTED}')
    return rows


def _unpickled(file: IO[bytes]) -> Any:
    try:
        return _Reader(file, encoding="bytes").load()
    except KeyError as error:  # an opcode that isn't in `dispatch`; other faults raise other errors
        raise pickle.UnpicklingError("it holds a code that isn't taken, or is no pickle") from error


def _kind(value: Any) -> str:
    return shortened(value.made_by if isinstance(value, _Record) else type(value).__name__)


def _rows_of(data: Any) -> NDArray[np.uint8] | str:
    """Return the rows that a recorded array holds, or words for the thing that it is instead."""
    match data:
        case _Record(made_by="_reconstruct", state=(_, shape, dtype, fortran, content)):
            pass
        case _Record(made_by="_frombuffer", arguments=(content, dtype, shape, order)):
            fortran = order in ("F", b"F")
        case _:
            return _kind(data)
    if not (isinstance(dtype, _Record) and dtype.made_by == "dtype" and dtype.arguments):
        return "an array without a dtype"
    if not (isinstance(shape, tuple) and all(type(side) is int for side in shape)):
        return "an array without a shape"
    code = dtype.arguments[0]
    if not (isinstance(code, (str, bytes)) and code in _UINT8):
        return f"an array of dtype {shortened(code.decode('latin-1') if isinstance(code, bytes) else code)}"
    if len(shape) != 2 or min(shape) < 1 or 3 * math.isqrt(shape[1] // 3) ** 2 != shape[1]:
        return described(shape, np.dtype(np.uint8))
    if not isinstance(content, (bytes, bytearray)) or len(content) != shape[0] * shape[1]:
        size = len(content) if isinstance(content, (bytes, bytearray)) else "no"
        return f"{described(shape, np.dtype(np.uint8))} with {size} bytes"
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")
