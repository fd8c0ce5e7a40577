"""One image takes at most twice the memory of its RGB pixels in Pillow, however small its file is.

Decoders that need more memory themselves, such as those of TIFF and WebP, are not tested.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from ebgan_fast.data.sources import open_source
from ebgan_fast.data.worker import decoded_squares

from ..limited_memory import Fork, error_within, needs_linux

WIDTH, HEIGHT = 4001, 3999
PIXEL = 4  # bytes of a pixel in Pillow, for RGB as for RGBA
TILE = 1 << 16  # pixels that are converted at once
COPIES = 6  # of a tile, at most: as stored, with alpha, white, both together, RGB, and the next tile


def image_of(mode: str, kind: str = "PNG", **options: object) -> Callable[[Path, int, int], Path]:
    def write(folder: Path, width: int, height: int) -> Path:
        Image.new(mode, (width, height), 1).save(folder / f"a.{kind.lower()}", **options)
        return folder

    return write


def turned(folder: Path, width: int, height: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    return image_of("RGB", "JPEG", exif=exif)(folder, width, height)


def npy(*channels: int) -> Callable[[Path, int, int], Path]:
    def write(folder: Path, width: int, height: int) -> Path:
        np.save(folder / "a.npy", np.zeros((1, height, width, *channels), np.uint8))
        return folder / "a.npy"

    return write


def npz(folder: Path, width: int, height: int) -> Path:
    np.savez_compressed(folder / "a.npz", np.zeros((2, height, width, 4), np.uint8))
    return folder / "a.npz"


def unwritten(folder: Path, width: int, height: int) -> Path:
    """Write a file of 1,400 bytes that claims sixteen images, none of which was ever written."""
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("images", (16, height, width, 4), np.uint8)
    return folder / "a.h5"


def chunked(folder: Path, width: int, height: int) -> Path:
    chunks = 16, 1, 9, 9
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("images", (16, 3, height, width), np.uint8, chunks=chunks, compression="gzip")
    return folder / "a.h5"


KINDS: dict[str, Callable[[Path, int, int], Path]] = {
    "a photograph": image_of("RGB", "JPEG"),
    "a photograph that is turned": turned,
    "print colors": image_of("CMYK", "JPEG"),
    "gray": image_of("L"),
    "gray of 16 bits": image_of("I;16"),
    "gray of 16 bits with a transparent one": image_of("I;16", transparency=7),
    "alpha": image_of("RGBA"),
    "gray with alpha": image_of("LA"),
    "a transparent color": image_of("RGB", transparency=(1, 0, 0)),
    "a transparent color of a palette": image_of("P", transparency=0),
    "an array": npy(3),
    "an array with alpha": npy(4),
    "a packed array": npz,
    "a sparse array": unwritten,
    "an array in chunks": chunked,
}


def take_a_square(source: Path) -> None:
    """Decode and crop the first image.

    Raises:
        ValueError: the image can't be decoded; the text says why.
    """
    opened = open_source(source)
    square = decoded_squares(opened, 8, range(1))[0]
    opened.close()
    if not isinstance(square, bytes):
        raise ValueError(square.text)


def tell_what_a_square_takes(source: Path) -> None:
    """Print the bytes of address space that decoding takes at its peak, including the libraries that it loads."""

    def kilobytes(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    before = kilobytes("VmSize")
    take_a_square(source)
    print(f"\n{(kilobytes('VmPeak') - before) << 10}")


@pytest.mark.slow
@needs_linux
@pytest.mark.xdist_group("forked")
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_takes_twice_its_pixels(kind: str, fork: Fork, tmp_path: Path) -> None:
    """The memory of an image of 9 x 9 pixels, libraries included, and the file's size are not counted."""
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
    small, large = KINDS[kind](tmp_path / "small", 9, 9), KINDS[kind](tmp_path / "large", WIDTH, HEIGHT)
    child = fork(tell_what_a_square_takes, small)
    assert child.status() == 0, child.said
    libraries = int(child.said.splitlines()[-1])
    files = sum(path.stat().st_size for path in (tmp_path / "large").iterdir())
    room = libraries + files + PIXEL * (2 * WIDTH * HEIGHT + COPIES * TILE)
    assert error_within(fork, room, take_a_square, large) == ("", "")
