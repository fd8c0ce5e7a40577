"""PNGs made chunk by chunk, with any bit depth, color type and transparency."""

from __future__ import annotations

import struct
import zlib


def chunk(name: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(name + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png_of(bits: int, kind: int, row: bytes, width: int, *chunks: bytes) -> bytes:
    """Return a PNG of one row of pixels; `kind` is 0 for gray, 2 for RGB and 3 for a palette."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", head, *chunks, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    )
