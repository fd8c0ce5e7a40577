"""Films of an energy over the plane: frames as bytes, kept in one picture, and shown side by side as an animation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from .._files import replacing
from .._plotting import color_map

REACH = 1.2  # the drawn square goes from -1.2 to 1.2; points lie within -1 and 1
CEILING = 1.25  # the highest energy that is kept, in margins
_SIDE = 64  # lattice points along a side of the square
_FRAMES = 24
_COLUMNS = 6  # of frames in the picture that keeps them
_SHOWN = 120  # pixels of a side in the animation
_HEAD = 18  # pixels above and below the animation for words
_DOT = 1  # pixels
_COLORS = {"data": (255, 255, 255), "generated": (255, 120, 30)}
_MILLISECONDS = 150
_LAST_MILLISECONDS = 2500

Bytes = NDArray[np.uint8]


class Film(NamedTuple):
    """A training's energies over the square, with the points that the generator drew.

    Attributes:
        tiles: the energies of each frame, [frames, side, side]. The first row is the lowest. 255 is `CEILING` margins.
        steps: the number of steps before each frame.
        generated: the points of each frame, as pairs of coordinates. It is empty without a generator.
    """

    tiles: Bytes
    steps: Sequence[int]
    generated: Sequence[Sequence[Sequence[float]]]


def moments(steps: int) -> list[int]:
    """Return the steps after which a film has a frame. They are closer at first, when the energy changes fastest."""
    return sorted({max(1, round(steps * (frame / _FRAMES) ** 2)) for frame in range(1, _FRAMES + 1)})


def lattice() -> Tensor:
    """Return the points of the square at which a film has energies, [points, 1, 1, 2]. The first row is the lowest."""
    line = torch.linspace(-REACH, REACH, _SIDE)
    up, across = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([across, up], -1).view(-1, 1, 1, 2)


def frame_of(energies: Tensor, margin: float) -> Tensor:
    """Return the frame of the lattice's energies: bytes [side, side]."""
    share = energies.cpu() / (CEILING * margin)
    return (share.clamp(0, 1) * 255).round().to(torch.uint8).view(_SIDE, _SIDE)


def save_frames(frames: Sequence[Tensor], path: Path) -> None:
    """Write the frames into one gray picture, six in a row."""
    rows = math.ceil(len(frames) / _COLUMNS)
    sheet = np.zeros((rows * _SIDE, _COLUMNS * _SIDE), np.uint8)
    for number, frame in enumerate(frames):
        top, left = (part * _SIDE for part in divmod(number, _COLUMNS))
        sheet[top : top + _SIDE, left : left + _SIDE] = frame.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        Image.fromarray(sheet).save(file, format="PNG")


def frames_in(picture: Image.Image, count: int) -> Bytes:
    """Return the first frames of a picture that `save_frames` wrote, [count, side, side].

    Raises:
        ValueError: the picture is too small for so many frames.
    """
    sheet = np.asarray(picture.convert("L"))
    rows = math.ceil(count / _COLUMNS)
    if sheet.shape[0] < rows * _SIDE or sheet.shape[1] < _COLUMNS * _SIDE:
        raise ValueError(f"got a picture of {picture.width} x {picture.height} pixels, expected {count} frames")
    places = [tuple(part * _SIDE for part in divmod(number, _COLUMNS)) for number in range(count)]
    return np.stack([sheet[top : top + _SIDE, left : left + _SIDE] for top, left in places])


def animate(films: Sequence[Sequence[Film | None]], data: Sequence[Tensor], heads: Sequence[str], path: Path) -> None:
    """Write the films as one animated WebP. A shorter film stays at its last frame.

    Args:
        films: a row of films for each shape. None leaves a place empty.
        data: some real points of each shape, [N, 2].
        heads: the words above each column.
        path: the file.
    """
    longest = max((film for row in films for film in row if film), key=lambda film: len(film.tiles))
    colors = color_map("viridis")
    pages = []
    for number, step in enumerate(longest.steps):
        page = Image.new("RGB", (_SHOWN * len(heads), 2 * _HEAD + _SHOWN * len(films)), (255, 255, 255))
        pen = ImageDraw.Draw(page)
        pen.text((4, page.height - _HEAD + 3), f"step {step:,}", fill=(0, 0, 0))
        for column, head in enumerate(heads):
            pen.text((column * _SHOWN + 4, 3), head, fill=(0, 0, 0))
        for place, (row, points) in enumerate(zip(films, data, strict=True)):
            for column, film in enumerate(row):
                if film:
                    at = min(number, len(film.tiles) - 1)
                    generated = film.generated[at] if film.generated else []
                    page.paste(
                        _panel(colors[film.tiles[at]], points.tolist(), generated),
                        (column * _SHOWN, _HEAD + place * _SHOWN),
                    )
        pages.append(page)
    durations = [_MILLISECONDS] * (len(pages) - 1) + [_LAST_MILLISECONDS]
    with replacing(path) as file:
        pages[0].save(file, "WEBP", save_all=True, append_images=pages[1:], duration=durations, loop=0, quality=40)


def _panel(pixels: Bytes, data: Sequence[Sequence[float]], generated: Sequence[Sequence[float]]) -> Image.Image:
    panel = Image.fromarray(pixels[::-1]).resize((_SHOWN, _SHOWN), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(panel)
    for points, color in ((data, _COLORS["data"]), (generated, _COLORS["generated"])):
        for across, up in points:
            x, y = (round((1 + part / REACH) / 2 * (_SHOWN - 1)) for part in (across, -up))
            pen.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill=color)
    return panel
