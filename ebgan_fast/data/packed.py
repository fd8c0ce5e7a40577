"""A packed set holds images of one size as bytes in a few large files, which training reads by memory map.

A folder holds the shards, shard_00000.bin and so on, and index.json. A shard holds its images one after the other, each
as H x W x C bytes, so that a batch lies channels_last in memory. index.json is written last. It holds the shape of the
images, and the name, number of images and BLAKE2b digest of each shard.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch import Tensor

from .._console import shortened, shown
from .._json import read_object
from .errors import DataError
from .mapped import mapped

INDEX = "index.json"
_FORMAT, _VERSION = "ebgan_fast packed images", 1
_LARGEST_INDEX = 1 << 30  # bytes: an index takes 120 for each shard, and the names of the images that were left out
_WAY_OUT = "prepare the images into a new folder, or copy the whole folder again"
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Shard:
    """One file of a packed set: its name, its number of images and the BLAKE2b digest of its bytes."""

    file: str
    images: int
    digest: str


_SHARD_FIELDS = sorted(field.name for field in dataclasses.fields(Shard))


def digest_of(path: Path, on_bytes: Callable[[int], None] = lambda count: None) -> str:
    """Return the BLAKE2b digest of a file's bytes: 16 bytes as 32 hex digits.

    Args:
        path: the file.
        on_bytes: called after each piece with its number of bytes.
    """
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


def index_text(
    shape: tuple[int, int, int], shards: list[Shard], skipped: list[str], reasons: list[str] | None = None
) -> str:
    """Return the text of index.json.

    Args:
        shape: the shape (C, H, W) of an image.
        shards: the shards, in order.
        skipped: names of the images that couldn't be decoded.
        reasons: the reason for each of these.
    """
    channels, height, width = shape
    fields = {
        "format": _FORMAT,
        "version": _VERSION,
        "channels": channels,
        "height": height,
        "width": width,
        "images": sum(shard.images for shard in shards),
        "shards": [asdict(shard) for shard in shards],
        "skipped": skipped,
        "reasons": reasons or [],
    }
    return json.dumps(fields, indent=1) + "\n"


def is_packed(folder: Path) -> bool:
    """Return True if a folder holds a finished set."""
    return (folder / INDEX).is_file()


class PackedImages:
    """A packed set, read by memory map: an `ImageSet` that may be larger than the memory.

    Opening a set checks the index and the length of each shard, but reads no image. `verify` reads every byte.

    Args:
        folder: the folder that `ebgan-fast prepare` wrote.

    Attributes:
        skipped: names of the images that couldn't be decoded and were left out.
        reasons: the reason for each of these.

    Raises:
        DataError: the folder has no index, or one of something else or of another version; the set has no images; or a
            shard is missing or has another length. The message names the file.

    Example:
        >>> from pathlib import Path, PurePosixPath, PureWindowsPath
        >>> import torch
        >>> from PIL import Image
        >>> from ebgan_fast.data import PackedImages
        >>> from ebgan_fast.data.prepare import prepare_images
        >>> Path("photos").mkdir()
        >>> Image.new("RGB", (40, 30), "red").save("photos/a.png")
        >>> Image.new("RGB", (16, 24), "blue").save("photos/b.png")
        >>> _ = prepare_images(Path("photos"), Path("packed"), size=16, workers=1)  # ebgan-fast prepare does it too
        >>> images = PackedImages(Path("packed"))
        >>> len(images), images.shape
        (2, (3, 16, 16))
        >>> images.gather(torch.tensor([1, 0]))[:, :, 0, 0]
        tensor([[  0,   0, 255],
                [255,   0,   0]], dtype=torch.uint8)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        fields = _read_index(folder / INDEX)
        try:
            channels, height, width = (_count_of(fields[name]) for name in ("channels", "height", "width"))
            self._shape = channels, height, width
            self.shards = [_shard_of(shard) for shard in fields["shards"]]
            if len({shard.file for shard in self.shards}) < len(self.shards):
                raise ValueError("a shard that occurs twice")
            self._count = sum(shard.images for shard in self.shards)
            self.skipped = [_text_of(name) for name in fields["skipped"]]
            self.reasons = [_text_of(reason) for reason in fields.get("reasons", [])]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{folder / INDEX}: got a damaged index ({_reason(error)}), expected that of packed images"
            ) from error
        # An earlier version printed the reasons but didn't store them.
        self.reasons = (self.reasons + ["for a reason that wasn't kept"] * len(self.skipped))[: len(self.skipped)]
        if self._count == 0:
            raise DataError(f"{folder}: got a set of no images, expected at least one")
        self._rows = [self._map(shard) for shard in self.shards]
        self._ends = torch.tensor([shard.images for shard in self.shards]).cumsum(0)
        self._starts = [0, *self._ends.tolist()]

    def _map(self, shard: Shard) -> Tensor:
        path = self.folder / shard.file
        channels, height, width = self._shape
        expected = shard.images * channels * height * width
        if not path.is_file():
            raise DataError(f"{path}: got no such file, expected one of {expected} bytes as the index says; {_WAY_OUT}")
        if path.stat().st_size != expected:
            raise DataError(f"{path}: got a shard of {path.stat().st_size} bytes, expected {expected}; {_WAY_OUT}")
        return mapped(path, expected).view(shard.images, -1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image: (C, H, W)."""
        return self._shape

    @property
    def fingerprint(self) -> str:
        """32 hex digits that differ between sets of different images, made of the digests in the index."""
        parts = json.dumps([self._shape, [[shard.images, shard.digest] for shard in self.shards]])
        return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return self._count

    def gather(self, indices: Tensor, out: Tensor | None = None) -> Tensor:
        """Return images by number, uint8 [B, C, H, W]. Other Python threads run while the images are read.

        Args:
            indices: the numbers of the images, int64 [B].
            out: a tensor to fill, uint8 [B, C, H, W], channels_last in memory. None: a new one is made.

        Returns:
            `out`, or the new tensor.

        Raises:
            IndexError: an index is outside the set.
        """
        channels, height, width = self._shape
        if out is None:
            out = torch.empty(len(indices), height, width, channels, dtype=torch.uint8).permute(0, 3, 1, 2)
        rows = out.permute(0, 2, 3, 1).view(len(indices), channels * height * width)
        if len(self._rows) == 1:
            torch.index_select(self._rows[0], 0, indices, out=rows)
            return out
        # Row by row: with rows grouped by shard, 64 images of 64 x 64 in 60 shards took 2.4 ms in place of 0.3.
        shards = torch.bucketize(indices, self._ends, right=True).tolist()
        for row, index, shard in zip(rows.unbind(), indices.tolist(), shards, strict=True):
            if not 0 <= index < self._count:
                raise IndexError(f"got index {index}, expected 0 to {self._count - 1}")
            row.copy_(self._rows[shard][index - self._starts[shard]])
        return out

    def verify(self, progress: Callable[[float, str], None] = lambda share, text: None) -> None:
        """Read every byte and compare each shard with its digest.

        Args:
            progress: called with the share of the bytes that were read, 0 to 1, and the name of the shard.

        Raises:
            DataError: the bytes of a shard have changed. The message names the shard.
        """
        channels, height, width = self._shape
        total, read = self._count * channels * height * width, 0
        for shard in self.shards:
            path = self.folder / shard.file

            def report(count: int, name: str = shard.file) -> None:
                nonlocal read
                read += count
                progress(read / total, name)

            if digest_of(path, report) != shard.digest:
                raise DataError(
                    f"{path}: got bytes that have changed since they were written, expected those of the index's "
                    f"digest; {_WAY_OUT}"
                )


def _read_index(path: Path) -> dict[str, Any]:
    try:
        fields = read_object(path, _LARGEST_INDEX)
    except FileNotFoundError as error:
        raise DataError(f"{path}: got no such file, expected a folder that ebgan-fast prepare has finished") from error
    except ValueError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(
            f"{path}: got a file that can't be read ({error.strerror}), expected an index of packed images"
        ) from error
    if fields.get("format") != _FORMAT:
        raise DataError(f"{path}: got a file of another program, expected an index of packed images")
    if fields.get("version") != _VERSION:
        raise DataError(
            f"{path}: got version {shown(fields.get('version'))}, expected {_VERSION}; prepare the images into a new "
            "folder"
        )
    return fields


def _reason(error: Exception) -> str:
    """Return the fault of an index in words, from the error that reading its fields raised."""
    return f"without {shortened(str(error))}" if isinstance(error, KeyError) else shortened(str(error))


def _count_of(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 48:  # 256 T
        raise ValueError("a count that isn't a whole number of at least 1")
    return value


def _text_of(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a name that isn't text")
    return value


def _shard_of(fields: object) -> Shard:
    """Return a shard of an index from its JSON fields.

    A stranger may have made the index, so a name that leads out of the folder is refused.

    Raises:
        ValueError: the fields are no shard's, or the name isn't that of a file in the folder.
    """
    if not isinstance(fields, dict) or sorted(fields) != _SHARD_FIELDS:
        raise ValueError(f"a shard that is {shown(fields)}, not {', '.join(_SHARD_FIELDS)}")
    shard = Shard(**fields)
    name = _text_of(shard.file)
    parts = {PurePosixPath(name).name, PureWindowsPath(name).name}
    if parts != {name} or name in ("", "..") or "\0" in name or ":" in name:
        raise ValueError(f"the shard {name[:100]!r}, which is no name in the folder")
    _count_of(shard.images)
    _text_of(shard.digest)
    return shard
