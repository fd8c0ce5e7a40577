"""A strict reader of IDX, the file format in which MNIST is published (https://yann.lecun.com/exdb/mnist/)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from .errors import DataError

_UNSIGNED_BYTE = 0x08
_DTYPE_NAMES = {
    0x08: "unsigned byte",
    0x09: "signed byte",
    0x0B: "short",
    0x0C: "int",
    0x0D: "float",
    0x0E: "double",
}
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 24


def read_idx(path: str | Path, ndim: int) -> Tensor:
    """Read an IDX file of unsigned bytes, plain or gzipped. The content decides which, not the name.

    An IDX file consists of two zero bytes, a dtype code, the number of dimensions, each size as a big-endian uint32,
    and the elements in C order.

    Args:
        path: the file.
        ndim: the number of dimensions that the array must have: 3 for images, 1 for labels.

    Returns:
        A uint8 tensor of `ndim` dimensions.

    Raises:
        DataError: the file can't be read, or isn't exactly one IDX array of unsigned bytes with `ndim` dimensions.

    Example:
        >>> from pathlib import Path
        >>> from ebgan_fast.data import read_idx
        >>> header = bytes([0, 0, 8, 1, 0, 0, 0, 3])  # unsigned bytes, one dimension, three elements
        >>> _ = Path("labels-idx1-ubyte").write_bytes(header + bytes([7, 2, 1]))
        >>> read_idx("labels-idx1-ubyte", ndim=1)
        tensor([7, 2, 1], dtype=torch.uint8)
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if not compressed:
                return _parse(raw, path, ndim)
            with gzip.open(raw, "rb") as unpacked:
                return _parse(unpacked, path, ndim)  # type: ignore[arg-type]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: got a damaged gzip file ({error}), expected a whole one") from error
    except OSError as error:
        raise DataError(f"{path}: got {error.strerror or error}, expected a readable IDX file") from error


def _parse(file: BinaryIO, path: Path, ndim: int) -> Tensor:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(
            f"{path}: got a file that starts with {magic.hex() or 'nothing'}, expected an IDX file (0000....)"
        )
    dtype, dims = magic[2], magic[3]
    if dtype != _UNSIGNED_BYTE:
        name = _DTYPE_NAMES.get(dtype, "unknown")
        raise DataError(f"{path}: got dtype code 0x{dtype:02x} ({name}), expected 0x08 (unsigned byte)")
    if dims != ndim:
        raise DataError(f"{path}: got {dims} dimensions, expected {ndim}")
    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise DataError(f"{path}: got {4 + len(sizes)} bytes, expected a header of {4 + 4 * ndim} (truncated)")
    shape = struct.unpack(f">{ndim}I", sizes)
    expected = math.prod(shape)
    data = _read_at_most(file, expected + 1)
    if len(data) != expected:
        got = f"{len(data)} bytes of data (truncated)" if len(data) < expected else "bytes beyond the data"
        raise DataError(f"{path}: got {got}, expected {expected} for shape {list(shape)}")
    # torch.frombuffer refuses an empty buffer.
    return (torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)).reshape(shape)


def _read_at_most(file: BinaryIO, count: int) -> bytearray:
    """Read `count` bytes, or fewer if the file ends before.

    The file is read in chunks, because a damaged header can ask for 2**96 bytes and read(n) allocates n.
    """
    data = bytearray()
    while len(data) < count and (chunk := file.read(min(_CHUNK, count - len(data)))):
        data += chunk
    return data
